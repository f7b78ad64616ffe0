# SPDX-License-Identifier: Apache-2.0
"""
A MAC address that a container requests: not one of a neighbour on the same bridge, nor the bridge's own.

With two of them the bridge sends everything to the one that spoke last, and the other loses all its traffic.
It costs a request to the kernel for each port, and only for a container that requests an address.
"""

from cnihook.linux import fdb
from cnihook.linux.rtnl import Link, Rtnl
from cnihook.spec.errors import INTERNAL, MacTaken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def taken(mac: str, holder: str) -> MacTaken:
    return MacTaken(INTERNAL, f"MAC address {mac} is taken: {holder}", "request another address, or none")


def refuse_taken(
    host: Rtnl, bridge: Link, mac: str, *, own: "Link | None" = None, vlans: "Iterable[int]" = ()
) -> None:
    """Raise MacTaken if the bridge has this address, or a neighbour on it.  `own` is the container's port.

    `vlans`: those of the container, on a bridge that filters VLANs and learns for each of them.
    """
    mac = mac.lower()
    if mac == bridge.mac:
        raise taken(mac, f"bridge {bridge.name} has it itself")
    for port in host.links(bridge.index):
        if own and port.index == own.index:
            continue
        if port.mac == mac:
            raise taken(mac, f"port {port.name} of {bridge.name} has it")
        other = fdb.other_end(host, port) if port.kind == "veth" else None
        if other and other.mac == mac:
            owner = f" ({port.alias})" if port.alias else ""
            raise taken(mac, f"the container at port {port.name} of {bridge.name} has it{owner}")
    for vlan in {0, *vlans}:
        index = fdb.find(host, bridge, mac, vlan)
        if index and not (own and index == own.index):
            known = host.find_link_by_index(index)
            where = f"port {known.name} of {bridge.name}" if known else bridge.name
            raise taken(mac, f"a machine behind {where} has it, or had it in the last minutes")
