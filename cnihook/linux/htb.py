# SPDX-License-Identifier: Apache-2.0
"""
A limit on a part of what a link sends, chosen by the address of the other machine.

A hierarchical token bucket (htb) has two classes, one with the limit and one without.  Filters (u32) on
subnets choose the class, and what none of them matches goes to the default class:

    qdisc htb 636e: default 30
    class 636e:1   without a limit
    class 636e:30  rate RATE
    filter ip dst 10.0.0.0/8 flowid 636e:1

The class itself has the limit, not a tbf below it: htb warns in the kernel's log about a qdisc that delays.
Up to the link's queue length, 1000 packets, may wait.  <linux/pkt_sched.h> and <linux/pkt_cls.h> give the
names and numbers.
"""

import _struct as struct
from _socket import htons

from cnihook.fast.address import IPNet
from cnihook.linux import tc
from cnihook.linux.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    attr,
    attributes,
    nested,
    read_text,
    read_u32,
    text,
    u32,
)
from cnihook.linux.rtnl import Link, Rtnl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

QUEUE = 1000  # packets

RTM_NEWTCLASS, RTM_GETTCLASS = 40, 42
TCA_HTB_PARMS, TCA_HTB_INIT, TCA_HTB_RATE64, TCA_HTB_CEIL64 = 1, 2, 6, 7
TCA_U32_CLASSID = 1
# "cn", so that no other program's htb counts as one of cnihook; `tc qdisc add ... handle 1: htb` is usual.
HANDLE = 0x636E0000
FREE, LIMITED = HANDLE | 0x1, HANDLE | 0x30  # the numbers that the reference gives its classes

_UNLIMITED = 100_000_000_000  # bytes a second
_U32_MAX = 0xFFFFFFFF
_GLOBAL = struct.Struct("=IIIII")  # version, rate to quantum, default class, debug, direct packets
_CLASS = struct.Struct("=12s12sIIIII")  # rate, ceiling, buffer, its buffer, quantum, level, priority
_QUANTUM = 60_000  # bytes that a class sends at a time; the kernel warns of one computed from such rates
_KEY_OFFSETS = {4: (12, 16), 6: (8, 24)}  # of source and destination in the header
_PROTOCOLS = {4: (0x0800, 16), 6: (0x86DD, 15)}  # ETH_P_*, priority: each has one protocol only


class Choice:
    """The packets that are limited: those of some subnets, or all but these.

    `by_source`: the other machine is the source of what the link sends, else its destination.
    """

    def __init__(self, subnets: "Collection[IPNet]", *, limited: bool, by_source: bool) -> None:
        self.default = FREE if limited else LIMITED
        chosen = LIMITED if limited else FREE
        self.filters = {
            (subnet.address.version, chosen, _keys(subnet, by_source))
            for subnet in map(IPNet.network, subnets)
        }


def _keys(subnet: IPNet, by_source: bool) -> bytes:
    """Pack the keys of a filter, of four bytes each.  A subnet of all addresses has one with a mask of 0."""
    size = len(subnet.address)
    offset = _KEY_OFFSETS[subnet.address.version][not by_source]
    mask = ((1 << subnet.prefix) - 1 << subnet.address.bits - subnet.prefix).to_bytes(size, "big")
    first = bytes(subnet.first())
    keys = [
        mask[at : at + 4] + first[at : at + 4] + struct.pack("=ii", offset + at, 0)
        for at in range(0, size, 4)
        if at == 0 or any(mask[at : at + 4])
    ]
    return b"".join(keys)


