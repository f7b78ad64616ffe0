# SPDX-License-Identifier: Apache-2.0
"""The kernel's counters of what a link received and sent: <linux/if_link.h>, rtnl_link_stats64."""

import _struct as struct

from cnihook.linux.netlink import NetlinkError, attributes, text
from cnihook.linux.rtnl import IFLA_IFNAME, RTM_GETLINK, Rtnl

IFLA_STATS64 = 23

_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change mask
# Packets received and sent, bytes likewise, errors, dropped.
_STATS = struct.Struct("=8Q")


class LinkStats:
    """The totals of one link, as seen from inside its namespace."""

    __slots__ = ("dropped", "received_bytes", "received_packets", "sent_bytes", "sent_packets")

    def __init__(self, stats: bytes) -> None:
        (
            self.received_packets,
            self.sent_packets,
            self.received_bytes,
            self.sent_bytes,
            _receive_errors,
            _send_errors,
            receive_dropped,
            send_dropped,
        ) = _STATS.unpack_from(stats)
        self.dropped = receive_dropped + send_dropped

    def __str__(self) -> str:
        return (
            f"received {self.received_bytes} bytes in {self.received_packets} packets, "
            f"sent {self.sent_bytes} in {self.sent_packets}, dropped {self.dropped}"
        )


def read(rtnl: Rtnl, name: str) -> "LinkStats | None":
    """Return the totals of a link, or None if it does not exist."""
    body = _IFINFO.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name)
    try:
        (answer,) = rtnl.request(RTM_GETLINK, 0, body, f"look up {name}")
    except NetlinkError:
        return None
    stats = attributes(answer, _IFINFO.size).get(IFLA_STATS64, b"")
    return LinkStats(stats) if len(stats) >= _STATS.size else None
