# SPDX-License-Identifier: Apache-2.0
"""
Questions to the servers of the host, which do the work of a resolver.

Each try has a new socket, connected to one server, so its port is random and the kernel accepts packets of
that server only.  An answer counts if it has the random ID and the question, too.  Other packets are ignored
until the time is over.
"""

import asyncio
import secrets

from cnihook.fast import statefile
from cnihook.fast.address import is_address
from cnihook.resolver import message
from cnihook.resolver.message import MessageError, Question
from cnihook.resolver.redirect import DNS

RESOLV_CONF = "/etc/resolv.conf"
TIMEOUT = 1.5  # seconds for one server
DEADLINE = 4.5  # seconds in all: the C library of a container asks again after 5

_ROUNDS = 2
_MOST_SERVERS = 3  # as glibc
_NEXT = (message.SERVFAIL, message.NOTIMP, message.REFUSED)  # another server may do better


class NoServerError(Exception):
    """No server has answered; the text says why."""


class Response:
    """The answer of a server: its bytes, and its head with the question."""

    __slots__ = ("data", "question")

    def __init__(self, data: bytes, question: Question) -> None:
        self.data = data
        self.question = question


def servers_of_host() -> "list[str]":
    """Return the servers in the host's resolv.conf, also those that only the host can reach."""
    try:
        content = statefile.content(RESOLV_CONF, follow=True) or b""
    except (OSError, ValueError):
        return []
    lines = [line.split() for line in content.decode(errors="replace").splitlines()]
    servers = ["".join(words[1:2]) for words in lines if words[:1] == ["nameserver"]]
    return [server for server in servers if is_address(server.partition("%")[0])]


async def ask(servers: "list[str]", name: "message.Name", kind: int) -> Response:
    """Return the first usable answer of one of the servers.  Raises NoServerError."""
    servers = (servers or servers_of_host())[:_MOST_SERVERS]
    if not servers:
        raise NoServerError(f"{RESOLV_CONF} names no server")
    last: Response | None = None
    problem = "none answers"
    try:
        async with asyncio.timeout(DEADLINE):
            for _round in range(_ROUNDS):
                for server in servers:
                    try:
                        response = await _ask_server(server, name, kind)
                    except (OSError, TimeoutError, MessageError) as error:
                        problem = str(error) or problem
                        continue
                    if response.question.rcode not in _NEXT:
                        return response
                    last = response
                if last:
                    return last
    except TimeoutError:
        pass
    if last:
        return last
    raise NoServerError(f"servers {', '.join(servers)}: {problem}")


async def _ask_server(server: str, name: "message.Name", kind: int) -> Response:
    response = await _by_udp(server, _question(name, kind), edns=True)
    if response.question.rcode == message.FORMERR:  # an old server, which does not know EDNS
        response = await _by_udp(server, _question(name, kind), edns=False)
    if response.question.flags & message.IS_CUT:
        async with asyncio.timeout(TIMEOUT):
            response = await _by_tcp(server, _question(name, kind))
    return response


def _question(name: "message.Name", kind: int) -> Question:
    return Question(secrets.randbits(16), message.RECURSION_DESIRED, name, kind)


def _checked(data: bytes, sent: Question) -> "Response | None":
    """Return the response, or None if it is not an answer to this question."""
    try:
        ident, flags = message.read_head(data)
        if ident != sent.ident or not flags & message.IS_RESPONSE or flags & message.OPCODE:
            return None
        if flags & message.RCODE == message.FORMERR:  # it may be without the question
            return Response(data, Question(ident, flags, sent.name, sent.kind))
        question = message.read_question(data)
    except MessageError:
        return None
    return Response(data, question) if question.is_same(sent) else None


class _Exchange(asyncio.DatagramProtocol):
    def __init__(self, sent: Question) -> None:
        self._sent = sent
        self.response: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _addr: object) -> None:
        response = _checked(data, self._sent)
        if response and not self.response.done():
            self.response.set_result(response)

    def error_received(self, exc: Exception) -> None:
        if not self.response.done():
            self.response.set_exception(exc)


async def _by_udp(server: str, question: Question, *, edns: bool) -> Response:
    loop = asyncio.get_running_loop()
    transport, exchange = await loop.create_datagram_endpoint(
        lambda: _Exchange(question), remote_addr=(server, DNS)
    )
    try:
        transport.sendto(message.query(question, edns=edns))
        async with asyncio.timeout(TIMEOUT):
            return await exchange.response
    finally:
        exchange.response.cancel()
        transport.close()


async def _by_tcp(server: str, question: Question) -> Response:
    data = message.query(question)
    reader, writer = await asyncio.open_connection(server, DNS)
    try:
        writer.write(len(data).to_bytes(2, "big") + data)
        size = int.from_bytes(await reader.readexactly(2), "big")
        response = _checked(await reader.readexactly(size), question)
    except asyncio.IncompleteReadError:
        raise MessageError(f"{server} ends the connection too early") from None
    finally:
        writer.close()
    if response is None:
        raise MessageError(f"{server} answers another question")
    return response
