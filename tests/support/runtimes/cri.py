# SPDX-License-Identifier: Apache-2.0
"""
The Container Runtime Interface, with which a kubelet speaks to containerd: protobuf messages in gRPC calls.

A message is a dict of its fields' values by their numbers, which are those of CRI's api.proto.  A value is a
number, a text, a message or a list of these.
A call is one HTTP/2 POST to a Unix socket, so curl makes it, and no generated code is needed.
"""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from tests.support.skip import need

Message = dict[int, list[int | bytes]]  # a received one: numbers, and the bytes of texts and messages

_VARINT, _BYTES = 0, 2  # the kinds of fields that these messages have


class CallError(Exception):
    """The error that the other end returns: its text."""


def call(socket: Path, method: str, request: "Mapping[int, object]") -> Message:
    """Call one method of the runtime service.  Returns the fields of its answer; raises CallError."""
    need("curl")
    message = encode(request)
    curl = subprocess.run(
        [
            *("curl", "--silent", "--show-error", "--http2-prior-knowledge", "--unix-socket", str(socket)),
            *("--header", "Content-Type: application/grpc", "--header", "TE: trailers"),
            *("--dump-header", "/dev/stderr", "--data-binary", "@-"),
            f"http://localhost/runtime.v1.RuntimeService/{method}",
        ],
        input=b"\0" + len(message).to_bytes(4, "big") + message,  # not compressed
        capture_output=True,
        timeout=120,
    )
    headers = curl.stderr.decode(errors="replace")
    status = re.search(r"^grpc-status: (\d+)", headers, re.M)
    if not status:
        raise ConnectionError(f"{method}: {headers}")
    if status[1] != "0":
        reason = re.search(r"^grpc-message: (.*?)\r?$", headers, re.M)
        raise CallError(unquote(reason[1]) if reason else f"status {status[1]}")
    return decode(curl.stdout[5:])


def encode(message: "Mapping[int, object]") -> bytes:
    return b"".join(_field(number, value) for number, value in message.items())


def _field(number: int, value: object) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value)
    if isinstance(value, list):
        return b"".join(_field(number, item) for item in value)
    if isinstance(value, Mapping):
        value = encode(value)
    elif isinstance(value, str):
        value = value.encode()
    assert isinstance(value, bytes)
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def decode(message: bytes) -> Message:
    """Return the values of each field, in their order."""
    fields: Message = {}
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        value: int | bytes
        value, at = _read_varint(message, at)
        if key & 7 == _BYTES:
            end = at + value
            value, at = message[at:end], end
        else:
            assert key & 7 == _VARINT, f"field {key >> 3} is of a kind that is not supported"
        fields.setdefault(key >> 3, []).append(value)
    return fields


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """Return a number, and the place behind it."""
    number = shift = 0
    while True:
        number |= (message[at] & 0x7F) << shift
        if message[at] < 0x80:
            return number, at + 1
        at, shift = at + 1, shift + 7


def inner(value: int | bytes) -> Message:
    """Return the fields of a message that is the value of a field."""
    assert isinstance(value, bytes)
    return decode(value)


def text(value: int | bytes) -> str:
    assert isinstance(value, bytes)
    return value.decode()
