# SPDX-License-Identifier: Apache-2.0
"""VLANs of a bridge: those of a container's port, and the host's interface in one of them."""

from cnihook.links import ready, router, veth
from cnihook.linux import bridge_ports
from cnihook.linux.rtnl import Link, Rtnl
from cnihook.protocol import locks
from cnihook.protocol.call import GROUP, Call
from cnihook.types.config import NetConf
from cnihook.types.errors import INTERNAL, CniError
from cnihook.types.fields import DEFAULT_VLAN, MAX_VLAN

TYPE_CHECKING = False
if TYPE_CHECKING:
    Trunk = list[tuple[int, int]]  # ranges, (first, last)


def enable_filtering(host: Rtnl, bridge: Link) -> None:
    """Enable VLAN filtering.  Raises CniError if ports of other programs would lose their tagged frames."""
    others = " ".join(port.name for port in host.each_port(bridge) if not veth.is_own(port))
    if others:
        raise CniError(
            INTERNAL,
            f'"{bridge.name}" does not filter VLANs, and has ports of other programs: {others}',
            "with filtering, these lose frames of VLANs that they are not in; if that is acceptable: "
            f"ip link set {bridge.name} type bridge vlan_filtering 1",
        )
    bridge_ports.enable_vlan_filtering(host, bridge)


def set_port(host: Rtnl, port: Link, vlan: int, trunk: "Trunk", *, preserve_default: bool) -> None:
    """Put a container's port into its VLANs.  A `vlan` of 0 is the one that each new port is in."""
    if vlan and vlan != DEFAULT_VLAN and not preserve_default:
        bridge_ports.delete_vlan(host, port, DEFAULT_VLAN)
    for first, last in trunk:
        bridge_ports.add_vlan(host, port, first, last)
    # Last, because a trunk that contains the native VLAN would make it a tagged one.
    bridge_ports.add_vlan(host, port, vlan or DEFAULT_VLAN, pvid=True, untagged=True)


def check_port(host: Rtnl, port: Link, vlan: int, trunk: "Trunk") -> None:
    """Raise CniError if the port is not in all of its VLANs."""
    expected = {vlan or DEFAULT_VLAN}
    for first, last in trunk:
        expected.update(range(first, last + 1))
    if missing := sorted(expected - bridge_ports.vlans(host).get(port.index, set())):
        raise CniError(INTERNAL, f"{port.name} has lost VLAN {missing[0]}")


def find_gateway(host: Rtnl, bridge: str, vlan: int) -> Link:
    """Return the host's interface in a VLAN of the bridge.  Raises CniError if it does not exist."""
    name = _gateway_name(bridge, vlan)
    gateway = host.find_link(name)
    if not gateway:
        raise CniError(INTERNAL, f"{name}, the gateway of VLAN {vlan}, is gone")
    return gateway


def ensure_gateway(call: Call, name: str, bridge: Link, vlan: int, *, preserve_default: bool) -> Link:
    """Make the host's interface in one VLAN if it is missing: a veth pair, one end a port of the bridge.

    `name`: the bridge's name in the configuration.
    """
    host, ifname = call.host, _gateway_name(name, vlan)
    with locks.bridge(name, call.owner):
        gateway = host.find_link(ifname)
        if not gateway:
            port_name = next(veth.host_names(call)).replace("veth", "vlgw")
            group = GROUP << 16
            host.add_veth(port_name, ifname, mtu=bridge.mtu, master=bridge.index, group=group, up=True)
            port = host.link(port_name)
            host.set_link(port, alias=f"gateway {ifname}")
            set_port(host, port, vlan, [], preserve_default=preserve_default)
            gateway = host.link(ifname)
        router.ignore_advertisements(host, gateway, bridge)
        if not gateway.is_up:
            host.set_link(gateway, up=True)
            for end in (host.find_link_by_index(gateway.peer_index), gateway):
                if end:
                    ready.wait_for_link(host, end)
    return gateway


def _gateway_name(bridge: str, vlan: int) -> str:
    return f"{bridge}.{vlan}"


def unused_gateways(host: Rtnl, bridge: Link, last: "Link | None") -> "list[Link]":
    """Return the ports of the gateways whose VLANs no port of the bridge has any more, except `last`."""
    vlans = bridge_ports.vlans(host)
    used: set[int] = set()
    gateways = []
    for port in host.each_port(bridge):
        if port.group >> 16 == GROUP:  # a gateway has it from its creation
            gateways.append(port)
        elif not last or port.index != last.index:
            used |= vlans.get(port.index, set())
    unused = []
    for port in gateways:
        own = vlans.get(port.index, set())
        if not used & (own - {DEFAULT_VLAN} or own):
            unused.append(port)
    return unused


def ranges(item: NetConf) -> "list[tuple[int, int]]":
    """Return one entry of vlanTrunk as ranges, (first, last): of its id, of its range, or of both."""

    def vlan(key: str) -> int:
        value = item.integer(key, default=0, low=-(1 << 31), high=1 << 31)
        if item.has(key) and not 0 < value <= MAX_VLAN:
            why = f"incorrect trunk {key} parameter: {value} is not from 1 to {MAX_VLAN}"
            raise item.refuse(key, f"is wrong: {why}")
        return value

    one, low, high = vlan("id"), vlan("minID"), vlan("maxID")
    if bool(low) != bool(high):
        missing = "maxID" if low else "minID"
        why = f"minID and maxID should be configured simultaneously, {missing} is missing"
        raise item.refuse(missing, f"is wrong: {why}")
    if low > high:
        raise item.refuse("minID", "is wrong: minID is greater than maxID in trunk parameter")
    return [(first, last) for first, last in ((one, one), (low, high)) if first]
