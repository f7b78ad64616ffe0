# SPDX-License-Identifier: Apache-2.0
"""A bridge of the host: made for the first container, used as it is if it exists, removed with the last.

A bridge that cnihook made is recognized by its group and its alias.  A bridge of another program is never
removed, and keeps what its ports and the host rely on.
"""

import errno
import os

from cnihook.fast.address import IPNet
from cnihook.links import ready, router, veth
from cnihook.linux import sysfs
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.rtnl import BR_STATE_FORWARDING, IF_OPER_UP, IFA_F_NODAD, Link, Rtnl
from cnihook.protocol import locks
from cnihook.protocol.call import GROUP, Call
from cnihook.types.errors import INTERNAL, CniError

_MADE_FOR = "made by cnihook for "  # the alias of a bridge, before the network


def ensure(host: Rtnl, name: str, network: str, *, mtu: int, filters_vlans: bool, promiscuous: bool) -> Link:
    """Make the bridge, or use the existing one.  Call it under the bridge's lock."""
    bridge = existing = host.find_link(name)
    if not bridge:
        try:
            group, mac = GROUP << 16, _random_mac()
            host.add_bridge(name, mtu=mtu, vlan_filtering=filters_vlans, group=group, mac=mac)
        except NetlinkError as error:
            if error.errno != errno.EEXIST:  # the reference plugin, which takes no such lock, was faster
                raise
        bridge = host.link(name)
        if is_own(bridge):
            host.set_link(bridge, alias=f"{_MADE_FOR}{network}")
    elif bridge.kind != "bridge":
        raise CniError(INTERNAL, f'"{name}" already exists but is not a bridge')
    elif filters_vlans and not bridge.vlan_filtering:
        from cnihook.links import bridge_vlans  # few networks have VLANs

        bridge_vlans.enable_filtering(host, bridge)
    if not is_own(bridge) and not sysfs.has_set_mac(bridge.name):
        # A bridge keeps a MAC address that was set, here to the same value.  Containers have it as their
        # gateway's, and the result contains it.
        host.set_link(bridge, mac=bridge.mac)
    router.ignore_advertisements(host, bridge, existing)
    if not bridge.is_up or (promiscuous and not bridge.promiscuous):
        host.set_link(bridge, up=True, promiscuous=True if promiscuous else None)
    return bridge


def ensure_addresses(host: Rtnl, bridge: Link, link: Link, nets: "list[IPNet]", *, force: bool) -> None:
    """Set the gateway addresses on `link`, the bridge or the host's interface in one of its VLANs.

    Raises CniError if the link has another address of the same version; with `force`, that is replaced.
    """
    # On a bridge that cnihook made, only containers could have the same address, and one could prevent the
    # host from using its own.  On other bridges the kernel looks for a duplicate, which takes one to two
    # seconds.
    ifa_flags = IFA_F_NODAD if is_own(bridge) else 0
    for net in nets:
        _ensure_address(host, link, net, force, ifa_flags if net.address.version == 6 else 0)


def _ensure_address(host: Rtnl, link: Link, wanted: IPNet, force: bool, ifa_flags: int) -> None:
    for present in host.addresses(link):
        if present.net == wanted:
            return
        if present.net.address.version != wanted.address.version:
            continue
        if wanted.address.version == 6 and not present.net.overlaps(wanted):
            continue  # several IPv6 networks on one link are normal
        if not force:
            raise CniError(
                INTERNAL,
                f'"{link.name}" already has an IP address different from {wanted}',
                f'it has {present.net}; "forceAddress": true replaces it',
            )
        host.delete_address(link, present.net)
    try:
        host.add_address(link, wanted, ifa_flags=ifa_flags)
    except NetlinkError as error:
        if error.errno != errno.EEXIST:  # a container that starts at the same time was faster
            raise


