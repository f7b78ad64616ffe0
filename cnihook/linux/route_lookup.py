# SPDX-License-Identifier: Apache-2.0
"""Routes as the kernel reports them: all of them, or the one that it would use, as `ip route get` shows it.

linux.routes reads routes with every attribute, in order to set them again.
"""

import _struct as struct
import errno
from _socket import AF_INET, AF_INET6, AF_UNSPEC

from cnihook.fast.address import Address, IPNet
from cnihook.linux.netlink import NLM_F_DUMP, NetlinkError, attr, attributes, read_u32, u32
from cnihook.linux.rtnl import (
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_PRIORITY,
    RTA_TABLE,
    RTM_GETROUTE,
    RTN_LOCAL,
    RTN_UNICAST,
    Link,
    Rtnl,
)

_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)


class LinkRoute:
    """A route.  `dst` is None for a default route."""

    __slots__ = ("dst", "gateway", "index", "kind", "priority", "protocol", "scope", "table", "version")

    def __init__(self, body: bytes) -> None:
        family, prefix, _, _, table, self.protocol, self.scope, self.kind, _ = _ROUTE.unpack_from(body)
        attrs = attributes(body, _ROUTE.size)
        self.version = 4 if family == AF_INET else 6
        self.dst = IPNet(Address(attrs[RTA_DST]), prefix) if RTA_DST in attrs else None
        self.gateway = Address(attrs[RTA_GATEWAY]) if RTA_GATEWAY in attrs else None
        self.index = read_u32(attrs.get(RTA_OIF))
        self.priority = read_u32(attrs.get(RTA_PRIORITY))
        self.table = read_u32(attrs.get(RTA_TABLE)) or table


def routes(rtnl: Rtnl, version: int = 0) -> "list[LinkRoute]":
    """Return the routes of one version of IP, or of both."""
    family = {4: AF_INET, 6: AF_INET6}.get(version, AF_UNSPEC)
    body = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
    return [LinkRoute(answer) for answer in rtnl.request(RTM_GETROUTE, NLM_F_DUMP, body, "list routes")]


def link_towards(rtnl: Rtnl, address: Address) -> "Link | None":
    """Return the link by which packets to an address leave; None if they do not leave."""
    try:
        route = _look_up(rtnl, address)
    except NetlinkError:
        return None  # there is no route; the kernel has several errors for that
    return rtnl.find_link_by_index(route.index) if route.kind == RTN_UNICAST else None


def is_local(rtnl: Rtnl, link: Link, address: Address) -> bool:
    """Return True if the kernel accepts the address as its own on this link."""
    try:
        return bool(_look_up(rtnl, address, u32(RTA_OIF, link.index)).kind == RTN_LOCAL)
    except NetlinkError as error:
        if error.errno in _NO_ROUTE:
            return False
        raise


def _look_up(rtnl: Rtnl, address: Address, attrs: bytes = b"") -> LinkRoute:
    body = _ROUTE.pack(address.family, address.bits, 0, 0, 0, 0, 0, 0, 0) + attr(RTA_DST, address) + attrs
    return LinkRoute(rtnl.request(RTM_GETROUTE, 0, body, f"look up the route to {address}")[0])
