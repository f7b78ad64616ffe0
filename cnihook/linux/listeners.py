# SPDX-License-Identifier: Apache-2.0
"""
Sockets of this network namespace that listen on a port, and the processes that have them.

This is what `ss -lntup` shows.  sock_diag selects the sockets in the kernel.  /proc/net is written
and read as a whole: 6 ms for the table of TCP even if it is empty, 70 ms for 10,000 sockets of UDP.

Only /proc/PID/fd shows which process has a socket.  All descriptors of the machine are read for that, in 1
to 20 ms, so it is done only for an error message.  psutil would read the same files and also /proc/net, and
the hook runs without site-packages.

<linux/sock_diag.h> and <linux/inet_diag.h> have the messages.
"""

import _struct as struct
import os
from _socket import AF_INET, AF_INET6

from cnihook.fast.address import Address
from cnihook.linux.netlink import NLM_F_DUMP, Netlink, attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
# A bit for each state of <net/tcp_states.h>; a socket of UDP without a peer is in what TCP calls closed.
_LISTENS = {"tcp": 1 << 10, "udp": 1 << 7, "sctp": 1 << 10}
_REQUEST = struct.Struct("=BBxxI")  # family, protocol, states
_ID = struct.Struct(">HH16s16s4s8s")  # port, peer's port, address, peer's address, link, cookie
_ANSWER_ID = 4  # where that begins in an answer: behind family, state and timers
_INODE = struct.Struct("=16xI")  # behind it: expiry, two queues and the user, then the inode
_ANSWER_SIZE = 72
_SKV6ONLY = 11  # INET_DIAG_SKV6ONLY
_ANY_COOKIE = b"\xff" * 8

_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:1.2.3.4, of an IPv6 socket, is 1.2.3.4
_FEW = 8  # ports, with a request for each; for more ports, one request lists all sockets


class Listener:
    """A socket that listens.  `inode` is its number in /proc/PID/fd, 0 for a socket of the kernel's own."""

    __slots__ = ("address", "inode", "is_dual", "port")

    def __init__(self, body: bytes, family: int) -> None:
        self.port, _, address, *_ = _ID.unpack_from(body, _ANSWER_ID)
        (self.inode,) = _INODE.unpack_from(body, _ANSWER_ID + _ID.size)
        self.address = Address(address[:4] if family == AF_INET else address.removeprefix(_MAPPED))
        only_v6 = attributes(body, _ANSWER_SIZE).get(_SKV6ONLY, b"\1")[0]
        # A socket on :: receives IPv4 as well, unless its program has set IPV6_V6ONLY.
        self.is_dual = self.address.version == 6 and self.address.is_unspecified and not only_v6

    def hears(self, version: int, address: "Address | None") -> bool:
        """Return True if what is sent to this address of the host reaches the socket.

        None stands for all addresses of that IP version that packets from elsewhere can have: all but ::1.
        """
        if self.is_dual:
            return True
        if self.address.version != version:
            return False
        if address is None:
            return not (version == 6 and self.address.is_loopback)
        return self.address.is_unspecified or self.address == address


def listeners(protocol: str, ports: "set[int]") -> "list[Listener]":
    """Return the same sockets as read(), without those that the kernel cannot list."""
    sockets: list[Listener] = []
    try:
        for listener in read(protocol, ports):
            sockets.append(listener)
    except OSError:
        pass
    return sockets


def read(protocol: str, ports: "set[int]") -> "Iterator[Listener]":
    """Yield the sockets of tcp, udp or sctp that listen on one of these ports.

    Raises OSError if the kernel cannot answer: its module for that may be missing.
    """
    netlink = Netlink(_NETLINK_SOCK_DIAG)
    try:
        for family in (AF_INET, AF_INET6):
            for port in sorted(ports) if len(ports) <= _FEW else (0,):
                body = _REQUEST.pack(family, _NUMBERS[protocol], _LISTENS[protocol])
                body += _ID.pack(port, 0, b"", b"", b"", _ANY_COOKIE)
                what = f"list the sockets of {protocol}"
                for answer in netlink.request(_SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, body, what):
                    if _ID.unpack_from(answer, _ANSWER_ID)[0] in ports:
                        yield Listener(answer, family)
    finally:
        netlink.close()


def processes_of(inodes: "set[int]") -> "dict[int, list[int]]":
    """Return the PIDs that have each of these sockets open, the lowest first, as far as /proc shows them."""
    targets = {f"socket:[{inode}]": inode for inode in inodes if inode}
    pids: dict[int, list[int]] = {}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()) if targets else ():
        for target in _open_files(pid) & targets.keys():
            pids.setdefault(targets[target], []).append(pid)
    return pids


def _open_files(pid: int) -> "set[str]":
    folder = f"/proc/{pid}/fd"
    files = set()
    try:
        for descriptor in os.listdir(folder):
            try:
                files.add(os.readlink(f"{folder}/{descriptor}"))
            except FileNotFoundError:
                pass  # closed in between
    except OSError:
        pass  # the process has ended, or belongs to another user
    return files
