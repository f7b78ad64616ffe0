# SPDX-License-Identifier: Apache-2.0
"""
The answer to one query of a container.

Only queries for addresses are sent to a server: A and AAAA.  For any other type the answer about a listed
name is empty.  HTTPS, SVCB and ANY records have addresses in other forms, which would have to be opened,
too; names in SRV and MX records would have to be listed themselves; and TXT would carry data past the
policy.  Programs that ask for these fall back to addresses.

Some addresses are never opened, because a name must not lead to the host or to a service of its cloud:
loopback, link-local (169.254.169.254), multicast and unspecified ones, and the metadata of some clouds.
"""

import asyncio

from cnihook.fast.address import Address
from cnihook.fast.errors_text import message_with_notes
from cnihook.log import Log
from cnihook.resolver import denials, message, upstream
from cnihook.resolver.listing import Listing
from cnihook.resolver.message import MessageError, Question, Record
from cnihook.resolver.openings import LONGEST_ANSWER, Openings
from cnihook.resolver.upstream import NoServerError, Response

_MOST_ALIASES = 16  # one after the other
_MOST_ADDRESSES = 64  # in one answer
_MOST_AT_ONCE = 128  # queries of one container; more are dropped, and its C library asks again
_MOST_IN_ALL = 1024  # queries of all containers; each may have a socket
# Alibaba Cloud, Azure, AWS (instances, and pods of EKS), Google, Oracle, Scaleway.  Most others use
# 169.254.169.254.
_METADATA = {
    Address.parse(text)
    for text in (
        "100.100.100.200",
        "168.63.129.16",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
        "fd00:42::42",
    )
}
_MAPPED, _COMPATIBLE, _NAT64 = bytes(10) + b"\xff\xff", bytes(12), bytes.fromhex("0064ff9b") + bytes(8)


