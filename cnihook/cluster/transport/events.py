# SPDX-License-Identifier: Apache-2.0
"""
Events of the kernel after which something of a network may be missing: a link went down or came up, or a
route or nexthop of it was deleted.

An agent needs them only as a reason to compare the kernel with what should be there, so one event stands for
all that came together.  If too many come at once, the kernel drops some (ENOBUFS).  That is a reason to
compare, too.  Links that no route of a network uses are ignored: each start of a container makes some.

pyroute2 is not used here.  In 0.9, get() returns the messages of one datagram, and keeps others that it has
received; so a caller that waits for the descriptor misses them.  After ENOBUFS its socket is not usable, and
it has no nexthop objects.  This module reads the type and one number of each event.
"""

import _struct as struct
import errno
import select
import socket

from cnihook.cluster.kernel import PROTOCOL
from cnihook.linux.netlink import NETLINK_ROUTE
from cnihook.linux.nexthops import RTM_DELNEXTHOP
from cnihook.linux.rtnl import RTM_DELLINK, RTM_DELROUTE, RTM_NEWLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

# <linux/rtnetlink.h>: a bit for each group; that of nexthop objects has the number 32
_GROUPS = 0x1 | 0x40 | 0x400 | 1 << 31  # links, IPv4 routes, IPv6 routes
_WAIT = 500  # milliseconds until `stop` is looked at
_HEADER = struct.Struct("=IH10x")  # length, type
_PLACES = {RTM_DELROUTE: 5, RTM_DELNEXTHOP: 2}  # of the protocol in the message

_links: "dict[str, set[int]]" = {}


def watch(network: str, links: "set[int]") -> None:
    """Concern events() with these links, instead of those that the network had before."""
    _links[network] = links


def events(stop: "threading.Event") -> "Iterator[None]":
    """Yield once at the beginning, and for each group of events that came together, until `stop` is set."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE) as kernel:
        kernel.setblocking(False)
        kernel.bind((0, _GROUPS))
        ready = select.poll()
        ready.register(kernel, select.POLLIN)
        yield  # for what came before the socket was open
        while not stop.is_set():
            if ready.poll(_WAIT) and _any_concerns(kernel):
                yield


def _any_concerns(kernel: socket.socket) -> bool:
    """Receive all events that are there, and return True if one of them concerns a network."""
    concerns = False
    while True:
        try:
            datagram = kernel.recv(1 << 16)
        except BlockingIOError:
            return concerns
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            concerns = True
            continue
        concerns = concerns or _concerns(datagram)


def _concerns(datagram: bytes) -> bool:
    """Return True if an event concerns a network.  The kernel sends each in a datagram of its own."""
    if len(datagram) < _HEADER.size + 16:
        return False
    _length, kind = _HEADER.unpack_from(datagram)
    if kind in (RTM_NEWLINK, RTM_DELLINK):
        index = struct.unpack_from("=i", datagram, _HEADER.size + 4)[0]
        return any(index in links for links in _links.values())
    return kind in _PLACES and datagram[_HEADER.size + _PLACES[kind]] == PROTOCOL
