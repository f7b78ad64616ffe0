# SPDX-License-Identifier: Apache-2.0
"""
Other published ports of a container that runs, in one transaction of nftables.

Elements that stay are not touched.  A connection that is established does not need its element, because the
kernel has the translation in its flow.  So it ends only with that flow: see forget().
"""

from cnihook.fast.address import Address, IPNet
from cnihook.links import flows
from cnihook.linux import nft
from cnihook.nftables import ports, table
from cnihook.nftables.port import PROTOCOLS, Port
from cnihook.nftables.port_maps import Element, Maps, maps_for
from cnihook.nftables.table import FAMILY, NAME
from cnihook.protocol import locks
from cnihook.protocol.call import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cnihook.linux.conntrack import Flow
    from cnihook.nftables.ports import Target


def change(
    call: Call,
    targets: "Mapping[Port, Target]",
    nets: "list[IPNet]",
    *,
    before: "Iterable[Port]",
    conditions: "tuple[Mapping[int, str], Mapping[int, str]]",
    masquerade: str,
) -> "tuple[list[Element], set[Port]]":
    """Publish these ports and no others.  Returns the elements that are gone, and the ports that are new.

    `before`: the ports that may be published now.  `conditions`: those of the new ports, those of the ports
    before.  Raises PortTakenError; then nothing is changed.
    """
    maps, old_maps = map(maps_for, conditions)
    with locks.nft(f"change ports of {call.owner}"):
        wanted, _has_some = ports.claim(call, targets, maps)
        own = _present(call, {*before, *targets}, {*maps.values(), *old_maps.values()})
        kept = {
            element.port
            for element in own
            if wanted.get(element.port) == element.target and element.maps == maps[element.port.version]
        }
        gone = [element for element in own if element.port not in kept]
        new = {port: target for port, target in wanted.items() if port not in kept}
        versions = {port.version for port in wanted}
        used = [net for net in nets if net.address.version in versions]
        unused = [net.address for net in nets if net not in used and _is_own(call, net.address)]
        added: dict[Maps, set[Port]] = {}
        for port in wanted:
            added.setdefault(maps[port.version], set()).add(port)
        removal = ports.removal(gone, unused, added)
        if wanted:
            ports.publish(call, new, used, maps, masquerade, removal)
        elif removal:
            nft.change(FAMILY, removal, f"unpublish ports of {call.owner}")
        if gone or unused:
            ports.remove_unused()
    return gone, set(new)


def _present(call: Call, some: "set[Port]", maps: "set[Maps]") -> "list[Element]":
    if not table.chains():
        return []
    elements = [element for one in maps for element in one.find(some).values()]
    return [element for element in elements if element.owner == call.owner]


def _is_own(call: Call, address: Address) -> bool:
    return nft.comment_of(FAMILY, NAME, f"ports-to{address.version}", address) == call.owner


def forget(call: Call, gone: "list[Element]") -> None:
    """Delete the flows of UDP that came by these ports, and with `cuts` those of any protocol.

    A flow of UDP lives as long as packets come, so its client would not notice.
    """
    ended = {
        (PROTOCOLS[port.protocol], port.number, port.address, element.target)
        for element in gone
        if (port := element.port).protocol == "udp" or call.request.cuts
    }

    def is_ended(flow: "Flow") -> bool:
        target = flow.answerer, flow.answerer_port
        return any((flow.protocol, flow.port, at, target) in ended for at in (None, flow.destination))

    flows.forget_later(call, {target[0] for _protocol, _number, _at, target in ended}, is_ended)
