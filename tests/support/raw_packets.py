# SPDX-License-Identifier: Apache-2.0
"""Single packets by raw sockets: each has a number, and namespaces hear the numbers that arrive."""

import select
import socket
import struct
from contextlib import ExitStack

from tests.support.host.namespace import Namespace

PROTOCOLS = ("tcp", "udp", "icmp")
_NUMBERS = {
    (4, "tcp"): socket.IPPROTO_TCP,
    (6, "tcp"): socket.IPPROTO_TCP,
    (4, "udp"): socket.IPPROTO_UDP,
    (6, "udp"): socket.IPPROTO_UDP,
    (4, "icmp"): socket.IPPROTO_ICMP,
    (6, "icmp"): socket.IPPROTO_ICMPV6,
}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_ECHO = {4: 8, 6: 128}
_IPV6_CHECKSUM = 7  # the socket option, and where the checksum is
_CHECKSUM_AT = {"tcp": 16, "udp": 6}


class Wire:
    """The raw sockets of a namespace."""

    def __init__(self, space: Namespace, stack: ExitStack) -> None:
        self._sockets = {}
        for (version, protocol), number in _NUMBERS.items():
            one = stack.enter_context(space.socket(socket.SOCK_RAW, _FAMILIES[version], number))
            one.setblocking(False)
            if version == 6 and protocol != "icmp":
                one.setsockopt(socket.IPPROTO_IPV6, _IPV6_CHECKSUM, _CHECKSUM_AT[protocol])
            self._sockets[version, protocol] = one

    def send(self, version: int, address: str, protocol: str, port: int, number: int) -> None:
        """Send the first packet of a connection, from a port that `number` makes."""
        source = 20000 + number % 20000
        if protocol == "tcp":
            packet = struct.pack("!HHIIBBHHH", source, port, number, 0, 5 << 4, 2, 512, 0, 0)
        elif protocol == "udp":
            packet = struct.pack("!HHHHI", source, port, 12, 0, number)
        else:
            # The identifier is what distinguishes connections.
            packet = struct.pack("!BBHHH", _ECHO[version], 0, 0, number & 0xFFFF, number >> 16)
            if version == 4:
                packet = packet[:2] + _checksum(packet) + packet[4:]
        try:
            self._sockets[version, protocol].sendto(packet, (address, 0))
        except OSError:
            pass  # rejected: the error of an earlier packet

    def heard(self) -> set[int]:
        """Return the numbers of the packets that have arrived since the last call."""
        numbers = set()
        for (version, protocol), one in self._sockets.items():
            while select.select([one], [], [], 0)[0]:
                try:
                    packet = one.recv(2048)
                except OSError:
                    continue  # an ICMP error about a packet that was sent
                body = packet[(packet[0] & 15) * 4 :] if version == 4 else packet
                if protocol == "icmp":
                    if body[0] == _ECHO[version]:
                        low, high = struct.unpack_from("!HH", body, 4)
                        numbers.add(high << 16 | low)
                elif protocol == "udp":
                    if len(body) == 12:
                        numbers.add(struct.unpack_from("!I", body, 8)[0])
                elif body[13] == 2:  # SYN
                    numbers.add(struct.unpack_from("!I", body, 4)[0])
        return numbers


def _checksum(packet: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)
