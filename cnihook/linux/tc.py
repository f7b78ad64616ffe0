# SPDX-License-Identifier: Apache-2.0
"""
Traffic control, as `tc` does it: limit what a link sends, and redirect what it receives to another link.

<linux/rtnetlink.h>, <linux/pkt_sched.h>, <linux/pkt_cls.h> and <linux/tc_act/tc_mirred.h> give the names and
numbers.
"""

import _struct as struct
import errno
from _socket import AF_UNSPEC, htons

from cnihook.linux.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NetlinkError,
    attr,
    attributes,
    nested,
    read_text,
    text,
    u32,
)
from cnihook.linux.rtnl import Link, Rtnl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# <linux/rtnetlink.h>
RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_GETTFILTER = 44, 46
TCA_KIND, TCA_OPTIONS = 1, 2
# <linux/pkt_sched.h>
TC_H_ROOT, TC_H_INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
TC_LINKLAYER_ETHERNET = 1
TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_BURST = 1, 4, 6
# <linux/pkt_cls.h>
TCA_U32_SEL, TCA_U32_ACT, TC_U32_TERMINAL = 5, 7, 1
TCA_ACT_KIND, TCA_ACT_OPTIONS = 1, 2
TC_ACT_STOLEN = 4
# <linux/tc_act/tc_mirred.h>
TCA_MIRRED_PARMS, TCA_EGRESS_REDIR = 2, 1
# <linux/if_ether.h>
ETH_P_ALL = 3

TBF_HANDLE = 1 << 16  # `tc` prints it as 1:
INGRESS_HANDLE = 0xFFFF0000  # ffff:, the only one that the kernel accepts
UNKNOWN = -1  # among ingress_targets()

_U32_MAX = 0xFFFFFFFF
_PRIORITY = 1
_LEAST_BURST = 120_000  # bits, ten full frames; with a smaller burst the rate is not reached

_TCMSG = struct.Struct("=BxxxiIII")  # family, index, handle, parent, info
_RATE = struct.Struct("=BBHhHI")  # cell log, link layer, overhead, cell alignment, least size, rate
_TBF = struct.Struct("=12s12sIII")  # rate, peak rate, limit, buffer, MTU
_SELECTOR = struct.Struct("=BBBBHHhhI")  # flags, offset shift, keys, 0, offset mask and four unused ones
_KEY = struct.Struct("=IIii")  # mask, value, offset, offset mask
SELECTOR_SIZE, KEY_SIZE = _SELECTOR.size, _KEY.size
_MIRRED = struct.Struct("=IIiiiiI")  # index, capabilities, action, references, binds, direction, link


