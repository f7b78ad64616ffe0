# SPDX-License-Identifier: Apache-2.0
"""
The MAC addresses that a bridge knows, and the addresses of the other end of a veth pair.

The forwarding table of a bridge (`bridge fdb`) has the bridge's own address, those of its ports, and what it
has learned in the last 300 s.  A container that was silent for longer is not in it.  Its address is still
available: the kernel answers requests about a link in another namespace that is named by its number here.

<linux/neighbour.h> has the messages, <linux/if_link.h> IFLA_LINK_NETNSID.
"""

import _struct as struct
import errno
from _socket import AF_UNSPEC

from cnihook.fast.address import Address, mac_bytes
from cnihook.linux.netlink import NLM_F_DUMP, NetlinkError, attr, s32, u16, u32
from cnihook.linux.rtnl import AF_BRIDGE, RTM_GETADDR, RTM_GETLINK, Link, LinkAddress, Rtnl

_RTM_GETNEIGH = 30
_NDA_LLADDR, _NDA_VLAN, _NDA_MASTER = 2, 5, 9
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, link, state, flags, type
_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change mask
_IFADDR = struct.Struct("=BxxxI")  # family, link
_IFLA_TARGET_NETNSID, _IFA_TARGET_NETNSID = 46, 10


def find(rtnl: Rtnl, bridge: Link, mac: str, vlan: int = 0) -> int:
    """Return the index of the link that leads to this address, 0 if the bridge does not know it.

    For the bridge's own address it is the index of the bridge.  It is always 0 with Linux before 5.0.
    """
    body = _NEIGHBOUR.pack(AF_BRIDGE, 0, 0, 0, 0) + u32(_NDA_MASTER, bridge.index)
    body += attr(_NDA_LLADDR, mac_bytes(mac))
    if vlan:
        body += u16(_NDA_VLAN, vlan)
    try:
        answer = rtnl.request(_RTM_GETNEIGH, 0, body, f"look up {mac} on {bridge.name}")[0]
    except NetlinkError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP):
            return 0
        raise
    index: int = _NEIGHBOUR.unpack_from(answer)[1]
    return index


def other_end(rtnl: Rtnl, end: Link) -> "Link | None":
    """Return the other end of a veth pair, in any namespace; None if it cannot be seen from here."""
    if end.peer_netns is None:
        return rtnl.find_link_by_index(end.peer_index)
    body = _IFINFO.pack(AF_UNSPEC, 0, end.peer_index, 0, 0) + s32(_IFLA_TARGET_NETNSID, end.peer_netns)
    try:
        return Link(rtnl.request(RTM_GETLINK, 0, body, f"look up the other end of {end.name}")[0])
    except NetlinkError as error:
        if error.errno in (errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM):
            return None
        raise


def addresses_of_other_end(rtnl: Rtnl, end: Link) -> "list[Address]":
    """Return the IP addresses of the other end of a veth pair; empty if they cannot be seen from here."""
    body = _IFADDR.pack(AF_UNSPEC, end.peer_index)
    if end.peer_netns is not None:
        body += s32(_IFA_TARGET_NETNSID, end.peer_netns)
    try:
        answer = rtnl.request(RTM_GETADDR, NLM_F_DUMP, body, f"list addresses behind {end.name}")
    except NetlinkError as error:
        if error.errno in (errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM):
            return []
        raise
    present = map(LinkAddress, answer)
    return [each.net.address for each in present if each.index == end.peer_index]
