# SPDX-License-Identifier: Apache-2.0
"""
cnihook: CNI networks for containers that runc, crun, podman or docker start, and for plain commands.

The folders and files, from the top down; each uses only what is below it:

    cli/          one file per command; docker/ and privnet/ are docker-run and priv-net-run
    doctor/       findings: what is wrong on a host, and the command that corrects it
    hook.py       the OCI hook: a container's state on stdin, its networks up or down
    container/    attach one container to all its networks, detach it, repair what it lost
    cluster/      one network over several hosts: their blocks of addresses, routes, names
    names/        the names of containers for each other: their /etc/hosts and resolv.conf
    resolver/     the names that a container may look up, and the process that resolves them
    mdns/         multicast DNS between containers and the LAN, and the process that sends it on
    plugins/      one file per plugin type; run by name
    request/      what a container requests; option_table.py: its options and annotations, values.py: syntax
    policy/       which connections a container may have, and the rules of the kernel for that
    links/        links that plugins make: pairs, children of a link of the host, devices that move
    nftables/     published ports, masquerading, isolation; rules in the tables of other programs
    runtime/      the runtime side of CNI: networks, their plugins, records; engine.py: whose ID a record has
    sdk/          the library for authors of plugins, and a template
    ipam/         the IPAM plugin of a network; the leases of host-local, and where they are
    protocol/     CNI's execution protocol: a call, its time limit, and both ends, the caller and the plugin
    oci/          input from OCI runtimes and engines: the state, config.json, containers and their names
    dhcp/         a DHCP client, and the process that renews its leases
    keeper/       a process that serves requests while containers need it: its start, its socket
    conformance/  black-box checks of plugins and runtimes
    types/        the CNI specification as types: configurations, results, errors, versions
    linux/        links, addresses, routes, nftables, namespaces, by the kernel's own interfaces
    log.py        one log per container, with the texts of its events; messages on stderr
    fast/         parts of the standard library, made fast enough for a container's start
    codecache.py  the modules of a start from one file
    process/      run programs, replace this one, signals, streams
    systemd/      units of systemd
    pages/        documentation that tests run

This module imports nothing that Python has not loaded: every start of a container would pay for it.
"""

import os
import sys

__version__ = "0.1.0"
__all__ = [
    "CNI",
    "AddFailedError",
    "Attachment",
    "CniError",
    "ContainerIdInUseError",
    "DamagedRecordError",
    "LockBusyError",
    "Network",
    "NetworkNotFoundError",
    "NotAttachedError",
    "Record",
    "Result",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.linux.flock import LockBusyError
    from cnihook.runtime.addition import Attachment, NotAttachedError
    from cnihook.runtime.cni import CNI
    from cnihook.runtime.engine import ContainerIdInUseError
    from cnihook.runtime.networks import Network, NetworkNotFoundError
    from cnihook.runtime.records import DamagedRecordError, Record
    from cnihook.types.errors import AddFailedError, CniError
    from cnihook.types.result import Result

_MODULES = {
    "CNI": "runtime.cni",
    "AddFailedError": "types.errors",
    "Attachment": "runtime.addition",
    "CniError": "types.errors",
    "ContainerIdInUseError": "runtime.engine",
    "DamagedRecordError": "runtime.records",
    "LockBusyError": "linux.flock",
    "Network": "runtime.networks",
    "NetworkNotFoundError": "runtime.networks",
    "NotAttachedError": "runtime.addition",
    "Record": "runtime.records",
    "Result": "types.result",
}


def __getattr__(name: str) -> object:
    """Import a name of the library at its first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'cnihook' has no attribute {name!r}")
    module = __import__(f"cnihook.{_MODULES[name]}", fromlist=[name])
    return getattr(module, name)


def unsafe_caches() -> "list[str]":
    """Return the folders of compiled code that users can write without a right to the source: 0.03 ms."""
    unsafe = []
    try:
        package = os.path.dirname(os.path.abspath(__file__))
        source = os.stat(package)
        for folder in (package, *(entry.path for entry in os.scandir(package) if entry.is_dir())):
            try:
                cache = os.stat(f"{folder}/__pycache__")
            except FileNotFoundError:
                continue
            writable = cache.st_mode & 0o022
            if writable == 0o020 and cache.st_gid == source.st_gid:
                writable &= ~source.st_mode  # a checkout that a group shares
            if writable or cache.st_uid not in (0, source.st_uid):
                unsafe.append(f"{folder}/__pycache__")
    except OSError:
        pass  # a package in an archive
    return unsafe


def discard_unsafe_caches() -> None:
    """Remove compiled code that other users could have written; Python compiles it again.

    A program calls this at its end, when nothing waits for it.
    """
    if not caches_are_safe:
        from cnihook.fast import bytecode

        for folder in unsafe_caches():
            bytecode.discard(folder)


# A program that has found cnihook/__pycache__ unsafe itself sets the prefix before this runs.
caches_are_safe = not unsafe_caches()
if not caches_are_safe:
    sys.pycache_prefix = os.devnull  # neither read nor written
elif sys.pycache_prefix == os.devnull:
    sys.pycache_prefix = None
