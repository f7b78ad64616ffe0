# SPDX-License-Identifier: Apache-2.0
"""
The change of limits and of an emulated network in place, while packets pass.

It starts from the qdiscs that the link has, so it can also finish a change that was interrupted.
Connections stay.  Packets that wait in a queue which is replaced are lost, and TCP sends them again.
"""

import errno

from cnihook.links import shaping
from cnihook.links.shaping import Shape
from cnihook.linux import htb, netem, tc
from cnihook.linux.netlink import NetlinkError, read_text
from cnihook.linux.rtnl import Link, Rtnl

_FOREIGN = "foreign"
_LARGEST = 1 << 16  # bytes of a packet that the network card, or the other end, will divide (GSO)


def reshape(rtnl: Rtnl, link: Link, wanted: Shape) -> None:
    """Give a link the qdiscs of `wanted`, from whatever a Shape has given it before.

    Raises NetlinkError with EEXIST if another program gave the link a qdisc.
    """
    kind = _root(rtnl, link)
    if kind == _FOREIGN:
        if wanted:
            raise NetlinkError(errno.EEXIST, f"limit {link.name}, which has a qdisc of another program")
        return
    if wanted.choice or kind == "htb":
        if kind:
            shaping.delete(rtnl, link, has_choice=True, has_netem=True)
        wanted.add(rtnl, link)
    elif wanted.limit:
        _limit(rtnl, link, wanted, wanted.limit, kind)
    elif wanted.netem:
        _emulate(rtnl, link, wanted.netem, kind)
    elif kind:
        shaping.delete(rtnl, link, has_choice=False, has_netem=True)


def _root(rtnl: Rtnl, link: Link) -> str:
    """Return the kind of the qdisc on top of the link that a Shape added; empty if there is none.

    Returns _FOREIGN if another program added one.
    """
    own = {"tbf": tc.TBF_HANDLE, "htb": htb.HANDLE, "netem": netem.HANDLE}
    for handle, parent, attrs in tc.qdiscs(rtnl, link):
        kind = read_text(attrs.get(tc.TCA_KIND))
        if parent == tc.TC_H_ROOT and handle:  # the kernel's default qdisc has no handle
            return kind if own.get(kind) == handle else _FOREIGN
    return ""


def _limit(rtnl: Rtnl, link: Link, wanted: Shape, limit: tc.Tbf, kind: str) -> None:
    present = netem.find(rtnl, link, limit) if kind == "tbf" else None
    if kind != "tbf":
        tc.add_tbf(rtnl, link, limit, replace=bool(kind))
    elif tc.difference(rtnl, link, limit):
        tc.change_tbf(rtnl, link, limit)
        if limit.burst < _LARGEST:
            # A packet that was queued with a larger burst never gets enough tokens, and no packet passes
            # it.  Those queued from now on are divided.  So the queue is replaced.
            netem.remove(rtnl, link, limit)
            present = None
    if wanted.netem and present:
        netem.change(rtnl, link, wanted.netem, limit)
    elif wanted.netem:
        netem.add(rtnl, link, wanted.netem, limit)
    elif present:
        netem.remove(rtnl, link, limit)


def _emulate(rtnl: Rtnl, link: Link, wanted: netem.Netem, kind: str) -> None:
    if kind == "netem":
        netem.change(rtnl, link, wanted, None)
    else:
        netem.add(rtnl, link, wanted, None, replace=bool(kind))
