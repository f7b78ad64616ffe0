# SPDX-License-Identifier: Apache-2.0
"""
Messages of multicast DNS, as they are sent on.

They come from containers and from any machine of the LAN.  So any bytes are accepted, and the time to read
them grows with their number only: a name is passed over, and what it refers to is not followed.
"""

import struct

LONGEST = 8972  # bytes; 9000 with the headers of IPv4 and UDP (RFC 6762, 17)

_HEAD = struct.Struct("!HHHHHH")  # ID, flags, and the number of questions, answers, authorities, additionals
_LENGTH = struct.Struct("!H")
_OPCODE_AND_RCODE = 0x780F  # RFC 6762, 18.3 and 18.11: other messages are ignored
_KIND, _TTL = 4, 4  # bytes of type and class, of the time to live
_LONGEST_LABEL, _POINTER = 63, 0xC0
_UNICAST = 0x80  # in the first byte of a question's class


class MessageError(ValueError):
    """A malformed message; the text says why."""


def is_answer(data: bytes) -> bool:
    """Return True if a message, which is well-formed, has the flag of an answer."""
    return bool(data[2] & 0x80)


def forwarded(data: bytes) -> bytes:
    """Return a message as it is sent on.  Raises MessageError if it is malformed.

    A question that asks for an answer to its sender alone (RFC 6762, 5.4) asks all: the answer would go to
    the host, where another program may have the port.  Bytes after the message are left out.
    """
    if len(data) < _HEAD.size:
        raise MessageError("the message is shorter than its head")
    _ident, flags, questions, *records = _HEAD.unpack_from(data)
    if flags & _OPCODE_AND_RCODE:
        raise MessageError("the message is of another kind")
    message = bytearray(data)
    offset = _HEAD.size
    for _number in range(questions):
        offset = _end_of_name(data, offset) + _KIND
        if offset > len(data):
            raise MessageError("a question is cut")
        message[offset - 2] &= ~_UNICAST
    for _number in range(sum(records)):
        offset = _end_of_name(data, offset) + _KIND + _TTL + _LENGTH.size
        if offset > len(data):
            raise MessageError("a record is cut")
        offset += _LENGTH.unpack_from(data, offset - _LENGTH.size)[0]
        if offset > len(data):
            raise MessageError("a record is cut")
    return bytes(message[:offset])


def _end_of_name(data: bytes, offset: int) -> int:
    begin = offset
    while offset < len(data):
        size = data[offset]
        if size >= _POINTER:
            pointer = data[offset : offset + 2]
            if len(pointer) < 2 or int.from_bytes(pointer, "big") & 0x3FFF >= begin:
                raise MessageError("a name refers to what follows it")
            return offset + 2
        if size > _LONGEST_LABEL:
            raise MessageError("a name has a label of an unknown kind")
        offset += 1 + size
        if not size:
            return offset
    raise MessageError("a name is cut")
