# SPDX-License-Identifier: Apache-2.0
"""
One network over several hosts: each host has a block of addresses, and routes to the blocks of the others.

    model       what the store holds, read from JSON that can be wrong

A host that uses no such network imports none of it.
"""
