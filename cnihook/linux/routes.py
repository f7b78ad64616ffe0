# SPDX-License-Identifier: Apache-2.0
"""
Whole routes: read with every attribute that the kernel reports, to be set again as they were.

They are for code that moves routes between tables.  Rtnl has enough to add or to find a route.
"""

import _struct as struct
import errno
from _socket import AF_INET, AF_INET6, AF_UNSPEC

from cnihook.fast.address import Address, IPNet
from cnihook.linux.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NetlinkError,
    attr,
    attributes,
    nested,
    read_u32,
)
from cnihook.linux.rtnl import (
    RTA_DST,
    RTA_GATEWAY,
    RTA_METRICS,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_PRIORITY,
    RTA_TABLE,
    RTM_DELROUTE,
    RTM_GETROUTE,
    RTM_NEWROUTE,
    Rtnl,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# <linux/rtnetlink.h>
RTA_MULTIPATH, RTA_CACHEINFO, RTA_VIA = 9, 12, 18
RTPROT_KERNEL, RTPROT_RA = 2, 9
RTNH_F_ONLINK = 4

_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags
_NEXT_HOP = struct.Struct("=HBBi")  # length, flags, weight, index


class WholeRoute:
    """A route with all of its attributes.

    `dst` is None for a default route; `index` is that of the link if there is only one, else 0.
    """

    __slots__ = (
        "_attrs", "_header", "dst", "gateway", "index", "is_direct", "kind", "protocol", "source", "table",
        "version",
    )  # fmt: skip

    def __init__(self, header: "tuple[int, ...]", attrs: "dict[int, bytes]") -> None:
        self._header = header
        self._attrs = attrs
        family, prefix, _src, _tos, table, self.protocol, _scope, self.kind, _flags = header
        self.version = 4 if family == AF_INET else 6
        self.dst = IPNet(Address(attrs[RTA_DST]), prefix) if RTA_DST in attrs else None
        self.source = Address(attrs[RTA_PREFSRC]) if RTA_PREFSRC in attrs else None
        self.table = read_u32(attrs.get(RTA_TABLE)) or table
        self.is_direct = attrs.keys().isdisjoint((RTA_GATEWAY, RTA_VIA, RTA_MULTIPATH))

        hops = list(_next_hops(attrs.get(RTA_MULTIPATH, b"")))
        indexes = {_NEXT_HOP.unpack_from(hop)[3] for hop in hops} or {read_u32(attrs.get(RTA_OIF))}
        self.index = indexes.pop() if len(indexes) == 1 else 0
        hop = attributes(hops[0], _NEXT_HOP.size) if len(hops) == 1 else attrs
        self.gateway = Address(hop[RTA_GATEWAY]) if RTA_GATEWAY in hop else None

    def in_table(self, table: int) -> "WholeRoute":
        family, prefix, src, tos, _table, *rest = self._header
        header = (family, prefix, src, tos, table if table < 256 else 0, *rest)
        return WholeRoute(header, {**self._attrs, RTA_TABLE: struct.pack("=I", table)})

    def with_source(self, source: "Address | None") -> "WholeRoute":
        attrs = {kind: data for kind, data in self._attrs.items() if kind != RTA_PREFSRC}
        return WholeRoute(self._header, {**attrs, RTA_PREFSRC: source} if source else attrs)

    @property
    def metric(self) -> int:
        return read_u32(self._attrs.get(RTA_PRIORITY))

    def with_metric(self, metric: int) -> "WholeRoute":
        return WholeRoute(self._header, {**self._attrs, RTA_PRIORITY: struct.pack("=I", metric)})

    def __bytes__(self) -> bytes:
        packed = [
            nested(kind, data) if kind == RTA_METRICS else attr(kind, data)
            for kind, data in self._attrs.items()
        ]
        return _ROUTE.pack(*self._header) + b"".join(packed)

    def __str__(self) -> str:
        via = f" via {self.gateway}" if self.gateway else ""
        return f"route {self.dst or 'default'}{via} in table {self.table}"


def listed(rtnl: Rtnl) -> "list[WholeRoute]":
    """Return the routes of all tables."""
    body = _ROUTE.pack(AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0, 0)
    bodies = rtnl.request(RTM_GETROUTE, NLM_F_DUMP, body, "list routes")
    return [route for body in bodies if body[0] in (AF_INET, AF_INET6) for route in _read(body)]


def put(rtnl: Rtnl, route: WholeRoute) -> None:
    """Set a route, behind others to the same destination.  A route that is there already is not an error.

    An IPv6 route becomes a further next hop of one with the same metric; put_behind() avoids that.
    """
    _request(rtnl, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, route, "set", errno.EEXIST)


def put_behind(rtnl: Rtnl, route: WholeRoute) -> None:
    """Set a route like put(), with a higher metric than IPv6 routes to its destination over other links."""
    if route.version == 6:
        metrics = [
            other.metric
            for other in listed(rtnl)
            if (other.version, other.dst, other.table) == (6, route.dst, route.table)
            and other.index != route.index
        ]
        if route.metric in metrics:
            route = route.with_metric(max(metrics) + 1)
    put(rtnl, route)


def delete(rtnl: Rtnl, route: WholeRoute) -> None:
    """Delete a route.  A route that is gone already is not an error."""
    _request(rtnl, RTM_DELROUTE, 0, route, "delete", errno.ESRCH)


def _request(rtnl: Rtnl, kind: int, flags: int, route: WholeRoute, verb: str, fine: int) -> None:
    try:
        rtnl.request(kind, flags, bytes(route), f"{verb} {route}")
    except NetlinkError as error:
        if error.errno != fine:
            raise


def _read(body: bytes) -> "Iterator[WholeRoute]":
    *header, flags = _ROUTE.unpack_from(body)
    header.append(flags & RTNH_F_ONLINK)  # all others are states, which the kernel does not accept
    attrs = attributes(body, _ROUTE.size)
    attrs.pop(RTA_CACHEINFO, None)
    hops = list(_next_hops(attrs.get(RTA_MULTIPATH, b"")))
    if hops and header[0] == AF_INET6:
        # In IPv6 each next hop is a route of its own, set and deleted alone.  If two networks have a default
        # route each, the kernel shows one route with two next hops.
        for hop in hops:
            yield WholeRoute(tuple(header), {**attrs, RTA_MULTIPATH: hop})
        return
    if hops:
        attrs[RTA_MULTIPATH] = b"".join(hops)
    yield WholeRoute(tuple(header), attrs)


def _next_hops(data: bytes) -> "Iterator[bytes]":
    offset = 0
    while offset < len(data):
        length, flags, weight, index = _NEXT_HOP.unpack_from(data, offset)
        attrs = data[offset + _NEXT_HOP.size : offset + length]
        yield _NEXT_HOP.pack(length, flags & RTNH_F_ONLINK, weight, index) + attrs
        offset += (length + 3) & ~3
