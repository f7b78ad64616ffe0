# SPDX-License-Identifier: Apache-2.0
"""A bridge of the host: made for the first container, used as it is if it exists, removed with the last.

A bridge that cnihook made is recognized by its group and its alias.  A bridge of another program is never
removed, and keeps what its ports and the host rely on.
"""

import errno
import os

from cnihook.links import router, veth
from cnihook.linux import sysfs
from cnihook.linux.flock import Lock
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.rtnl import Link, Rtnl
from cnihook.types.errors import INTERNAL, CniError

DEFAULT_VLAN = 1  # the VLAN that a bridge gives every new port
_MADE_FOR = "made by cnihook for "  # the alias of a bridge, before the network


def ensure(host: Rtnl, name: str, network: str, *, mtu: int, filters_vlans: bool, promiscuous: bool) -> Link:
    """Make the bridge, or use the existing one.  Call it under the bridge's lock."""
    bridge = existing = host.find_link(name)
    if not bridge:
        try:
            group, mac = veth.GROUP << 16, _random_mac()
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
        _filter_vlans(host, bridge)
    if not is_own(bridge) and not sysfs.has_set_mac(bridge.name):
        # A bridge keeps a MAC address that was set, here to the same value.  Containers have it as their
        # gateway's, and the result contains it.
        host.set_link(bridge, mac=bridge.mac)
    router.ignore_advertisements(host, bridge, existing)
    if not bridge.is_up or (promiscuous and not bridge.promiscuous):
        host.set_link(bridge, up=True, promiscuous=True if promiscuous else None)
    return bridge


def _filter_vlans(host: Rtnl, bridge: Link) -> None:
    """Enable VLAN filtering.  Raises CniError if ports of other programs would lose their tagged frames."""
    others = " ".join(port.name for port in host.links(bridge.index) if not veth.is_own(port))
    if others:
        raise CniError(
            INTERNAL,
            f'"{bridge.name}" does not filter VLANs, and has ports of other programs: {others}',
            "with filtering, these lose frames of VLANs that they are not in; if that is acceptable: "
            f"ip link set {bridge.name} type bridge vlan_filtering 1",
        )
    host.set_vlan_filtering(bridge)


def _random_mac() -> bytes:
    """Return a random MAC address (locally administered), as the kernel would make one."""
    first, *others = os.urandom(6)
    return bytes([first & 0xFC | 0x02, *others])


def remove_renamed(host: Rtnl, network: str) -> None:
    """Remove what is unused on bridges that were made for this network and were renamed."""
    for link in host.links():
        if link.kind == "bridge" and link.alias == f"{_MADE_FOR}{network}":
            remove_unused(host, link.name)


def remove_unused(host: Rtnl, name: str, last: "Link | None" = None) -> bool:
    """Remove what no port except `last` uses: gateways of VLANs, and the bridge if cnihook made it.

    Returns True if anything was removed; then `last` was removed in the same request.
    """
    with Lock(f"bridge-{name}", purpose="remove what is unused"):
        bridge = host.find_link(name)
        if last and last.master and last.master != (bridge.index if bridge else 0):
            bridge = host.find_link_by_index(last.master)  # renamed since
        if not bridge or bridge.kind != "bridge":
            return False
        ports = [port for port in host.links(bridge.index) if not last or port.index != last.index]
        gateways = [port for port in ports if is_own(port)]
        if len(ports) == len(gateways) and is_own(bridge):
            unused = [*gateways, bridge]
        else:
            unused = _unused_gateways(host, ports, gateways)
        if not unused:
            return False
        # Still a group of cnihook: if this process is killed half-way, the bridge is recognized.
        group = veth.GROUP << 16 | int.from_bytes(os.urandom(2), "little") | 1
        host.delete_links([*([last] if last else []), *unused], group)
        return True


def _unused_gateways(host: Rtnl, ports: "list[Link]", gateways: "list[Link]") -> "list[Link]":
    """Return the ports of the gateways whose VLANs no other port has any more."""
    if not gateways:
        return []
    vlans = host.port_vlans()
    used = {vlan for port in ports if port not in gateways for vlan in vlans.get(port.index, ())}
    unused = []
    for port in gateways:
        own = vlans.get(port.index, set())
        if not used & (own - {DEFAULT_VLAN} or own):
            unused.append(port)
    return unused


def is_own(link: Link) -> bool:
    """Return True if the plugin made the link: by its group or, as users change that, a bridge's alias."""
    return link.group >> 16 == veth.GROUP or (link.kind == "bridge" and link.alias.startswith(_MADE_FOR))
