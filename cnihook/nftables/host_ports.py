# SPDX-License-Identifier: Apache-2.0
"""
Ports that a process of the host listens on.  A container that gets such a port takes the process's clients.

A client that connects to 127.0.0.1:5432 would send the password of a database to the container.  The address
counts as well: a process on 192.0.2.1:80 does not receive what is sent to 192.0.2.2:80.

Some processes hold the port for this container, so that no other program takes it.  They serve no client, so
none is lost:

    conmon of podman        has the container's ID among its arguments
    sleep of nerdctl        was started by the runtime that calls the plugin
"""

import os

from cnihook.linux import listeners
from cnihook.linux.listeners import Listener
from cnihook.nftables.port import PROTOCOLS, Port
from cnihook.protocol.call import Call
from cnihook.types.errors import INTERNAL, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_HINT = 'publish another port or address, stop the process, or set "takeOverPorts": true for portmap'


def refuse_taken(call: Call, ports: "Iterable[Port]") -> None:
    """Raise CniError, with the process's name and PID, for a port that one of the host listens on."""
    for port, listening in _taken(call, ports):
        raise CniError(INTERNAL, f"host port {port} is taken: {listening}", _HINT)


def describe_taken(call: Call, ports: "Iterable[Port]") -> "list[str]":
    """Return a sentence for each port that a process of the host loses to the container."""
    return [f"host port {port} leads to the container, though {by}" for port, by in _taken(call, ports)]


def _taken(call: Call, ports: "Iterable[Port]") -> "list[tuple[Port, str]]":
    """Return each taken port once, even if two IP versions have it, and which process listens where."""
    conflicts: dict[str, tuple[Port, Listener]] = {}
    for protocol in PROTOCOLS:
        by_number: dict[int, list[Port]] = {}
        for port in ports:
            if port.protocol == protocol:
                by_number.setdefault(port.number, []).append(port)
        for listener in listeners.listeners(protocol, set(by_number)) if by_number else ():
            for port in by_number[listener.port]:
                if listener.hears(port.version, port.address):
                    conflicts.setdefault(f"{port} {listener.inode}", (port, listener))
    if not conflicts:
        return []
    processes = listeners.processes_of({listener.inode for _port, listener in conflicts.values()})
    reasons: dict[str, tuple[Port, str]] = {}
    for port, listener in conflicts.values():
        pids = processes.get(listener.inode, [])
        if not any(_holds_for(call, pid) for pid in pids):
            reasons.setdefault(str(port), (port, describe(listener, pids)))
    return list(reasons.values())


def describe(listener: Listener, pids: "list[int]") -> str:
    """Return which process listens on which address.  `pids`: those that have the socket open."""
    if pids:
        more = f" and {len(pids) - 1} more" if len(pids) > 1 else ""
        process = f"process {pids[0]} ({_name(pids[0])}){more}"
    else:
        process = "a process that /proc does not show" if listener.inode else "the kernel"
    return f"{process} listens on {listener.address}"


def _holds_for(call: Call, pid: int) -> bool:
    if call.container_id in _read(pid, "cmdline").split("\0"):
        return _name(pid) == "conmon"
    return _name(pid) == "sleep" and _parent(pid) == os.getppid()


def _name(pid: int) -> str:
    return _read(pid, "comm").rstrip("\n")


def _parent(pid: int) -> int:
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0


def _read(pid: int, file: str) -> str:
    """Return a file of /proc/PID; empty if the process has ended."""
    try:
        with open(f"/proc/{pid}/{file}", "rb") as opened:
            return opened.read().decode(errors="replace")
    except OSError:
        return ""
