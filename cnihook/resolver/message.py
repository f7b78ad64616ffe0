# SPDX-License-Identifier: Apache-2.0
"""
DNS messages: RFC 1035, with the size and the reasons of RFC 6891 and 8914.

A query comes from a container, an answer from any machine on the way to a server.  So each reader accepts
any bytes, in bounded time, and raises MessageError for what is malformed.  Only what the resolver uses is
read: the question, and addresses and aliases of the answer.  An answer to a container is written here from
these, so nothing else of a server's message reaches it.
"""

import struct

from cnihook.fast.address import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Name = tuple[bytes, ...]  # labels, in the case in which they came

A, CNAME, AAAA, OPT, IN = 1, 5, 28, 41, 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
IS_RESPONSE, IS_CUT, RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x8000, 0x0200, 0x0100, 0x0080
OPCODE, RCODE = 0x7800, 0x000F
SMALLEST, LARGEST = 512, 1232  # bytes of an answer by UDP: RFC 1035, and the size that passes every link

_HEAD = struct.Struct("!HHHHHH")  # ID, flags, and the number of questions, answers, authorities, additionals
_KIND = struct.Struct("!HH")  # type and class
_RECORD = struct.Struct("!HHIH")  # type, class, TTL, length of the data
_LONGEST_NAME = 255  # bytes
_MOST_JUMPS = 32  # in one name; each leads to an earlier byte, but a message has place for thousands
_MOST_RECORDS = 1024
_MOST_ADDITIONALS = 8  # of a query, such as OPT; 64 KiB of them with long names take 0.3 s to read
_EXTENDED_ERROR, _PROHIBITED = 15, 18  # RFC 8914
_TTL_SIGN = 1 << 31


class MessageError(ValueError):
    """A malformed message; the text says why."""


class Question:
    """The head of a message, and its one question, which ends at byte `end`."""

    __slots__ = ("cls", "counts", "end", "flags", "ident", "kind", "name")

    def __init__(
        self,
        ident: int,
        flags: int,
        name: "Name",
        kind: int,
        cls: int = IN,
        counts: "tuple[int, ...]" = (0, 0, 0),
        end: int = 0,
    ) -> None:
        self.ident = ident
        self.flags = flags
        self.name = name
        self.kind = kind
        self.cls = cls
        self.counts = counts  # of answers, authorities, additionals
        self.end = end

    @property
    def rcode(self) -> int:
        return self.flags & RCODE

    def is_same(self, other: "Question") -> bool:
        """Return True if both ask the same, which an answer must."""
        return (lower(self.name), self.kind, self.cls) == (lower(other.name), other.kind, other.cls)


class Record:
    """An address, or an alias: then `target` is the name that it stands for."""

    __slots__ = ("address", "name", "target", "ttl")

    def __init__(
        self, name: "Name", ttl: int, address: "Address | None" = None, target: "Name" = ()
    ) -> None:
        self.name = name
        self.ttl = ttl
        self.address = address
        self.target = target


def lower(name: "Name") -> "Name":
    return tuple(label.lower() for label in name)


def text_of(name: "Name") -> str:
    """Return a name as text.  Bytes that are special there, or not ASCII, are escaped: \\046 is a dot."""
    return ".".join("".join(map(_shown, label)) for label in name).lower()


def _shown(byte: int) -> str:
    character = chr(byte)
    return (
        character if character.isascii() and (character.isalnum() or character in "-_") else f"\\{byte:03}"
    )


# Reading


def read_head(data: bytes) -> "tuple[int, int]":
    """Return ID and flags.  Raises MessageError if the message is shorter than its head."""
    if len(data) < _HEAD.size:
        raise MessageError("the message is shorter than its head")
    ident, flags = _HEAD.unpack_from(data)[:2]
    return ident, flags


def read_question(data: bytes) -> Question:
    """Return the head and the question of a message.  Raises MessageError if it has not exactly one."""
    read_head(data)
    ident, flags, questions, *counts = _HEAD.unpack_from(data)
    if questions != 1:
        raise MessageError(f"the message has {questions} questions")
    name, offset = read_name(data, _HEAD.size)
    if offset + _KIND.size > len(data):
        raise MessageError("the question is cut")
    kind, cls = _KIND.unpack_from(data, offset)
    return Question(ident, flags, name, kind, cls, tuple(counts), offset + _KIND.size)


def read_name(data: bytes, offset: int) -> "tuple[Name, int]":
    """Return the name at `offset`, and where it ends."""
    labels: list[bytes] = []
    length, end, jumps = 1, 0, 0
    lowest = offset
    while True:
        if offset >= len(data):
            raise MessageError("a name is cut")
        size = data[offset]
        if size >= 0xC0:
            if offset + 2 > len(data):
                raise MessageError("a name is cut")
            target = (size & 0x3F) << 8 | data[offset + 1]
            end = end or offset + 2
            jumps += 1
            if not _HEAD.size <= target < lowest or jumps > _MOST_JUMPS:
                raise MessageError("a name refers to itself, or too often to others")
            offset = lowest = target
        elif size > 63:
            raise MessageError("a name has a label of an unknown kind")
        elif size:
            label = data[offset + 1 : offset + 1 + size]
            length += 1 + size
            if len(label) < size or length > _LONGEST_NAME:
                raise MessageError("a name is cut, or longer than 255 bytes")
            labels.append(label)
            offset += 1 + size
        else:
            return tuple(labels), end or offset + 1