def default_burst(rate: int) -> int:
    """Return the bits that may pass at once if only the rate is known: those of a tenth of a second."""
    return max(rate // 10, _LEAST_BURST)


class Tbf:
    """A token bucket filter, in the kernel's terms: a limit on what a link sends."""

    __slots__ = ("buffer", "burst", "limit", "rate")

    def __init__(self, rate: int, limit: int, buffer: "int | None", burst: int = 0) -> None:
        self.rate = rate  # bytes per second
        self.limit = limit  # bytes that may wait; any more are dropped
        # How long a full bucket lasts at this rate, in ticks of the kernel's clock; None if 32 bits do not
        # suffice.
        self.buffer = buffer
        self.burst = burst  # bytes in a full bucket; the kernel does not report them

    @classmethod
    def of(cls, rate: int, burst: int, latency: int) -> "Tbf":
        """Return a filter for bytes per second, a burst in bytes, and the longest wait in microseconds."""
        length = ticks(burst * 1_000_000 // rate)
        limit = min(rate * latency // 1_000_000 + burst, _U32_MAX)
        return cls(rate, limit, length if 0 < length <= _U32_MAX else None, burst)


def ticks(microseconds: int) -> int:
    with open("/proc/net/psched") as file:
        nanoseconds, in_a_tick = (int(word, 16) for word in file.read().split()[:2])
    return microseconds * nanoseconds // in_a_tick


def pack_header(index: int, handle: int, parent: int, info: int = 0) -> bytes:
    return _TCMSG.pack(AF_UNSPEC, index, handle, parent, info)


def pack_rate(rate: int) -> bytes:
    """Pack a rate in bytes a second.  A rate of more than 32 bits needs a further attribute."""
    return _RATE.pack(0, TC_LINKLAYER_ETHERNET, 0, 0, 0, min(rate, _U32_MAX))


def unpack_rate(data: bytes) -> int:
    return int(_RATE.unpack(data)[-1])


def pack_selector(keys: int) -> bytes:
    return _SELECTOR.pack(TC_U32_TERMINAL, 0, keys, 0, 0, 0, 0, 0, 0)


def listed(
    rtnl: Rtnl, link: Link, kind: int, parent: int, what: str
) -> "Iterator[tuple[int, int, dict[int, bytes]]]":
    """Yield handle, parent and attributes of a link's qdiscs, classes or filters."""
    for answer in rtnl.request(kind, NLM_F_DUMP, pack_header(link.index, 0, parent), what):
        _family, index, handle, above, _info = _TCMSG.unpack_from(answer)
        if index == link.index:  # the kernel lists the qdiscs of all links
            yield handle, above, attributes(answer, _TCMSG.size)


def qdiscs(rtnl: Rtnl, link: Link) -> "Iterator[tuple[int, int, dict[int, bytes]]]":
    """Yield handle, parent and attributes of a link's qdiscs."""
    return listed(rtnl, link, RTM_GETQDISC, 0, "list qdiscs")


def add_tbf(rtnl: Rtnl, link: Link, tbf: Tbf, *, replace: bool = False) -> None:
    """Limit what a link sends.  Raises NetlinkError with EEXIST if another program gave the link a qdisc.

    `replace`: instead of the link's qdisc, and of the packets that wait there.
    """
    _set_tbf(rtnl, link, tbf, NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL))


def change_tbf(rtnl: Rtnl, link: Link, tbf: Tbf) -> None:
    """Change the limit in place.  The packets that wait stay; see links.reshaping about a smaller burst."""
    _set_tbf(rtnl, link, tbf, 0)


def _set_tbf(rtnl: Rtnl, link: Link, tbf: Tbf, flags: int) -> None:
    options = [
        attr(TCA_TBF_PARMS, _TBF.pack(pack_rate(tbf.rate), bytes(_RATE.size), tbf.limit, tbf.buffer or 0, 0))
    ]
    if tbf.rate > _U32_MAX:
        options.append(attr(TCA_TBF_RATE64, struct.pack("=Q", tbf.rate)))
    if tbf.buffer is None:
        options.append(u32(TCA_TBF_BURST, tbf.burst))
    body = _TCMSG.pack(AF_UNSPEC, link.index, TBF_HANDLE, TC_H_ROOT, 0)
    body += text(TCA_KIND, "tbf") + nested(TCA_OPTIONS, *options)
    what = f"limit {link.name} to {tbf.rate} bytes per second"
    rtnl.request(RTM_NEWQDISC, flags, body, what)


def delete_tbf(rtnl: Rtnl, link: Link) -> bool:
    """Delete the limit; return False if there is none.  A qdisc of another kind or handle stays."""
    return delete(rtnl, link, "tbf", TBF_HANDLE, TC_H_ROOT)


def find_tbf(rtnl: Rtnl, link: Link) -> "Tbf | None":
    for _handle, parent, attrs in qdiscs(rtnl, link):
        if parent != TC_H_ROOT:
            continue
        if read_text(attrs.get(TCA_KIND)) == "tbf":
            options = attributes(attrs[TCA_OPTIONS])
            speed, _peak, limit, buffer, _mtu = _TBF.unpack_from(options[TCA_TBF_PARMS])
            rate = unpack_rate(speed)
            if TCA_TBF_RATE64 in options:
                rate = struct.unpack("=Q", options[TCA_TBF_RATE64])[0]
            return Tbf(rate, limit, buffer)
    return None


def difference(rtnl: Rtnl, link: Link, wanted: Tbf) -> str:
    """Describe the first difference from what add_tbf() made; empty if there is none."""
    present = find_tbf(rtnl, link)
    if not present:
        return "it has no limit"
    for what, one, other in (
        ("rate", present.rate, wanted.rate),
        ("limit", present.limit, wanted.limit),
        ("buffer", present.buffer, wanted.buffer),
    ):
        if one != other and other is not None:
            return f"the tbf has {what} {one}, not {other}"
    return ""


def redirect_ingress(rtnl: Rtnl, link: Link, target: Link) -> None:
    """Redirect all that the link receives to another link, which sends it.

    Raises NetlinkError with EEXIST if another program has set a qdisc for what the link receives.
    """
    what = f"redirect what {link.name} receives to {target.name}"
    body = _TCMSG.pack(AF_UNSPEC, link.index, INGRESS_HANDLE, TC_H_INGRESS, 0) + text(TCA_KIND, "ingress")
    rtnl.request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, body, what)

    # Every kernel has this filter.  "matchall", which takes every packet as well, is newer.
    selector = pack_selector(1) + _KEY.pack(0, 0, 0, 0)
    parameters = _MIRRED.pack(0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, target.index)
    action = nested(
        1, text(TCA_ACT_KIND, "mirred"), nested(TCA_ACT_OPTIONS, attr(TCA_MIRRED_PARMS, parameters))
    )
    body = _TCMSG.pack(AF_UNSPEC, link.index, 0, INGRESS_HANDLE, _PRIORITY << 16 | htons(ETH_P_ALL))
    body += text(TCA_KIND, "u32")
    body += nested(TCA_OPTIONS, attr(TCA_U32_SEL, selector), nested(TCA_U32_ACT, action))
    rtnl.request(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, body, what)


def delete_ingress(rtnl: Rtnl, link: Link) -> None:
    """End the redirection.  This removes all filters, including those of other programs."""
    delete(rtnl, link, "ingress", INGRESS_HANDLE, TC_H_INGRESS)


def ingress_targets(rtnl: Rtnl, link: Link) -> "set[int]":
    """Return the indexes of the links to which filters redirect what the link receives.

    The index is 0 for a link that is gone, and UNKNOWN for a filter that does something else.
    """
    targets = set()
    body = _TCMSG.pack(AF_UNSPEC, link.index, 0, INGRESS_HANDLE, 0)
    for answer in rtnl.request(RTM_GETTFILTER, NLM_F_DUMP, body, f"list the filters of {link.name}"):
        handle = _TCMSG.unpack_from(answer)[2]
        attrs = attributes(answer, _TCMSG.size)
        if read_text(attrs.get(TCA_KIND)) != "u32":
            targets.add(UNKNOWN)
        elif handle & 0xFFF:  # else it is a table of filters
            options = attributes(attrs[TCA_OPTIONS])
            actions = attributes(options.get(TCA_U32_ACT, b"")).values()
            targets |= {_target(attributes(action)) for action in actions} or {UNKNOWN}
    return targets


def _target(action: "dict[int, bytes]") -> int:
    if read_text(action.get(TCA_ACT_KIND)) != "mirred":
        return UNKNOWN
    parameters = attributes(action[TCA_ACT_OPTIONS])[TCA_MIRRED_PARMS]
    _index, _capabilities, _action, _references, _binds, direction, target = _MIRRED.unpack_from(parameters)
    return int(target) if direction == TCA_EGRESS_REDIR else UNKNOWN


def delete(rtnl: Rtnl, link: Link, kind: str, handle: int, parent: int) -> bool:
    """Delete a qdisc; return False if there is none of this kind and handle."""
    body = _TCMSG.pack(AF_UNSPEC, link.index, handle, parent, 0) + text(TCA_KIND, kind)
    try:
        rtnl.request(RTM_DELQDISC, 0, body, f"remove {kind} from {link.name}")
        return True
    except NetlinkError as error:
        # The link is gone; it has none; it has one of another kind or handle, or the kernel's own.
        if error.errno not in (errno.ENODEV, errno.ENOENT, errno.EINVAL):
            raise
        return False
