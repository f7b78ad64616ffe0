# SPDX-License-Identifier: Apache-2.0
"""
Check for published ports that lead to a container in which no program listens there.

sock_diag shows the sockets, as it does before a port is published.  Rejected: psutil.  It does not show
IPV6_V6ONLY, without which a socket on :: receives IPv4, too.  It does not know SCTP.  And for each container
it reads the descriptors of all processes: 13 ms with 210 of them, instead of 0.2 ms.
"""

import contextlib
from collections.abc import Iterator

from cnihook.doctor.finding import Finding, Host
from cnihook.linux import listeners
from cnihook.linux.listeners import Listener
from cnihook.linux.netns import NetNS
from cnihook.nftables import host_ports, ports
from cnihook.nftables.port_maps import Element
from cnihook.runtime import attachment
from cnihook.runtime.remains import owner_of

_ANY_ADDRESS = {4: "0.0.0.0", 6: "::"}
_SHOWN = 3  # ports of a container in a finding; it may have thousands

Sockets = dict[tuple[str, int], list[Listener]]  # by protocol and port


def check(host: Host) -> Iterator[Finding]:
    by_owner: dict[str, list[Element]] = {}
    for element in ports.published():
        by_owner.setdefault(element.owner, []).append(element)
    for record in host.records if by_owner else ():
        elements = by_owner.get(owner_of(record.identity), [])
        if elements and not attachment.is_gone(record):
            sockets = _sockets(attachment.live_netns_path(record), elements)
            yield from _findings(record.container_id, elements, sockets)


def _sockets(netns: str, elements: list[Element]) -> Sockets:
    """Return the sockets that listen on the ports to which these lead, an entry for each port that was read.

    The kernel's module that lists the sockets of a protocol may be missing.
    """
    sockets: Sockets = {}
    namespace = NetNS.find(netns)
    if not namespace:
        return sockets  # the container has ended in between
    try:
        with namespace.entered():
            for protocol in {element.port.protocol for element in elements}:
                numbers = {each.target[1] for each in elements if each.port.protocol == protocol}
                with contextlib.suppress(OSError):
                    listening = list(listeners.read(protocol, numbers))
                    sockets |= {(protocol, number): [] for number in numbers}
                    for listener in listening:
                        sockets[protocol, listener.port].append(listener)
    finally:
        namespace.close()
    return sockets


def _findings(container_id: str, elements: list[Element], sockets: Sockets) -> Iterator[Finding]:
    by_target: dict[tuple[str, int], list[Element]] = {}
    for element in sorted(elements, key=lambda one: (one.target[1], one.port.version, one.port.number)):
        by_target.setdefault((element.port.protocol, element.target[1]), []).append(element)
    unserved: list[Element] = []
    elsewhere: list[tuple[list[Listener], list[Element]]] = []
    for target, leading in by_target.items():
        listening = sockets.get(target)
        if listening is None:
            continue
        unheard = [one for one in leading if not _is_heard(one, listening)]
        if listening and unheard == leading:
            elsewhere.append((listening, leading))
        else:
            unserved += unheard  # a program may serve one IP version on purpose
    for programs, unheard in _by_program(elsewhere).items():
        versions = sorted({one.port.version for one in unheard})
        yield Finding(
            "listener-elsewhere",
            f"container {container_id}: {programs}, not on {_targets(unheard)}",
            "clients of the host's port do not reach the program",
            f"configure the program to listen on {' and '.join(_ANY_ADDRESS[each] for each in versions)}",
        )
    if unserved:
        yield Finding(
            "port-without-listener",
            f"container {container_id}: no program listens on {_targets(unserved)}",
            "clients of the host's port get no answer; a program that is starting may listen later",
            f"cnihook inspect {container_id}",
            note=True,
        )


def _is_heard(element: Element, listening: list[Listener]) -> bool:
    return any(one.hears(element.port.version, element.target[0]) for one in listening)


def _by_program(elsewhere: list[tuple[list[Listener], list[Element]]]) -> dict[str, list[Element]]:
    """Return the ports by the description of the programs that listen on other addresses."""
    pids = listeners.processes_of({one.inode for listening, _ports in elsewhere for one in listening})
    by_program: dict[str, list[Element]] = {}
    for listening, leading in elsewhere:
        by_address = {one.address: one for one in listening}  # a server's workers may have a socket each
        programs = [host_ports.describe(one, pids.get(one.inode, [])) for one in by_address.values()]
        by_program.setdefault(" and ".join(programs), []).extend(leading)
    return by_program


def _targets(elements: list[Element]) -> str:
    """Return the ends in the container, and the ports of the host that lead there."""
    texts = []
    for element in elements[:_SHOWN]:
        address, number = element.target
        end = f"[{address}]:{number}" if address.version == 6 else f"{address}:{number}"
        texts.append(f"{end}/{element.port.protocol} (port {element.port.number} of the host)")
    more = len(elements) - _SHOWN
    return ", ".join(texts) + (f" and {more} more" if more > 0 else "")
