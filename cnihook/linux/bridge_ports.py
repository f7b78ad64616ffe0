# SPDX-License-Identifier: Apache-2.0
"""
Ports of a bridge: hairpin mode, isolation and VLANs, which few networks have.

<linux/if_link.h>, <linux/if_bridge.h> and <linux/rtnetlink.h> give the names and numbers.
"""

import _struct as struct
from _socket import AF_UNSPEC

from cnihook.linux.netlink import NLM_F_DUMP, attr, attributes, nested, text, u8, u32
from cnihook.linux.rtnl import (
    AF_BRIDGE,
    IFLA_AF_SPEC,
    IFLA_BR_VLAN_FILTERING,
    IFLA_BRPORT_ISOLATED,
    IFLA_BRPORT_MODE,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_NEWLINK,
    RTM_SETLINK,
    Link,
    Rtnl,
)

# <linux/if_link.h>
IFLA_PROTINFO, IFLA_EXT_MASK = 12, 29
# <linux/rtnetlink.h>
RTEXT_FILTER_BRVLAN = 2
# <linux/if_bridge.h>
IFLA_BRIDGE_VLAN_INFO = 2
BRIDGE_VLAN_INFO_PVID, BRIDGE_VLAN_INFO_UNTAGGED = 2, 4
BRIDGE_VLAN_INFO_RANGE_BEGIN, BRIDGE_VLAN_INFO_RANGE_END = 8, 16

_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change mask
_VLAN = struct.Struct("=HH")  # flags, VLAN


def configure(
    rtnl: Rtnl, port: Link, *, hairpin: "bool | None" = None, isolated: "bool | None" = None
) -> None:
    """Change what is given.  Hairpin mode sends a frame back to the port that it arrived on."""
    attrs = []
    if hairpin is not None:
        attrs.append(u8(IFLA_BRPORT_MODE, hairpin))
    if isolated is not None:
        attrs.append(u8(IFLA_BRPORT_ISOLATED, isolated))
    if attrs:
        body = _IFINFO.pack(AF_BRIDGE, 0, port.index, 0, 0) + nested(IFLA_PROTINFO, *attrs)
        rtnl.request(RTM_SETLINK, 0, body, f"configure bridge port {port.name}")


def enable_vlan_filtering(rtnl: Rtnl, bridge: Link) -> None:
    data = nested(IFLA_INFO_DATA, u8(IFLA_BR_VLAN_FILTERING, 1))
    body = _IFINFO.pack(AF_UNSPEC, 0, bridge.index, 0, 0)
    body += nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge"), data)
    rtnl.request(RTM_NEWLINK, 0, body, f"switch VLAN filtering on for {bridge.name}")


def add_vlan(
    rtnl: Rtnl, port: Link, first: int, last: int = 0, *, pvid: bool = False, untagged: bool = False
) -> None:
    """Let the VLANs from `first` to `last` through a port."""
    flags = (BRIDGE_VLAN_INFO_PVID if pvid else 0) | (BRIDGE_VLAN_INFO_UNTAGGED if untagged else 0)
    infos, name = [(flags, first)], f"{first}"
    if last > first:
        infos = [(flags | BRIDGE_VLAN_INFO_RANGE_BEGIN, first), (flags | BRIDGE_VLAN_INFO_RANGE_END, last)]
        name = f"{first}-{last}"
    rtnl.request(RTM_SETLINK, 0, _vlan_body(port, infos), f"add VLAN {name} to {port.name}")


def delete_vlan(rtnl: Rtnl, port: Link, vlan: int) -> None:
    rtnl.request(RTM_DELLINK, 0, _vlan_body(port, [(0, vlan)]), f"delete VLAN {vlan} from {port.name}")


def _vlan_body(port: Link, infos: "list[tuple[int, int]]") -> bytes:
    attrs = [attr(IFLA_BRIDGE_VLAN_INFO, _VLAN.pack(*info)) for info in infos]
    return _IFINFO.pack(AF_BRIDGE, 0, port.index, 0, 0) + nested(IFLA_AF_SPEC, *attrs)


def vlans(rtnl: Rtnl) -> "dict[int, set[int]]":
    """Return the VLANs that each bridge port, and each bridge's own end, lets through, by link index."""
    body = _IFINFO.pack(AF_BRIDGE, 0, 0, 0, 0) + u32(IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN)
    by_index: dict[int, set[int]] = {}
    for answer in rtnl.request(RTM_GETLINK, NLM_F_DUMP, body, "list the VLANs of bridge ports"):
        spec = attributes(answer, _IFINFO.size).get(IFLA_AF_SPEC, b"")
        # All entries have the same type, so attributes() would keep the last one only.
        infos = [spec[at + 4 : at + 8] for at in range(0, len(spec), 8)]
        index = _IFINFO.unpack_from(answer)[2]
        by_index[index] = {_VLAN.unpack(info)[1] for info in infos if len(info) == _VLAN.size}
    return by_index
