# SPDX-License-Identifier: Apache-2.0
"""
netem, the kernel's emulation of a bad network: delay, jitter, loss, duplicates, errors, reordering, a rate.

It is a qdisc, so it acts on what a link sends: on top of the link, or below a limit (tbf):

    qdisc tbf 1: root rate RATE
    qdisc netem 656e: parent 1:1 delay 80ms loss 1%

A tbf whose child is deleted drops every packet from then on, so remove() puts another queue in its place.
<linux/pkt_sched.h> gives the names and numbers.
"""

import _struct as struct
import errno

from cnihook.linux import tc
from cnihook.linux.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NetlinkError,
    attr,
    attributes,
    read_text,
    text,
)
from cnihook.linux.rtnl import Link, Rtnl

TCA_NETEM_CORR, TCA_NETEM_REORDER, TCA_NETEM_CORRUPT, TCA_NETEM_RATE, TCA_NETEM_RATE64 = 1, 3, 4, 6, 8
TCA_NETEM_LATENCY64, TCA_NETEM_JITTER64 = 10, 11
# "em", so that no other program's netem counts as one of cnihook.  The second is for one below a tbf: the
# kernel does not move a qdisc to another parent, but replaces one by another of another handle.
HANDLE, HANDLE_BELOW = 0x656D0000, 0x656E0000
BELOW_TBF = tc.TBF_HANDLE | 1  # the only class of a tbf

PARTS = 1_000_000  # a share is in parts of a million, the kernel's in parts of 2^32 - 1
_U32_MAX = 0xFFFFFFFF
# Packets that may wait.  netem's default, 1000, is too few for a delay of 80 ms on a quick link.  The last
# one bounds the memory: 46 MB of full frames.
_QUEUE, _LEAST_QUEUE, _MOST_QUEUE = 1000, 10, 20_000
_FRAME = 1500  # bytes

_NETEM = struct.Struct("=IIIIII")  # delay, limit, loss, gap, duplicate, jitter
_SHARE = struct.Struct("=II")  # probability, correlation
_RATE = struct.Struct("=IiIi")  # rate, overhead, cell size, overhead of a cell
_LINK_NUMBER = 1  # of lo, which every namespace has


