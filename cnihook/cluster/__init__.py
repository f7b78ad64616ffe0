# SPDX-License-Identifier: Apache-2.0
"""
One network over several hosts: each host has a block of addresses, and routes to the blocks of the others.

    model       the values in the store, read from JSON that can be wrong
    store       the operations of a store, and its keys
    etcd        etcd as the store; etcd_http: its servers, TLS, users, errors
    view        the store as one host knows it
    claims      the own block: claim it, keep it, or stop using it
    peers       the blocks that this host needs routes to

A host that uses no such network imports none of it.
"""
