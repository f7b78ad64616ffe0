# SPDX-License-Identifier: Apache-2.0
"""
Snapshots of the addresses and routes of a link, which loses them when it changes its namespace.

To restore them, what the kernel listed is sent back to it, as `ip address save` and `ip route save` do.
"""

import _struct as struct
import errno

from cnihook.linux.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REPLACE,
    NetlinkError,
    attributes,
    read_u32,
    u32,
)
from cnihook.linux.rtnl import (
    RTA_GATEWAY,
    RTA_OIF,
    RTM_GETADDR,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWROUTE,
    Link,
    Rtnl,
)

# <linux/rtnetlink.h>
RTPROT_KERNEL, RTNH_F_ONLINK, RTA_VIA = 2, 4, 18

_IFADDR, _ROUTE = 8, 12  # sizes of struct ifaddrmsg and struct rtmsg
_INDEX, _PROTOCOL, _FLAGS = 4, 5, 8  # offsets in them


class LinkSnapshot:
    """The addresses and routes that a link has now."""

    def __init__(self, rtnl: Rtnl, link: Link) -> None:
        listed = rtnl.request(RTM_GETADDR, NLM_F_DUMP, bytes(_IFADDR), f"list addresses of {link.name}")
        self._addresses = [
            body for body in listed if struct.unpack_from("=I", body, _INDEX)[0] == link.index
        ]
        listed = rtnl.request(RTM_GETROUTE, NLM_F_DUMP, bytes(_ROUTE), f"list routes of {link.name}")
        self._routes = [
            body
            for body in listed
            # The kernel sets its own routes again with the address that they belong to.
            if body[_PROTOCOL] != RTPROT_KERNEL
            and read_u32(attributes(body, _ROUTE).get(RTA_OIF)) == link.index
        ]
        # The kernel accepts a gateway only if there is a route to it.
        self._routes.sort(key=lambda body: not {RTA_GATEWAY, RTA_VIA}.isdisjoint(attributes(body, _ROUTE)))

    def restore(self, rtnl: Rtnl, link: Link) -> None:
        """Set the addresses and routes on `link`, which is up; what is there already stays.

        Tries all, then raises the first NetlinkError.
        """
        requests = [(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, _address(a, link)) for a in self._addresses]
        requests += [(RTM_NEWROUTE, NLM_F_CREATE, _route(route, link)) for route in self._routes]
        first: NetlinkError | None = None
        for kind, flags, body in requests:
            what = "an address" if kind == RTM_NEWADDR else "a route"
            try:
                rtnl.request(kind, flags, body, f"restore {what} of {link.name}")
            except NetlinkError as error:
                if error.errno != errno.EEXIST:
                    first = first or error
        if first:
            raise first


def _address(body: bytes, link: Link) -> bytes:
    return body[:_INDEX] + struct.pack("=I", link.index) + body[_INDEX + 4 :]


def _route(body: bytes, link: Link) -> bytes:
    """Return a listed route without the kernel's state flags, on the present index of the link."""
    flags = struct.unpack_from("=I", body, _FLAGS)[0] & RTNH_F_ONLINK
    offset = _ROUTE
    while offset < len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if kind == RTA_OIF:
            body = body[:offset] + u32(RTA_OIF, link.index) + body[offset + length :]
        offset += (length + 3) & ~3
    return body[:_FLAGS] + struct.pack("=I", flags) + body[_ROUTE:]