class Lookup:
    """All queries of all containers."""

    def __init__(self, openings: Openings) -> None:
        self._openings = openings
        self._asking: dict[object, asyncio.Task[Response]] = {}
        self._at_once: dict[str, int] = {}
        self._problems: dict[str, str] = {}

    async def answer(
        self, listing: Listing, table: denials.Table, data: bytes, *, by_tcp: bool
    ) -> "bytes | None":
        """Return the answer to a container's query; None if it gets none."""
        container_id = listing.container_id
        if (
            self._at_once.get(container_id, 0) >= _MOST_AT_ONCE
            or sum(self._at_once.values()) >= _MOST_IN_ALL
        ):
            return None
        self._at_once[container_id] = self._at_once.get(container_id, 0) + 1
        try:
            return await self._answer(listing, table, data, by_tcp)
        finally:
            self._at_once[container_id] -= 1
            if not self._at_once[container_id]:
                del self._at_once[container_id]

    async def _answer(
        self, listing: Listing, table: denials.Table, data: bytes, by_tcp: bool
    ) -> "bytes | None":
        try:
            ident, flags = message.read_head(data)
        except MessageError:
            return None
        if flags & message.IS_RESPONSE:
            return None
        if flags & message.OPCODE:
            return message.refusal(ident, flags, message.NOTIMP)
        try:
            question = message.read_question(data)
            size = message.read_size(data, question)
        except MessageError:
            return message.refusal(ident, flags, message.FORMERR)
        limit = 0xFFFF if by_tcp else min(size or message.SMALLEST, message.LARGEST)
        is_address = question.kind in (message.A, message.AAAA)
        if listing.audit and not is_address and question.cls == message.IN:
            return await self._relay(listing, table, data, question, limit)
        rcode, records, reason = await self._decide(listing, table, question)
        return message.reply(question, rcode, records, limit=limit, edns=bool(size), reason=reason)

    async def _relay(
        self, listing: Listing, table: denials.Table, data: bytes, question: Question, limit: int
    ) -> bytes:
        """Return a server's answer as it is: in the mode audit, nothing may fail that is not listed."""
        name = message.text_of(question.name)
        if not listing.matching(name):
            table.add(name or ".", denials.NOT_LISTED)
        try:
            response = await self._ask(listing.servers, question)
        except NoServerError as error:
            self._report(listing, f"names cannot be resolved: {message_with_notes(error)}")
            return message.reply(question, message.SERVFAIL, limit=limit)
        answer = message.relayed(response.data, response.question, data, question)
        return answer if len(answer) <= limit else message.reply(question, message.NOERROR, limit=0)

    async def _decide(
        self, listing: Listing, table: denials.Table, question: Question
    ) -> "tuple[int, list[Record], str]":
        """Return the response code, the records, and the reason of a refusal."""
        name = message.text_of(question.name)
        matching = listing.matching(name)
        if not matching:
            table.add(name or ".", denials.NOT_LISTED)
            if not listing.audit or question.cls != message.IN:
                return message.REFUSED, [], "not listed in the policy of this container"
        if question.cls != message.IN:
            return message.REFUSED, [], ""
        if question.kind not in (message.A, message.AAAA):
            return message.NOERROR, [], ""
        try:
            response = await self._ask(listing.servers, question)
            records = message.read_answers(response.data, response.question)
        except (NoServerError, MessageError) as error:
            self._report(listing, f"names cannot be resolved: {message_with_notes(error)}")
            return message.SERVFAIL, [], ""
        if response.question.rcode not in (message.NOERROR, message.NXDOMAIN):
            return message.SERVFAIL, [], ""
        chain, last = follow(question.name, records)
        own = usable(last, records, question.kind)
        kept = [record for record in own if record.address and not is_special(record.address)]
        for record in own:
            if record not in kept:
                table.add(name, f"its address {record.address} is never opened")
        ttl = min((record.ttl for record in (*chain, *kept)), default=0)
        addresses = [record.address for record in kept if record.address]
        try:
            if matching and addresses:
                for pattern in self._openings.add(matching, name, addresses, ttl):
                    _log(listing, f"{pattern} has too many addresses; only the newest are open")
        except OSError as error:
            self._report(listing, message_with_notes(error))
            return message.SERVFAIL, [], ""
        self._problems.pop(listing.container_id, None)
        answer = [*chain, *kept]
        for record in answer:
            record.ttl = min(ttl, LONGEST_ANSWER)
        return response.question.rcode, answer, ""

    async def _ask(self, servers: "list[str]", question: Question) -> Response:
        """Ask the servers; several containers with the same question at a time share one query."""
        key = (*servers, message.lower(question.name), question.kind)
        task = self._asking.get(key)
        if task is None:
            task = asyncio.ensure_future(upstream.ask(servers, message.lower(question.name), question.kind))
            self._asking[key] = task
            task.add_done_callback(lambda _task: self._asking.pop(key, None))
        return await asyncio.shield(task)

    def _report(self, listing: Listing, problem: str) -> None:
        """Log a problem of a container, once until a name is resolved again."""
        if self._problems.get(listing.container_id) != problem:
            self._problems[listing.container_id] = problem
            _log(listing, problem)

    def forget(self, container_id: str) -> None:
        self._problems.pop(container_id, None)


def _log(listing: Listing, event: str) -> None:
    Log(listing.container_id, quiet=True).event(event)


def follow(name: "message.Name", records: "list[Record]") -> "tuple[list[Record], message.Name]":
    """Return the aliases from a name on, and the last name, which has the addresses."""
    aliases = {message.lower(record.name): record for record in records if record.address is None}
    chain: list[Record] = []
    while len(chain) < _MOST_ALIASES and (alias := aliases.pop(message.lower(name), None)):
        chain.append(alias)
        name = alias.target
    return chain, name


def usable(name: "message.Name", records: "list[Record]", kind: int) -> "list[Record]":
    """Return the addresses of a name and of a type, each once."""
    version = 4 if kind == message.A else 6
    own = {
        record.address: record
        for record in records
        if record.address
        and record.address.version == version
        and message.lower(record.name) == message.lower(name)
    }
    return list(own.values())[:_MOST_ADDRESSES]


def is_special(address: Address) -> bool:
    """Return True for an address that names never open."""
    if address in _METADATA:
        return True
    if address.version == 6:
        if address[:12] in (_MAPPED, _COMPATIBLE, _NAT64):
            return address[:12] == _MAPPED or is_special(Address(address[12:]))
        return address.is_link_local or address[0] == 0xFF
    return address[0] in (0, 127) or address[0] >= 224 or address.is_link_local
