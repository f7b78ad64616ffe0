# SPDX-License-Identifier: Apache-2.0
"""
cnihook: CNI networks for containers that runc, crun, podman or docker start, and for plain commands.

The folders and files, from the top down; each uses only what is below it:

    cli/          one file per command
    doctor/       findings: what is wrong on a host, and the command that corrects it
    hook.py       the OCI hook: a container's state on stdin, its networks up or down
    attach.py     attach one container to all its networks (with rollback)
    detach.py     detach one container; release what containers that are gone have left
    settings.py   the folders of networks and plugins
    oci/          input from OCI runtimes: the state, config.json, which networks are requested
    conformance/  black-box checks of plugins and runtimes
    runtime/      the runtime side of CNI: find networks, run their plugins, keep records
    plugins/      one file per plugin type; run by name
    sdk/          the library for plugins, and the calls of built-in and executable plugins
    dhcp/         a DHCP client, and the process that renews its leases
    spec/         the CNI specification as types
    linux/        links, addresses, routes, nftables, namespaces, by the kernel's own interfaces
    log.py        one log per container, and messages on stderr
    lean/         parts of the standard library, made fast enough for a container's start
    pages/        documentation that tests run

This module imports nothing that Python has not loaded: every start of a container would pay for it.
"""

import os
import sys

__version__ = "0.1.0"
__all__ = ["CNI", "CniError", "Result"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.runtime.cni import CNI
    from cnihook.spec.errors import CniError
    from cnihook.spec.result import Result

_MODULES = {"CNI": "runtime.cni", "CniError": "spec.errors", "Result": "spec.result"}


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


# A program that has found cnihook/__pycache__ unsafe itself sets the prefix before this runs.
caches_are_safe = not unsafe_caches()
if not caches_are_safe:
    sys.pycache_prefix = os.devnull  # neither read nor written
elif sys.pycache_prefix == os.devnull:
    sys.pycache_prefix = None
