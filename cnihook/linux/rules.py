# SPDX-License-Identifier: Apache-2.0
"""
Policy rules: they choose the table in which the kernel looks for a route, as `ip rule` sets them.

<linux/fib_rules.h> gives the names and numbers.
"""

import _struct as struct
import errno
from _socket import AF_INET, AF_INET6, AF_UNSPEC

from cnihook.fast.address import Address
from cnihook.linux.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NetlinkError,
    attr,
    attributes,
    read_u32,
    u32,
)
from cnihook.linux.rtnl import Rtnl

RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
FRA_SRC, FRA_PRIORITY, FRA_SUPPRESS_IFGROUP, FRA_SUPPRESS_PREFIXLEN = 2, 6, 13, 14
FRA_TABLE, FRA_L3MDEV, FRA_PROTOCOL = 15, 19, 21
FR_ACT_TO_TBL = 1

_RULE = struct.Struct("=BBBBBxxBI")  # family, dst len, src len, tos, table, action, flags

# A rule with these attributes only means: from SOURCE lookup TABLE.
_PLAIN = {FRA_SRC, FRA_PRIORITY, FRA_SUPPRESS_IFGROUP, FRA_SUPPRESS_PREFIXLEN, FRA_TABLE, FRA_PROTOCOL}


class Rule:
    """A rule.  `source`: the address of a rule that is only `from ADDRESS lookup TABLE`, else None."""

    __slots__ = ("body", "l3mdev", "priority", "source", "table")

    def __init__(self, body: bytes) -> None:
        _family, dst, src, tos, table, action, flags = _RULE.unpack_from(body)
        attrs = attributes(body, _RULE.size)
        self.body = body
        self.table = read_u32(attrs.get(FRA_TABLE)) or table
        self.priority = read_u32(attrs.get(FRA_PRIORITY))
        self.l3mdev = FRA_L3MDEV in attrs  # the rule that sends each VRF's traffic to its table
        self.source: Address | None = None
        plain = action == FR_ACT_TO_TBL and not (dst or tos or flags) and attrs.keys() <= _PLAIN
        if plain and src == len(attrs.get(FRA_SRC, b"")) * 8 > 0:
            self.source = Address(attrs[FRA_SRC])


def listed(rtnl: Rtnl) -> "list[Rule]":
    """Return the rules of IPv4 and IPv6."""
    bodies = rtnl.request(RTM_GETRULE, NLM_F_DUMP, _RULE.pack(AF_UNSPEC, 0, 0, 0, 0, 0, 0), "list rules")
    return [Rule(body) for body in bodies if body[0] in (AF_INET, AF_INET6)]


def add(rtnl: Rtnl, source: Address, table: int, priority: int = 0) -> None:
    """Have the kernel look in `table` first for what this address sends.

    Without `priority`, the kernel puts the rule before all others but the one for local addresses.
    """
    body = _RULE.pack(source.family, 0, source.bits, 0, table if table < 256 else 0, FR_ACT_TO_TBL, 0)
    body += attr(FRA_SRC, source) + u32(FRA_TABLE, table)
    if priority:
        body += u32(FRA_PRIORITY, priority)
    what = f"add rule from {source} lookup {table}"
    rtnl.request(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, body, what)


def delete(rtnl: Rtnl, rule: Rule) -> None:
    """Delete one of listed().  A rule that is gone already is not an error."""
    try:
        rtnl.request(RTM_DELRULE, 0, rule.body, f"delete rule from {rule.source} lookup {rule.table}")
    except NetlinkError as error:
        if error.errno != errno.ENOENT:
            raise
