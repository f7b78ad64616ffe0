# SPDX-License-Identifier: Apache-2.0
"""
cnihook: CNI networks for containers that runc, crun, podman or docker start, and for plain commands.

The house, from the top down; a folder uses only what stands below it:

    cli/        one file per command
    hook.py     the OCI hook: a container's state on stdin, its networks up or down
    attach.py   all networks of one container, up (with rollback) or down
    oci/        what OCI runtimes say: the state, config.json, which networks are wanted
    runtime/    the runtime side of CNI: find networks, run their plugins, remember what is attached
    plugins/    one file per plugin type; run by name
    sdk/        what a plugin is written with, and how a plugin, built in or executable, is called
    dhcp/       a DHCP client, and the process that keeps its leases
    spec/       the CNI specification as types
    linux/      links, addresses, routes, nftables, namespaces, by the kernel's own interfaces
    lean/       parts of the standard library at a price that a container's start can bear

This module imports nothing: every start of a container would pay for it.
"""

__version__ = "0.1.0"
