# SPDX-License-Identifier: Apache-2.0
"""VRFs: links whose members have routes in a separate table.  <linux/if_link.h> has the numbers."""

import _struct as struct

from cnihook.linux.netlink import NLM_F_DUMP, attributes, read_text, read_u32, u32
from cnihook.linux.rtnl import IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, RTM_GETLINK, Rtnl

IFLA_VRF_TABLE = 1

_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change mask


def add(rtnl: Rtnl, name: str, table: int) -> None:
    data = (u32(IFLA_VRF_TABLE, table),)
    rtnl.add_link("vrf", name, data=data, up=True, what=f"create VRF {name} with table {table}")


def tables(rtnl: Rtnl) -> "dict[int, int]":
    """Return the table of each VRF, by link index."""
    by_index = {}
    for body in rtnl.request(RTM_GETLINK, NLM_F_DUMP, _IFINFO.pack(0, 0, 0, 0, 0), "list links"):
        info = attributes(attributes(body, _IFINFO.size).get(IFLA_LINKINFO, b""))
        if read_text(info.get(IFLA_INFO_KIND)) == "vrf":
            table = attributes(info.get(IFLA_INFO_DATA, b"")).get(IFLA_VRF_TABLE)
            by_index[_IFINFO.unpack_from(body)[2]] = read_u32(table)
    return by_index