def add(rtnl: Rtnl, link: Link, limit: tc.Tbf, choice: Choice) -> None:
    """Add the limit.  Raises NetlinkError with EEXIST if another program gave the link a qdisc."""
    what = f"limit a part of what {link.name} sends to {limit.rate} bytes per second"
    exclusive = NLM_F_CREATE | NLM_F_EXCL
    options = attr(TCA_HTB_INIT, _GLOBAL.pack(3, 10, choice.default & 0xFFFF, 0, 0))
    rtnl.request(tc.RTM_NEWQDISC, exclusive, _message(link, HANDLE, tc.TC_H_ROOT, "htb", options), what)
    second = tc.ticks(1_000_000)
    for handle, rate, buffer in (
        (LIMITED, limit.rate, _U32_MAX if limit.buffer is None else limit.buffer),
        (FREE, _UNLIMITED, second),
    ):
        speed = tc.pack_rate(rate)
        options = attr(TCA_HTB_PARMS, _CLASS.pack(speed, speed, buffer, buffer, _QUANTUM, 0, 0))
        if rate > _U32_MAX:
            options += b"".join(
                attr(kind, struct.pack("=Q", rate)) for kind in (TCA_HTB_RATE64, TCA_HTB_CEIL64)
            )
        rtnl.request(RTM_NEWTCLASS, exclusive, _message(link, handle, HANDLE, "htb", options), what)
    for version, chosen, keys in sorted(choice.filters):
        protocol, priority = _PROTOCOLS[version]
        selector = tc.pack_selector(len(keys) // tc.KEY_SIZE) + keys
        options = u32(TCA_U32_CLASSID, chosen) + attr(tc.TCA_U32_SEL, selector)
        body = _message(link, 0, HANDLE, "u32", options, priority << 16 | htons(protocol))
        rtnl.request(tc.RTM_NEWTFILTER, exclusive, body, what)


def difference(rtnl: Rtnl, link: Link, limit: tc.Tbf, choice: Choice) -> str:
    """Describe the first difference from what add() made; empty if there is none."""
    default = _default(rtnl, link)
    if default is None:
        return "it has no limit"
    if default != choice.default & 0xFFFF:
        return f"the default class of the htb is {default:x}, not {choice.default & 0xFFFF:x}"
    classes = dict(_classes(rtnl, link))
    if FREE not in classes or LIMITED not in classes:
        return "a class of the htb is missing"
    rate, buffer = classes[LIMITED]
    if rate != limit.rate:
        return f"the htb has rate {rate}, not {limit.rate}"
    if limit.buffer is not None and buffer != limit.buffer:
        return f"the htb has buffer {buffer}, not {limit.buffer}"
    return "" if set(_filters(rtnl, link)) == choice.filters else "the filters on subnets differ"


def delete(rtnl: Rtnl, link: Link) -> None:
    """Delete the htb with its classes and filters, if it is there."""
    tc.delete(rtnl, link, "htb", HANDLE, tc.TC_H_ROOT)


def _default(rtnl: Rtnl, link: Link) -> "int | None":
    for handle, _parent, attrs in tc.qdiscs(rtnl, link):
        if handle == HANDLE and read_text(attrs.get(tc.TCA_KIND)) == "htb":
            options = attributes(attrs[tc.TCA_OPTIONS])
            return int(_GLOBAL.unpack_from(options[TCA_HTB_INIT])[2])
    return None


def _classes(rtnl: Rtnl, link: Link) -> "Iterator[tuple[int, tuple[int, int]]]":
    for handle, _parent, attrs in tc.listed(rtnl, link, RTM_GETTCLASS, HANDLE, "list classes"):
        if read_text(attrs.get(tc.TCA_KIND)) != "htb":
            continue
        options = attributes(attrs[tc.TCA_OPTIONS])
        speed, _ceiling, buffer, *_ = _CLASS.unpack_from(options[TCA_HTB_PARMS])
        rate = tc.unpack_rate(speed)
        if TCA_HTB_RATE64 in options:
            rate = struct.unpack("=Q", options[TCA_HTB_RATE64])[0]
        yield handle, (rate, buffer)


def _filters(rtnl: Rtnl, link: Link) -> "Iterator[tuple[int, int, bytes]]":
    for handle, _parent, attrs in tc.listed(rtnl, link, tc.RTM_GETTFILTER, HANDLE, "list filters"):
        if not handle & 0xFFF:
            continue  # a table of filters
        options = attributes(attrs[tc.TCA_OPTIONS])
        keys = options.get(tc.TCA_U32_SEL, b"")[tc.SELECTOR_SIZE :]
        offset = struct.unpack_from("=i", keys, 8)[0] if keys else 0
        version = next((v for v, offsets in _KEY_OFFSETS.items() if offset in offsets), 0)
        yield version, read_u32(options.get(TCA_U32_CLASSID)), keys


def _message(link: Link, handle: int, parent: int, kind: str, options: bytes, info: int = 0) -> bytes:
    header = tc.pack_header(link.index, handle, parent, info)
    return header + text(tc.TCA_KIND, kind) + nested(tc.TCA_OPTIONS, options)