class Netem:
    """The effects on packets: times in microseconds, shares in parts of a million, bytes a second."""

    __slots__ = ("corrupt", "delay", "duplicate", "jitter", "loss", "rate", "reorder")

    def __init__(
        self,
        *,
        delay: int = 0,
        jitter: int = 0,
        loss: int = 0,
        duplicate: int = 0,
        corrupt: int = 0,
        reorder: int = 0,
        rate: int = 0,
    ) -> None:
        self.delay = delay
        self.jitter = jitter
        self.loss = loss
        self.duplicate = duplicate
        self.corrupt = corrupt
        self.reorder = reorder
        self.rate = rate

    def difference(self, wanted: "Netem") -> str:
        """Describe the first value that is not as wanted; empty if there is none."""
        for name in self.__slots__:
            present, other = getattr(self, name), getattr(wanted, name)
            if present != other:
                return f"the netem has {name} {present}, not {other}"
        return ""

    def queue(self, limit: "tc.Tbf | None") -> int:
        """Return how many packets may wait: those that are delayed, and those that wait for the rate."""
        wait = self.delay + self.jitter
        rates = [rate for rate in (self.rate, limit.rate if limit else 0) if rate]
        if not rates:
            return min(_QUEUE + wait, _MOST_QUEUE)  # a packet each microsecond
        delayed = min(rates) * wait // 1_000_000 // (_FRAME // 4)
        waiting = max(limit.limit // _FRAME, _LEAST_QUEUE) if limit else _QUEUE
        return min(delayed + waiting, _MOST_QUEUE)

    def pack(self, limit: "tc.Tbf | None") -> bytes:
        """Pack all options.  The kernel keeps the old value of one that a change leaves out."""
        options = _NETEM.pack(
            min(tc.ticks(self.delay), _U32_MAX),
            self.queue(limit),
            _probability(self.loss),
            1 if self.reorder else 0,  # with a gap of 1, any packet can be sent at once
            _probability(self.duplicate),
            min(tc.ticks(self.jitter), _U32_MAX),
        )
        options += attr(TCA_NETEM_CORR, bytes(12))
        options += attr(TCA_NETEM_REORDER, _SHARE.pack(_probability(self.reorder), 0))
        options += attr(TCA_NETEM_CORRUPT, _SHARE.pack(_probability(self.corrupt), 0))
        if self.rate > _U32_MAX:
            options += attr(TCA_NETEM_RATE64, struct.pack("=Q", self.rate))
        options += attr(TCA_NETEM_RATE, _RATE.pack(min(self.rate, _U32_MAX), 0, 0, 0))
        options += attr(TCA_NETEM_LATENCY64, struct.pack("=q", self.delay * 1000))
        return options + attr(TCA_NETEM_JITTER64, struct.pack("=q", self.jitter * 1000))

    @classmethod
    def unpack(cls, options: bytes) -> "Netem":
        """Return the options that the kernel lists (from Linux 4.15 on, with times in nanoseconds)."""
        _delay, _limit, loss, _gap, duplicate, _jitter = _NETEM.unpack_from(options)
        attrs = attributes(options, _NETEM.size)
        rate = _RATE.unpack(attrs[TCA_NETEM_RATE])[0]
        if TCA_NETEM_RATE64 in attrs:
            rate = struct.unpack("=Q", attrs[TCA_NETEM_RATE64])[0]
        return cls(
            delay=struct.unpack("=q", attrs[TCA_NETEM_LATENCY64])[0] // 1000,
            jitter=struct.unpack("=q", attrs[TCA_NETEM_JITTER64])[0] // 1000,
            loss=_share(loss),
            duplicate=_share(duplicate),
            corrupt=_share(_SHARE.unpack(attrs[TCA_NETEM_CORRUPT])[0]),
            reorder=_share(_SHARE.unpack(attrs[TCA_NETEM_REORDER])[0]),
            rate=rate,
        )


def _probability(share: int) -> int:
    return share * _U32_MAX // PARTS


def _share(probability: int) -> int:
    return round(probability * PARTS / _U32_MAX)


def is_missing(rtnl: Rtnl) -> bool:
    """Return True if the kernel has no netem.  This loads its module; it changes nothing else.

    netem rejects a request without options, but first the kernel looks for netem.
    """
    try:
        _request(rtnl, _LINK_NUMBER, tc.TC_H_ROOT, "netem", HANDLE, NLM_F_CREATE | NLM_F_REPLACE)
    except NetlinkError as error:
        return error.errno in (errno.ENOENT, errno.EOPNOTSUPP)
    return False


def add(rtnl: Rtnl, link: Link, netem: Netem, limit: "tc.Tbf | None", *, replace: bool = False) -> None:
    """Emulate a network for what a link sends, below its limit if it has one.

    Raises NetlinkError with EEXIST if another program gave the link a qdisc.  `replace`: instead
    of the link's qdisc.
    """
    replaces = replace or limit  # a tbf has a queue already
    _set(rtnl, link, netem, limit, NLM_F_CREATE | (NLM_F_REPLACE if replaces else NLM_F_EXCL))


def change(rtnl: Rtnl, link: Link, netem: Netem, limit: "tc.Tbf | None") -> None:
    """Change what is emulated in place: the packets that wait stay, and leave at the time set before."""
    _set(rtnl, link, netem, limit, 0)


def _set(rtnl: Rtnl, link: Link, netem: Netem, limit: "tc.Tbf | None", flags: int) -> None:
    options = attr(tc.TCA_OPTIONS, netem.pack(limit))
    parent, handle = _place(limit)
    _request(rtnl, link.index, parent, "netem", handle, flags, options, link.name)


def _place(limit: "tc.Tbf | None") -> "tuple[int, int]":
    """Return the parent and the handle of the qdisc."""
    return (BELOW_TBF, HANDLE_BELOW) if limit else (tc.TC_H_ROOT, HANDLE)


def remove(rtnl: Rtnl, link: Link, limit: "tc.Tbf | None") -> None:
    """End the emulation.  A limit above it gets the queue that it has without one."""
    if not limit:
        tc.delete(rtnl, link, "netem", HANDLE, tc.TC_H_ROOT)
        return
    options = attr(tc.TCA_OPTIONS, struct.pack("=I", limit.limit))
    _request(rtnl, link.index, BELOW_TBF, "bfifo", 0, NLM_F_CREATE | NLM_F_REPLACE, options, link.name)


def find(rtnl: Rtnl, link: Link, limit: "tc.Tbf | None") -> "Netem | None":
    """Return what is emulated on the link, or below its limit; None if nothing is."""
    for handle, parent, attrs in tc.qdiscs(rtnl, link):
        if (parent, handle) == _place(limit) and read_text(attrs.get(tc.TCA_KIND)) == "netem":
            return Netem.unpack(attrs[tc.TCA_OPTIONS])
    return None


def difference(rtnl: Rtnl, link: Link, wanted: Netem, limit: "tc.Tbf | None") -> str:
    """Describe the first difference from what add() made; empty if there is none."""
    present = find(rtnl, link, limit)
    return present.difference(wanted) if present else "it emulates no network"


def _request(
    rtnl: Rtnl,
    index: int,
    parent: int,
    kind: str,
    handle: int,
    flags: int,
    options: bytes = b"",
    name: str = "lo",
) -> None:
    body = tc.pack_header(index, handle, parent) + text(tc.TCA_KIND, kind) + options
    rtnl.request(tc.RTM_NEWQDISC, flags, body, f"set {kind} on {name}")
