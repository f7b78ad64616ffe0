# SPDX-License-Identifier: Apache-2.0
"""
The client's part of RFC 2131: it asks for an address, and later for more time.

pyroute2 has a DHCP client, too (from 0.9; Debian 12 has 0.7).  It is not used, for three reasons.  It drops
options of a configuration that it has no name for.  One malformed message from any machine on the link ends
its receiver for good.  It works in the network namespace of its process, so for one container only.
"""

import asyncio
import os
import random

from cnihook.dhcp import message
from cnihook.dhcp.lease import Lease, now
from cnihook.dhcp.message import NOBODY, Message
from cnihook.dhcp.rawsocket import BROADCAST_MAC, EVERYBODY, Channel
from cnihook.fast.address import Address, mac_bytes
from cnihook.linux.rtnl import Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Bytes of a reply; without this option, servers send 576 at most, and leave options out.
_MAX_SIZE = (1500).to_bytes(2, "big")
_VERDICTS = (message.ACK, message.NAK)


class DhcpError(Exception):
    """There is no lease; the text says why."""


class NoAnswerError(DhcpError):
    """No server has answered in time."""


class ServerRefusedError(DhcpError):
    """A server has rejected this address or this client."""


class Client:
    """One conversation about one lease, over a channel that the caller opens and closes."""

    def __init__(self, lease: Lease, channel: Channel, link: Link) -> None:
        self._lease = lease
        self._channel = channel
        self._mac = mac_bytes(link.mac)
        self._xid = os.urandom(4)
        self._began = now()

    async def obtain(self, timeout: float, *, only: "Address | None" = None) -> None:
        """Ask for an address; with `only`, for that one and no other.

        Raises DhcpError, whose text says how far it came.
        """
        deadline = now() + timeout
        options: dict[int, bytes] = {message.REQUESTED_ADDRESS: only} if only else {}
        problem: Exception = NoAnswerError("no DHCP server answers")
        for pause in _pauses():
            if now() >= deadline:
                raise problem
            until = min(now() + pause, deadline)
            offer, _sender = await self._ask(message.DISCOVER, options, (message.OFFER,), until)
            server = offer.server if offer else None
            if not offer or not server:
                continue
            if only and offer.offered != only:
                raise ServerRefusedError(f"the DHCP server {server} offers {offer.offered} instead")
            since = now()
            choice: dict[int, bytes] = {message.REQUESTED_ADDRESS: offer.offered, message.SERVER: server}
            # A server writes its lease to disk before it confirms, which may take longer than an offer.
            until = min(max(until, since + 2), deadline)
            answer, sender = await self._ask(message.REQUEST, choice, _VERDICTS, until)
            if not answer:
                problem = NoAnswerError(
                    f"the DHCP server {server} offers {offer.offered}, but does not confirm it"
                )
            elif answer.kind == message.NAK:
                problem = ServerRefusedError(_no(answer))
                await asyncio.sleep(max(until - now(), 0))
            else:
                self._lease.grant(answer, server, sender, since)
                return

    async def extend(self, timeout: float) -> None:
        """Ask for more time: the server that granted the lease, or after T2 any server.

        Raises DhcpError.
        """
        lease = self._lease
        since = now()
        rebinding = since >= lease.rebind_at
        answer, sender = await self._ask(
            message.REQUEST,
            {},
            _VERDICTS,
            since + timeout,
            current=lease.address,
            destination=EVERYBODY if rebinding else lease.server,
            mac=BROADCAST_MAC if rebinding else lease.server_mac,
        )
        if not answer:
            raise NoAnswerError("no DHCP server answers")
        if answer.kind == message.NAK:
            raise ServerRefusedError(_no(answer))
        if answer.offered != lease.address:
            raise ServerRefusedError(
                f"the DHCP server {answer.server or lease.server} gives {answer.offered} instead"
            )
        lease.grant(answer, answer.server or lease.server, sender, since)

    async def _ask(
        self,
        kind: int,
        options: "dict[int, bytes]",
        answers: "tuple[int, ...]",
        until: float,
        *,
        current: Address = NOBODY,
        destination: Address = EVERYBODY,
        mac: bytes = BROADCAST_MAC,
    ) -> "tuple[Message | None, bytes]":
        """Send a message.  Returns its answer and the sender's MAC address, or None if there is none in
        time.
        """
        own = {
            message.MESSAGE_TYPE: bytes((kind,)),
            **options,
            message.MAX_SIZE: _MAX_SIZE,
            message.PARAMETERS: bytes(self._lease.parameters),
        }
        request = Message(
            self._xid,
            self._mac,
            {**self._lease.options, **own},
            current=current,
            seconds=int(now() - self._began),
        )
        try:
            async with asyncio.timeout(until - now()):
                self._channel.send(request, current, destination, mac)
                while True:
                    await self._channel.readable()
                    while received := self._channel.receive():
                        answer, sender = received
                        if self._is_ours(answer) and answer.kind in answers:
                            return answer, sender
        except TimeoutError:
            pass
        except OSError:  # the link is down, or gone
            await asyncio.sleep(max(until - now(), 0))
        return None, b""

    def _is_ours(self, answer: Message) -> bool:
        return answer.from_server and answer.xid == self._xid and answer.mac == self._mac


def _pauses() -> "Iterator[float]":
    """Yield the seconds until the next try: two, more or less, four times; then four; then eight each.

    Before that there are two short ones, because a new bridge port may be up but not forward for a moment.
    Eight is the maximum, because spanning tree opens a new port after 30 seconds, and what is sent before
    that is lost.
    """
    yield from (0.1, 0.4)
    for _try in range(4):
        yield random.uniform(1, 3)
    pause = 4.0
    while True:
        yield pause
        pause = 8.0


def _no(answer: Message) -> str:
    why = answer.options.get(message.ERROR, b"").decode("ascii", errors="replace")
    return f"the DHCP server {answer.server or ''} refuses{': ' if why else ''}{why}"
