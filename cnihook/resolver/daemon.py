# SPDX-License-Identifier: Apache-2.0
"""
The resolver: one process that answers the queries of all containers with a listing.

It listens at their gateways (see resolver.redirect), and recognises a container by its address.  Other
senders get no answer.  Requests, each with the ID of a container or alone:

    {"do": "load", "container": "c1"}     read its listing again, or notice that it has none
    {"do": "status"}                      answer that it runs
"""

import asyncio
import resource
import socket

from cnihook.fast.address import Address
from cnihook.fast.errors_text import message_with_notes
from cnihook.keeper import server
from cnihook.keeper.server import LINGER, RequestError
from cnihook.log import Log, warn
from cnihook.resolver import listing
from cnihook.resolver.denials import Table
from cnihook.resolver.listing import PORT, Listing
from cnihook.resolver.lookup import Lookup
from cnihook.resolver.openings import Openings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FREEBIND = {4: (socket.IPPROTO_IP, 15), 6: (socket.IPPROTO_IPV6, 78)}  # <linux/in.h>, <linux/in6.h>
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_PAUSE = 0.5  # seconds between two writes of denials
_IDLE = 10.0  # seconds until a connection without a query is closed
_MOST_CONNECTIONS = 32  # of one container
_LONGEST_QUERY = 4096  # bytes


class Daemon(server.Daemon):
    def __init__(self, listener: socket.socket, *, linger: float = LINGER) -> None:
        super().__init__(listener, linger=linger)
        self._listings: dict[str, Listing] = {}
        self._tables: dict[str, Table] = {}
        self._by_address: dict[Address, Listing] = {}
        self._places: dict[Address, Place] = {}
        self._openings = Openings()
        self._lookup = Lookup(self._openings)
        self._connections: dict[str, int] = {}
        self._writing = False
        self._loading = asyncio.Lock()  # two requests at once must not listen at one gateway

    async def begin(self) -> None:
        # Each query to a server has a socket, and so has each connection of a container.
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        for container_id in listing.containers():
            try:
                await self._load(container_id)
            except RequestError as error:
                Log(container_id, quiet=True).event(str(error))
                warn(f"{container_id}: {error}")

    @property
    def is_busy(self) -> bool:
        return bool(self._listings)

    async def do(self, request: "dict[str, Any]") -> "dict[str, Any]":
        what = request["do"]
        if what == "load":
            async with self._loading:
                await self._load(str(request["container"]))
        elif what != "status":
            raise ValueError(f"{what!r} is unknown")
        return {"places": list(map(str, self._places))}

    async def _load(self, container_id: str) -> None:
        problem: Exception | None = None
        try:
            current = Listing.read(container_id)
        except (OSError, ValueError) as error:
            current, problem = None, error
        if current:
            self._listings[container_id] = current
            self._tables.setdefault(container_id, Table(container_id))
        else:
            self._listings.pop(container_id, None)
            self._tables.pop(container_id, None)
            self._lookup.forget(container_id)
        listings = self._listings.values()
        self._by_address = {address: one for one in listings for address in one.addresses}
        self._openings.keep({names.base for one in listings for names in one.names})
        problems = await self._listen({gateway for one in listings for gateway in one.gateways})
        self.changed.set()
        if problem:
            raise RequestError(f"the listing of names cannot be used: {message_with_notes(problem)}")
        for gateway in current.gateways if current else ():
            if gateway in problems:
                raise RequestError(f"listen for names at {gateway} port {PORT}: {problems[gateway]}")

    async def _listen(self, gateways: "set[Address]") -> "dict[Address, str]":
        """Listen at these gateways, and nowhere else.  Returns why that failed, by gateway."""
        unused = self._places.keys() - gateways
        for address in unused:
            self._places.pop(address).close()
        if unused:
            await asyncio.sleep(0)  # until then, asyncio keeps the sockets, and their ports
        problems: dict[Address, str] = {}
        for address in gateways - self._places.keys():
            place = Place(self, address)
            try:
                await place.open()
                self._places[address] = place
            except OSError as error:
                problems[address] = error.strerror or str(error)
            finally:
                if address not in self._places:  # also if the caller has ended, which cancels this
                    place.close()
        return problems

    # Queries

    async def answer(self, sender: str, data: bytes, *, by_tcp: bool = False) -> "bytes | None":
        """Return the answer to a query of this address; None if it gets none."""
        one = self._find(sender)
        if not one:
            return None
        table = self._tables[one.container_id]
        answer = await self._lookup.answer(one, table, data, by_tcp=by_tcp)
        if table.is_changed and not self._writing:
            self._writing = True
            asyncio.get_running_loop().call_later(_PAUSE, self._write_denials)
        return answer

    def _find(self, sender: str) -> "Listing | None":
        try:
            return self._by_address.get(Address.parse(sender))
        except ValueError:
            return None  # a link-local address of IPv6, with its interface

    def _write_denials(self) -> None:
        self._writing = False
        for container_id, table in self._tables.items():
            if table.is_changed:
                try:
                    table.write()
                except OSError as error:
                    warn(f"denied names of {container_id}: {message_with_notes(error)}")

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the queries of one connection, one after the other."""
        sender = writer.get_extra_info("peername")[0]
        one = self._find(sender)
        key = one.container_id if one else ""
        self._connections[key] = self._connections.get(key, 0) + 1
        try:
            while one and self._connections[key] <= _MOST_CONNECTIONS:
                async with asyncio.timeout(_IDLE):
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    if size > _LONGEST_QUERY:
                        break
                    data = await reader.readexactly(size)
                answer = await self.answer(sender, data, by_tcp=True)
                if answer is None:
                    break
                writer.write(len(answer).to_bytes(2, "big") + answer)
                async with asyncio.timeout(_IDLE):
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the container has closed it, or is slow
        finally:
            writer.close()
            self._connections[key] -= 1
            if not self._connections[key]:
                del self._connections[key]


class Place(asyncio.DatagramProtocol):
    """The sockets at one gateway."""

    def __init__(self, daemon: Daemon, address: Address) -> None:
        self._daemon = daemon
        self._address = address
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self, sock=self._socket(socket.SOCK_DGRAM)
        )
        self._server = await asyncio.start_server(
            self._daemon.converse,
            sock=self._socket(socket.SOCK_STREAM),
            limit=_LONGEST_QUERY,
            start_serving=False,
        )
        await self._server.start_serving()  # apart, so that close() finds a server that was cancelled here

    def _socket(self, kind: int) -> socket.socket:
        version = self._address.version
        one = socket.socket(_FAMILY[version], kind)
        try:
            if version == 6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # A bridge may get its address later, and IPv6 checks for duplicates first.
            one.setsockopt(*_FREEBIND[version], 1)
            one.bind((str(self._address), PORT))
            one.setblocking(False)
        except OSError:
            one.close()
            raise
        return one

    def datagram_received(self, data: bytes, addr: "tuple[Any, ...]") -> None:
        task = asyncio.ensure_future(self._answer(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, data: bytes, sender: "tuple[Any, ...]") -> None:
        answer = await self._daemon.answer(sender[0], data)
        if answer and self._transport and not self._transport.is_closing():
            self._transport.sendto(answer, sender)

    def close(self) -> None:
        if self._transport:
            self._transport.close()
        if self._server:
            self._server.close()
