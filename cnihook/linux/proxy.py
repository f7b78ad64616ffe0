# SPDX-License-Identifier: Apache-2.0
"""
Proxy entries, by which the host answers for IPv6 addresses, and the neighbours that a link knows.

<linux/neighbour.h> has the messages.
"""

import _struct as struct
import errno

from cnihook.fast.address import Address
from cnihook.linux.netlink import NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NetlinkError, attr, attributes
from cnihook.linux.rtnl import Link, Rtnl

_RTM_NEWNEIGH, _RTM_DELNEIGH, _RTM_GETNEIGH = 28, 29, 30
_NDA_DST = 1
_NTF_PROXY = 0x08
_NUD_PERMANENT, _NUD_NOARP = 0x80, 0x40
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, link, state, flags, type


def add_entry(rtnl: Rtnl, link: Link, address: Address) -> None:
    """Have the host answer neighbour solicitations for an address on this link."""
    body = _NEIGHBOUR.pack(address.family, link.index, _NUD_PERMANENT, _NTF_PROXY, 0) + attr(
        _NDA_DST, address
    )
    rtnl.request(_RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, f"answer for {address} on {link.name}")


def delete_entry(rtnl: Rtnl, link: Link, address: Address) -> None:
    """Stop that.  An entry that does not exist is not an error."""
    body = _NEIGHBOUR.pack(address.family, link.index, 0, _NTF_PROXY, 0) + attr(_NDA_DST, address)
    try:
        rtnl.request(_RTM_DELNEIGH, 0, body, f"stop answering for {address} on {link.name}")
    except NetlinkError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise


def forget_neighbours(rtnl: Rtnl, link: Link) -> None:
    """Delete what the kernel knows of the neighbours on a link, except permanent entries."""
    for family in (2, 10):  # AF_INET, AF_INET6
        request = _NEIGHBOUR.pack(family, 0, 0, 0, 0)
        for body in rtnl.request(_RTM_GETNEIGH, NLM_F_DUMP, request, f"list the neighbours on {link.name}"):
            _family, index, state, _flags, _type = _NEIGHBOUR.unpack_from(body)
            address = attributes(body, _NEIGHBOUR.size).get(_NDA_DST)
            if index != link.index or state & (_NUD_PERMANENT | _NUD_NOARP) or not address:
                continue
            entry = _NEIGHBOUR.pack(family, index, 0, 0, 0) + attr(_NDA_DST, address)
            try:
                rtnl.request(_RTM_DELNEIGH, 0, entry, f"forget a neighbour on {link.name}")
            except NetlinkError as error:
                if error.errno != errno.ENOENT:
                    raise
