# SPDX-License-Identifier: Apache-2.0
"""
Nexthop objects, the routes that use them, and permanent neighbours: `ip nexthop`, `ip route ... nhid`.

Routes that name their gateway themselves share one list in the kernel for each device, and each new route
is compared with all of it: 5,000 routes take 6 s, and 17 s or more if the packets are encapsulated.  A route
that refers to a nexthop object is not in that list: 5,000 objects and routes take 0.4 s.

If an object is deleted, the kernel deletes the routes that use it, without an event.  So an object is
replaced, which takes effect for all packets at once.

pyroute2 has no nexthop objects (looked for in 0.9.7).  <linux/nexthop.h>, <linux/lwtunnel.h> and
<linux/neighbour.h> give the names and numbers; nexthop objects need Linux 5.3.
"""

import _struct as struct
import errno
from _socket import AF_INET, AF_INET6, AF_UNSPEC
from dataclasses import dataclass

from cnihook.fast.address import Address, IPNet
from cnihook.linux.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NetlinkError,
    attr,
    attributes,
    nested,
    read_u32,
    u16,
    u32,
)
from cnihook.linux.rtnl import (
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_PRIORITY,
    RTM_DELROUTE,
    RTM_GETROUTE,
    RTM_NEWROUTE,
    RTN_UNICAST,
    Rtnl,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# <linux/rtnetlink.h>
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWNEXTHOP, RTM_DELNEXTHOP, RTM_GETNEXTHOP = 104, 105, 106
RTN_UNREACHABLE = 7
_RTA_NH_ID, _RTNH_F_ONLINK, _RTM_F_CLONED = 30, 4, 0x200
# <linux/nexthop.h>
_NHA_ID, _NHA_OIF, _NHA_GATEWAY, _NHA_ENCAP_TYPE, _NHA_ENCAP = 1, 5, 6, 7, 8
# <linux/lwtunnel.h>; the attributes of both IP versions have the same numbers
_ENCAP_IP, _ENCAP_IP6 = 2, 4
_IP_ID, _IP_DST, _IP_SRC, _IP_FLAGS = 1, 2, 3, 6
_CHECKSUM = struct.pack(">H", 1)  # TUNNEL_CSUM of <linux/if_tunnel.h>: UDP over IPv6 requires checksums
# <linux/neighbour.h>
_NDA_DST, _NDA_LLADDR, _NDA_IFINDEX, _NUD_PERMANENT = 1, 2, 8, 0x80

_NEXTHOP = struct.Struct("=BBBBI")  # family, scope, protocol, reserved, flags
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, link, state, flags, type


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The outer header of what is sent: the number of the network, and the addresses of both hosts."""

    number: int
    source: Address
    destination: Address


@dataclass(frozen=True, slots=True)
class Nexthop:
    """A nexthop object.  `gateway`: None if the link leads to one machine or finds it itself."""

    id: int
    version: int
    index: int
    gateway: "Address | None" = None
    tunnel: "Tunnel | None" = None


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table by a nexthop object; 0: the destination is unreachable."""

    dst: IPNet
    nexthop: int
    metric: int = 0


# Nexthop objects


def listed(rtnl: Rtnl, protocol: int) -> "dict[int, Nexthop]":
    """Return the nexthop objects of a protocol by ID.  Raises NetlinkError with Linux before 5.3."""
    body = _NEXTHOP.pack(AF_UNSPEC, 0, 0, 0, 0)
    hops = map(_nexthop, rtnl.request(RTM_GETNEXTHOP, NLM_F_DUMP, body, "list nexthop objects"))
    return {hop.id: hop for number, hop in hops if number == protocol}


def _nexthop(body: bytes) -> "tuple[int, Nexthop]":
    family, _scope, protocol, _reserved, _flags = _NEXTHOP.unpack_from(body)
    attrs = attributes(body, _NEXTHOP.size)
    gateway = Address(attrs[_NHA_GATEWAY]) if _NHA_GATEWAY in attrs else None
    return protocol, Nexthop(
        read_u32(attrs.get(_NHA_ID)),
        6 if family == AF_INET6 else 4,
        read_u32(attrs.get(_NHA_OIF)),
        gateway,
        _tunnel(attributes(attrs[_NHA_ENCAP])) if _NHA_ENCAP in attrs else None,
    )


def _tunnel(attrs: "dict[int, bytes]") -> Tunnel:
    source, destination = (Address(attrs.get(kind, b"")) for kind in (_IP_SRC, _IP_DST))
    return Tunnel(int.from_bytes(attrs.get(_IP_ID, b""), "big"), source, destination)


def put(rtnl: Rtnl, hop: Nexthop, protocol: int) -> None:
    """Add a nexthop object, or replace the one with its ID."""
    family = AF_INET if hop.version == 4 else AF_INET6
    body = _NEXTHOP.pack(family, 0, protocol, 0, _RTNH_F_ONLINK if hop.gateway else 0)
    body += u32(_NHA_ID, hop.id) + u32(_NHA_OIF, hop.index)
    if hop.gateway:
        body += attr(_NHA_GATEWAY, hop.gateway)
    if hop.tunnel:
        body += _encapsulation(hop.tunnel)
    what = f"set nexthop {hop.id} via {hop.tunnel.destination if hop.tunnel else hop.gateway}"
    rtnl.request(RTM_NEWNEXTHOP, NLM_F_CREATE | NLM_F_REPLACE, body, what)


def _encapsulation(tunnel: Tunnel) -> bytes:
    encap = attr(_IP_ID, struct.pack(">Q", tunnel.number))
    encap += attr(_IP_SRC, tunnel.source) + attr(_IP_DST, tunnel.destination)
    if tunnel.destination.version == 6:
        return u16(_NHA_ENCAP_TYPE, _ENCAP_IP6) + nested(_NHA_ENCAP, encap, attr(_IP_FLAGS, _CHECKSUM))
    return u16(_NHA_ENCAP_TYPE, _ENCAP_IP) + nested(_NHA_ENCAP, encap)


def delete(rtnl: Rtnl, hop: Nexthop) -> None:
    """Delete a nexthop object, and the routes that use it.  One that is gone already is not an error."""
    body = _NEXTHOP.pack(AF_UNSPEC, 0, 0, 0, 0) + u32(_NHA_ID, hop.id)
    _unless_gone(rtnl, RTM_DELNEXTHOP, body, f"delete nexthop {hop.id}")


# Routes


def routes(rtnl: Rtnl, protocol: int, version: int) -> "Iterator[Route]":
    """Yield the routes of a protocol in the main table, of one IP version."""
    family = AF_INET if version == 4 else AF_INET6
    # The kernel lists only those of the protocol, unless it is older than 5.0.
    header = _ROUTE.pack(family, 0, 0, 0, 0, protocol, 0, 0, 0)
    for body in rtnl.request(RTM_GETROUTE, NLM_F_DUMP, header, "list routes"):
        number, prefix, _src, _tos, table, maker, _scope, kind, flags = _ROUTE.unpack_from(body)
        if (number, table, maker) != (family, RT_TABLE_MAIN, protocol) or flags & _RTM_F_CLONED:
            continue
        attrs = attributes(body, _ROUTE.size)
        if kind in (RTN_UNICAST, RTN_UNREACHABLE):
            any_address = Address(bytes(4 if version == 4 else 16))
            dst = IPNet(Address(attrs[RTA_DST]) if RTA_DST in attrs else any_address, prefix)
            yield Route(dst, read_u32(attrs.get(_RTA_NH_ID)), read_u32(attrs.get(RTA_PRIORITY)))


def put_route(rtnl: Rtnl, route: Route, protocol: int, *, replace: bool) -> None:
    """Add a route; with `replace`, replace the one to its destination with its metric.

    Without, raises NetlinkError with EEXIST if there is one, of any program.
    """
    what = f"set route {route.dst}{f' by nexthop {route.nexthop}' if route.nexthop else ''}"
    flags = NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL)
    rtnl.request(RTM_NEWROUTE, flags, _packed(route, protocol), what)


