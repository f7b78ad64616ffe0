# SPDX-License-Identifier: Apache-2.0
"""
Addresses that a container chooses: neither the bridge nor a neighbour on it may have the same one.

If two of them have one address, all traffic goes to the one that sent last, and the other loses its own.

The check costs a request to the kernel for each port.  So it is done only for containers that request a MAC
address, or have IP addresses from a plugin without leases.
"""

from cnihook.linux import fdb
from cnihook.linux.rtnl import Link, Rtnl
from cnihook.types.errors import INTERNAL, MacTakenError, ResourceTakenError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cnihook.fast.address import Address


def mac_taken(mac: str, holder: str) -> MacTakenError:
    return MacTakenError(
        INTERNAL, f"MAC address {mac} is taken: {holder}", "request another address, or none"
    )


def refuse_taken_mac(
    host: Rtnl, bridge: Link, mac: str, *, own: "Link | None" = None, vlans: "Iterable[int]" = ()
) -> None:
    """Raise MacTakenError if the bridge has this address, or a neighbour on it.  `own`: its own port.

    `vlans`: those of the container, on a bridge that filters VLANs and learns addresses for each of them.
    """
    mac = mac.lower()
    if mac == bridge.mac:
        raise mac_taken(mac, f"bridge {bridge.name} has it itself")
    for port in host.links(bridge.index):
        if own and port.index == own.index:
            continue
        if port.mac == mac:
            raise mac_taken(mac, f"port {port.name} of {bridge.name} has it")
        other = fdb.other_end(host, port) if port.kind == "veth" else None
        if other and other.mac == mac:
            raise mac_taken(mac, _container_at(port, bridge))
    for vlan in {0, *vlans}:
        index = fdb.find(host, bridge, mac, vlan)
        if index and not (own and index == own.index):
            uplink = host.find_link_by_index(index)
            where = f"port {uplink.name} of {bridge.name}" if uplink else bridge.name
            raise mac_taken(mac, f"a machine behind {where} has it, or had it in the last minutes")


def refuse_taken_mac_behind(host: Rtnl, link: Link, mac: str) -> None:
    """Raise MacTakenError if the address is in use on a veth's bridge.  The kernel checks a macvlan's."""
    port = host.find_link_by_index(link.peer_index) if link.kind == "veth" else None
    if not (port and port.kind == "veth" and port.peer_index == link.index and port.master):
        return
    bridge = host.find_link_by_index(port.master)
    if bridge and bridge.kind == "bridge":
        from cnihook.linux import bridge_ports  # ADD of a macvlan imports this module

        vlans = bridge_ports.vlans(host).get(port.index, set()) if bridge.vlan_filtering else set()
        refuse_taken_mac(host, bridge, mac, own=port, vlans=vlans)


def refuse_taken_addresses(host: Rtnl, bridge: Link, own: Link, addresses: "Collection[Address]") -> None:
    """Raise ResourceTakenError if the bridge has one of these addresses, or a container at another port."""
    _refuse(
        addresses,
        (each.net.address for each in host.addresses(bridge)),
        f"bridge {bridge.name} has it itself",
    )
    for port in host.links(bridge.index):
        if port.index != own.index and port.kind == "veth":
            _refuse(addresses, fdb.addresses_of_other_end(host, port), _container_at(port, bridge))


def _refuse(addresses: "Collection[Address]", present: "Iterable[Address]", holder: str) -> None:
    for address in present:
        if address in addresses:
            raise ResourceTakenError(
                INTERNAL, f"address {address} is taken: {holder}", "request another address"
            )


def _container_at(port: Link, bridge: Link) -> str:
    owner = f" ({port.alias})" if port.alias else ""
    return f"the container at port {port.name} of {bridge.name} has it{owner}"