def read_size(data: bytes, question: Question) -> int:
    """Return the longest answer by UDP that the sender of a query accepts; 0 if it does not use EDNS."""
    answers, authorities, additionals = question.counts
    if answers or authorities:
        raise MessageError("a query has records of an answer")
    if additionals > _MOST_ADDITIONALS:
        raise MessageError(f"a query has more than {_MOST_ADDITIONALS} records")
    offset, size = question.end, 0
    for _number in range(additionals):
        name, kind, cls, _ttl, _begin, offset = _read_record(data, offset)
        if kind == OPT:
            if size or name:
                raise MessageError("a query has an invalid OPT record")
            size = max(cls, SMALLEST)
    return size


def read_answers(data: bytes, question: Question) -> "list[Record]":
    """Return the addresses and the aliases of an answer; other records are left out."""
    if question.counts[0] > _MOST_RECORDS:
        raise MessageError(f"the answer has more than {_MOST_RECORDS} records")
    records = []
    offset = question.end
    for _number in range(question.counts[0]):
        name, kind, cls, ttl, begin, offset = _read_record(data, offset)
        if cls != IN or kind not in (A, AAAA, CNAME):
            continue
        ttl = 0 if ttl & _TTL_SIGN else ttl  # RFC 2181, 8
        if kind == CNAME:
            target, end = read_name(data, begin)
            if end != offset:
                raise MessageError("an alias is longer or shorter than its name")
            records.append(Record(name, ttl, target=target))
        elif offset - begin == (4 if kind == A else 16):
            records.append(Record(name, ttl, Address(data[begin:offset])))
        else:
            raise MessageError("an address has a wrong length")
    return records


def _read_record(data: bytes, offset: int) -> "tuple[Name, int, int, int, int, int]":
    """Return name, type, class, TTL, and where the data of a record begins and ends."""
    name, offset = read_name(data, offset)
    if offset + _RECORD.size > len(data):
        raise MessageError("a record is cut")
    kind, cls, ttl, length = _RECORD.unpack_from(data, offset)
    begin = offset + _RECORD.size
    if begin + length > len(data):
        raise MessageError("a record is cut")
    return name, kind, cls, ttl, begin, begin + length


# Writing


def query(question: Question, *, edns: bool = True) -> bytes:
    """Return a query, with the ID and the flags of the question."""
    head = _HEAD.pack(question.ident, question.flags, 1, 0, 0, int(edns))
    return head + _wire(question.name) + _KIND.pack(question.kind, question.cls) + (_opt() if edns else b"")


def reply(
    question: Question,
    rcode: int,
    records: "Iterable[Record]" = (),
    *,
    limit: int,
    edns: bool = False,
    reason: str = "",
) -> bytes:
    """Return the answer to a query; if it is longer than `limit`, one without records that is marked as cut.

    `edns`: the query used it, so the answer does, and can have a reason.
    """
    body = bytearray(_wire(question.name) + _KIND.pack(question.kind, question.cls))
    places: dict[Name, int] = {}
    _note(places, lower(question.name), _HEAD.size)
    count = 0
    for record in records:
        _write(body, places, record.name)
        kind = CNAME if record.address is None else A if record.address.version == 4 else AAAA
        body += _RECORD.pack(kind, IN, record.ttl, 0)
        begin = len(body)
        if record.address is None:
            _write(body, places, record.target)
        else:
            body += record.address
        body[begin - 2 : begin] = (len(body) - begin).to_bytes(2, "big")
        count += 1
    end = _opt(reason) if edns else b""
    flags = question.flags & (OPCODE | RECURSION_DESIRED) | IS_RESPONSE | _RECURSION_AVAILABLE | rcode
    if _HEAD.size + len(body) + len(end) > limit:
        flags |= IS_CUT
        count = 0
        body = bytearray(_wire(question.name) + _KIND.pack(question.kind, question.cls))
    return _HEAD.pack(question.ident, flags, 1, count, 0, int(edns)) + bytes(body) + end


def relayed(data: bytes, answer: Question, query: bytes, question: Question) -> bytes:
    """Return a server's answer with the ID and the question of a container's query, also in its case."""
    if not answer.end:  # the server has left the question out
        return reply(question, answer.rcode, limit=SMALLEST)
    return query[:2] + data[2:12] + query[12 : question.end] + data[answer.end :]


def refusal(ident: int, flags: int, rcode: int) -> bytes:
    """Return the answer to a query whose question cannot be read."""
    flags = flags & (OPCODE | RECURSION_DESIRED) | IS_RESPONSE | _RECURSION_AVAILABLE | rcode
    return _HEAD.pack(ident, flags, 0, 0, 0, 0)


def _wire(name: "Name") -> bytes:
    return b"".join(bytes((len(label),)) + label for label in name) + b"\0"


def _note(places: "dict[Name, int]", name: "Name", offset: int) -> None:
    """Note where a name and its ends are, so that later names can refer to them."""
    for index, label in enumerate(name):
        if offset < 0x4000:
            places.setdefault(name[index:], offset)
        offset += 1 + len(label)


def _write(body: bytearray, places: "dict[Name, int]", name: "Name") -> None:
    own = lower(name)
    begin = _HEAD.size + len(body)
    for index in range(len(name)):
        place = places.get(own[index:])
        if place:
            body += _wire(name[:index])[:-1] + (0xC000 | place).to_bytes(2, "big")
            break
    else:
        body += _wire(name)
    _note(places, own, begin)


def _opt(reason: str = "") -> bytes:
    """Return the OPT record, with an extended error if there is a reason."""
    data = b""
    if reason:
        text = reason.encode()[:200]
        data = struct.pack("!HHH", _EXTENDED_ERROR, 2 + len(text), _PROHIBITED) + text
    return b"\0" + _RECORD.pack(OPT, LARGEST, 0, len(data)) + data
