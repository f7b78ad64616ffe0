# SPDX-License-Identifier: Apache-2.0
"""
One-shot queries: those from a port other than 5353, as `dig` sends them (RFC 6762, 6.7).

The program that asks is not in the group.  So the query is sent on from a port of its own on each interface,
and the answers that come to that port within some seconds are sent to the program.
"""

import asyncio
import socket

from cnihook.mdns import membership, message
from cnihook.mdns.membership import PORT, Membership, Packet
from cnihook.mdns.message import MessageError

MOST = 64  # queries at once
_PATIENCE = 3.0  # seconds for answers
_MOST_ANSWERS = 256  # to one query


class OneShots:
    """The queries that wait for answers."""

    def __init__(self) -> None:
        self._sockets: list[list[socket.socket]] = []  # of each query

    def ask(self, one: Membership, packet: Packet, data: bytes, ways: "list[Membership]") -> None:
        """Send a query that has come to `one` on to other interfaces, unless too many wait already."""
        if len(self._sockets) >= MOST:
            return
        loop = asyncio.get_running_loop()
        sockets: list[socket.socket] = []
        left = [_MOST_ANSWERS]
        for way in ways:
            try:
                opened = membership.open_socket(way.version, way.index)
            except OSError:
                continue  # the interface is gone, or there are too many files
            sockets.append(opened)
            loop.add_reader(opened, self._answer, opened, way, one, packet, left)
            try:
                opened.sendto(data, membership.destination(way.version, way.index))
            except OSError:
                continue  # the interface has just lost its address
        self._sockets.append(sockets)
        loop.call_later(_PATIENCE, self._end, sockets)

    def _answer(
        self, opened: socket.socket, way: Membership, one: Membership, packet: Packet, left: "list[int]"
    ) -> None:
        try:
            answer = membership.receive(opened)
            if answer and answer.port == PORT and membership.is_from_link(answer, way.nets) and left[0]:
                data = message.forwarded(answer.data)
                left[0] -= 1
                one.send(data, (packet.source, packet.port))
        except (OSError, MessageError):
            pass

    def _end(self, sockets: "list[socket.socket]") -> None:
        self._sockets.remove(sockets)
        for one in sockets:
            asyncio.get_running_loop().remove_reader(one)
            one.close()
