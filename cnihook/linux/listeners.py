# SPDX-License-Identifier: Apache-2.0
"""
Which processes of this network namespace listen on a port: what `ss -lntu` shows, from /proc/net.

The kernel lists the sockets of TCP that listen before all others, so of these 10,000 cost nothing: reading
stops at the first that does not.
"""

import os
import struct

from cnihook.lean.address import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# <net/tcp_states.h>; a socket of UDP that has no peer is in the state that TCP calls closed.
_LISTENS = {"tcp": b"0A", "udp": b"07"}

_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:1.2.3.4, of an IPv6 socket, is 1.2.3.4


def listeners(protocol: str, ports: "set[int]") -> "list[tuple[Address, int]]":
    """(address, port) of every socket of tcp or udp that listens on one of these ports."""
    found = []
    for name in (protocol, f"{protocol}6"):
        for local, state in _sockets(f"/proc/net/{name}"):
            if state != _LISTENS[protocol]:
                if protocol == "tcp":
                    break
                continue
            address, _, port = local.partition(b":")
            if int(port, 16) in ports:
                found.append((_address(address.decode()), int(port, 16)))
    return found


def _sockets(path: str) -> "Iterator[tuple[bytes, bytes]]":
    """Local end and state of each."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # no IPv6, or no /proc
    try:
        rest = b""
        while chunk := os.read(fd, 1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                words = line.split(None, 4)
                if words[0] != b"sl":
                    yield words[1], words[3]
    finally:
        os.close(fd)


def _address(text: str) -> Address:
    """Words of four bytes, each printed as a number of this machine."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return Address(packed.removeprefix(_MAPPED))
