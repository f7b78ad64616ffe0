# SPDX-License-Identifier: Apache-2.0
"""The link by which the kernel would send a packet, as `ip route get` shows it."""

import _struct as struct

from cnihook.fast.address import Address
from cnihook.linux.netlink import NetlinkError, attr
from cnihook.linux.rtnl import RTA_DST, RTM_GETROUTE, RTN_UNICAST, Link, LinkRoute, Rtnl

_ROUTE = struct.Struct("=BBBBBBBBI")  # as in linux.rtnl


def link_towards(rtnl: Rtnl, address: Address) -> "Link | None":
    """Return the link by which packets to an address leave; None if they do not leave."""
    body = _ROUTE.pack(address.family, address.bits, 0, 0, 0, 0, 0, 0, 0) + attr(RTA_DST, address)
    try:
        route = LinkRoute(rtnl.request(RTM_GETROUTE, 0, body, f"look up the route to {address}")[0])
    except NetlinkError:
        return None  # there is no route; the kernel has several errors for that
    return rtnl.find_link_by_index(route.index) if route.kind == RTN_UNICAST else None
