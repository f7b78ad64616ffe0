# SPDX-License-Identifier: Apache-2.0
"""Local routes: with one, the kernel accepts what arrives for an address as its own."""

import _struct as struct
import errno

from cnihook.fast.address import Address
from cnihook.linux.netlink import NetlinkError, attr, u32
from cnihook.linux.rtnl import RTA_DST, RTA_OIF, RTM_GETROUTE, Link, LinkRoute, Rtnl

RTN_LOCAL = 2  # <linux/rtnetlink.h>

_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)


def is_set(rtnl: Rtnl, link: Link, address: Address) -> bool:
    """Return True if the kernel accepts the address as its own on this link."""
    body = _ROUTE.pack(address.family, address.bits, 0, 0, 0, 0, 0, 0, 0)
    body += attr(RTA_DST, address) + u32(RTA_OIF, link.index)
    try:
        answers = rtnl.request(RTM_GETROUTE, 0, body, f"look up the route to {address}")
    except NetlinkError as error:
        if error.errno in _NO_ROUTE:
            return False
        raise
    return bool(LinkRoute(answers[0]).kind == RTN_LOCAL)