def wait_for_path(host: Rtnl, port: Link, bridge: Link, gateway: Link, addresses: "list[IPNet]") -> None:
    """Wait until the port, a new bridge and the gateway's addresses carry traffic.

    Before that, what the container sends and what the host answers is lost, above all the first ARP request.
    """
    port = ready.wait_for_link(host, port)
    if port.operstate != IF_OPER_UP:
        raise CniError(INTERNAL, f"bridge port {port.name} in error state: {port.operstate}")
    if port.port_state != BR_STATE_FORWARDING:
        return  # spanning tree opens it in twice the bridge's forward delay, 30 s by default
    if bridge.operstate != IF_OPER_UP:  # its first port gives it a carrier
        ready.wait_for_link(host, bridge)
    ready.wait_for_addresses(host, gateway, addresses)


def _random_mac() -> bytes:
    """Return a random MAC address (locally administered), as the kernel would make one."""
    first, *others = os.urandom(6)
    return bytes([first & 0xFC | 0x02, *others])


def remove_port(call: Call, name: str) -> None:
    """Remove the container's port, and with the last one the bridge; at the end of a container, later."""
    port = veth.find_host_end(call)
    if ending := call.request.ending:
        bridge = call.host.find_link_by_index(port.master) if port and port.master else None
        if port:
            call.remove_link(call.host, port)
        ending.bridges.append(bridge.name if bridge else name)  # it may have been renamed
        return
    if port and not remove_unused(call.host, name, port):
        # Not under the bridge's lock, so that many processes can wait at the same time.
        call.host.delete_link(port)
    # If another container's port was removed at the same time, its DEL saw this port and kept the bridge.
    remove_unused(call.host, name)
    if not port and not call.host.find_link(name):
        remove_renamed(call.host, call.network)


def remove_renamed(host: Rtnl, network: str) -> None:
    """Remove what is unused on bridges that were made for this network and were renamed."""
    for link in host.links():
        if link.kind == "bridge" and link.alias == f"{_MADE_FOR}{network}":
            remove_unused(host, link.name)


def remove_unused(host: Rtnl, name: str, last: "Link | None" = None) -> bool:
    """Remove what no port except `last` uses: gateways of VLANs, and the bridge if cnihook made it.

    Returns True if anything was removed; then `last` was removed in the same request.
    """
    with locks.bridge(name, "remove what is unused"):
        bridge = host.find_link(name)
        if last and last.master and last.master != (bridge.index if bridge else 0):
            bridge = host.find_link_by_index(last.master)  # renamed since
        if not bridge or bridge.kind != "bridge":
            return False
        unused = _unused(host, bridge, last)
        if not unused:
            return False
        # Still a group of cnihook: if this process is killed half-way, the bridge is recognized.
        group = GROUP << 16 | int.from_bytes(os.urandom(2), "little") | 1
        host.delete_links([*([last] if last else []), *unused], group)
        return True


def _unused(host: Rtnl, bridge: Link, last: "Link | None") -> "list[Link]":
    """Return the bridge and all of its ports except `last` if only gateways are left, else unused gateways.

    The first port of a container, or of another program, shows that the bridge is in use.
    """
    if not (is_own(bridge) or bridge.vlan_filtering):
        return []
    gateways: dict[int, Link] = {}
    for port in host.each_port(bridge):
        if not last or port.index != last.index:
            if not is_own(port):
                break
            gateways[port.index] = port
    else:
        return [*gateways.values(), *([bridge] if is_own(bridge) else [])]
    if not bridge.vlan_filtering:
        return []  # a gateway is in a VLAN
    from cnihook.links import bridge_vlans  # few networks have VLANs

    return bridge_vlans.unused_gateways(host, bridge, last)


def is_own(link: Link) -> bool:
    """Return True if the plugin made the link: by its group or, as users change that, a bridge's alias."""
    return link.group >> 16 == GROUP or (link.kind == "bridge" and link.alias.startswith(_MADE_FOR))