def delete_route(rtnl: Rtnl, route: Route, protocol: int) -> None:
    """Delete a route.  A route that is gone already is not an error."""
    _unless_gone(rtnl, RTM_DELROUTE, _packed(route, protocol), f"delete route {route.dst}")


def _packed(route: Route, protocol: int) -> bytes:
    kind = RTN_UNICAST if route.nexthop else RTN_UNREACHABLE
    family, prefix = route.dst.address.family, route.dst.prefix
    body = _ROUTE.pack(family, prefix, 0, 0, RT_TABLE_MAIN, protocol, RT_SCOPE_UNIVERSE, kind, 0)
    body += attr(RTA_DST, route.dst.address)
    if route.nexthop:
        body += u32(_RTA_NH_ID, route.nexthop)
    return body + (u32(RTA_PRIORITY, route.metric) if route.metric else b"")


# Neighbours


def neighbours(rtnl: Rtnl, index: int) -> "dict[Address, bytes]":
    """Return the MAC addresses of the permanent neighbours on a link, by IP address."""
    body = _NEIGHBOUR.pack(AF_UNSPEC, 0, 0, 0, 0) + u32(_NDA_IFINDEX, index)
    macs = {}
    for answer in rtnl.request(RTM_GETNEIGH, NLM_F_DUMP, body, "list neighbours"):
        family, link, state, _flags, _kind = _NEIGHBOUR.unpack_from(answer)
        if family in (AF_INET, AF_INET6) and link == index and state & _NUD_PERMANENT:
            attrs = attributes(answer, _NEIGHBOUR.size)
            macs[Address(attrs[_NDA_DST])] = attrs.get(_NDA_LLADDR, b"")
    return macs


def put_neighbour(rtnl: Rtnl, index: int, address: Address, mac: bytes) -> None:
    """Set a permanent neighbour.  The kernel does not count these against its limit (gc_thresh3)."""
    body = _NEIGHBOUR.pack(address.family, index, _NUD_PERMANENT, 0, 0)
    body += attr(_NDA_DST, address) + attr(_NDA_LLADDR, mac)
    rtnl.request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, f"set neighbour {address}")


def delete_neighbour(rtnl: Rtnl, index: int, address: Address) -> None:
    body = _NEIGHBOUR.pack(address.family, index, 0, 0, 0) + attr(_NDA_DST, address)
    _unless_gone(rtnl, RTM_DELNEIGH, body, f"delete neighbour {address}")


def _unless_gone(rtnl: Rtnl, kind: int, body: bytes, what: str) -> None:
    try:
        rtnl.request(kind, 0, body, what)
    except NetlinkError as error:
        if error.errno not in (errno.ENOENT, errno.ESRCH, errno.ENODEV):
            raise
