# SPDX-License-Identifier: Apache-2.0
"""Where the kernel would send a packet: what `ip route get` shows."""

import _struct as struct

from cnihook.lean.address import Address
from cnihook.linux.netlink import NetlinkError, attr
from cnihook.linux.rtnl import RTA_DST, RTM_GETROUTE, RTN_UNICAST, Link, LinkRoute, Rtnl

_ROUTE = struct.Struct("=BBBBBBBBI")  # as linux.rtnl has it


def link_towards(rtnl: Rtnl, address: Address) -> "Link | None":
    """The link by which packets to an address leave; None if they do not leave at all."""
    body = _ROUTE.pack(address.family, address.bits, 0, 0, 0, 0, 0, 0, 0) + attr(RTA_DST, address)
    try:
        route = LinkRoute(rtnl.request(RTM_GETROUTE, 0, body, f"look up the route to {address}")[0])
    except NetlinkError:
        return None  # there is none, whichever of several ways the kernel has to say so
    return rtnl.find_link_by_index(route.index) if route.kind == RTN_UNICAST else None
