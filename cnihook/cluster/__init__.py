# SPDX-License-Identifier: Apache-2.0
"""
One network over several hosts: each host has a block of addresses, and routes to the blocks of the others.

    model       the values in the store, read from JSON that can be wrong
    store       the operations of a store, and its keys
    etcd        etcd as the store; etcd_http: its servers, TLS, users, errors
    view        the store as one host knows it
    claims      the own block: claim it, keep it, or stop using it
    peers       the blocks that this host needs routes to
    state       this host's files of a network
    agent       one network's loop; follower and liveness are its threads at the store
    report      what `cnihook cluster status` and the doctor show
    local       the same from the files of this host alone, for metrics and pictures
    kernel      one pass over the routes in the kernel; guard: what the firewall has to let through
    transport/  how packets get from host to host: vxlan, routes, wireguard

A host that uses no such network imports none of it.
"""
