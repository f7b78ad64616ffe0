# SPDX-License-Identifier: Apache-2.0
"""
Which processes of this network namespace listen on a port: what `ss -lntu` shows, asked of sock_diag.

The kernel picks them.  /proc/net would have to be written out and read whole: 6 ms for the table of TCP even
where that is empty, 70 ms for 10,000 sockets of UDP.

<linux/sock_diag.h> and <linux/inet_diag.h> have the messages.
"""

import _struct as struct
from _socket import AF_INET, AF_INET6

from cnihook.lean.address import Address
from cnihook.linux.netlink import NLM_F_DUMP, Netlink, NetlinkError

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_NUMBERS = {"tcp": 6, "udp": 17}
# A bit for each state of <net/tcp_states.h>; a socket of UDP without a peer is in what TCP calls closed.
_LISTENS = {"tcp": 1 << 10, "udp": 1 << 7}
_REQUEST = struct.Struct("=BBxxI")  # family, protocol, states
_ID = struct.Struct(">HH16s16s4s8s")  # port, peer's port, address, peer's address, link, cookie
_ANSWER_ID = 4  # where that begins in an answer: behind family, state and timers
_ANY_COOKIE = b"\xff" * 8

_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:1.2.3.4, of an IPv6 socket, is 1.2.3.4
_FEW = 8  # ports, for each of which a question is asked; for more it is one, with all sockets for an answer


def listeners(protocol: str, ports: "set[int]") -> "list[tuple[Address, int]]":
    """(address, port) of every socket of tcp or udp that listens on one of these ports.

    An empty list where the kernel cannot tell: its module for that may be missing.
    """
    found: list[tuple[Address, int]] = []
    try:
        netlink = Netlink(_NETLINK_SOCK_DIAG)
    except OSError:
        return found
    try:
        for family in (AF_INET, AF_INET6):
            for asked in sorted(ports) if len(ports) <= _FEW else (0,):
                body = _REQUEST.pack(family, _NUMBERS[protocol], _LISTENS[protocol])
                body += _ID.pack(asked, 0, b"", b"", b"", _ANY_COOKIE)
                what = f"list the sockets of {protocol}"
                for answer in netlink.request(_SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, body, what):
                    port, _, address, *_ = _ID.unpack_from(answer, _ANSWER_ID)
                    if port in ports:
                        packed = address[:4] if family == AF_INET else address.removeprefix(_MAPPED)
                        found.append((Address(packed), port))
    except NetlinkError:
        pass
    finally:
        netlink.close()
    return found
