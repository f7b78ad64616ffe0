# SPDX-License-Identifier: Apache-2.0
"""
D-Bus: call methods of a service on the system bus, with strings as arguments.

Nothing more is supported, and no library is used: the D-Bus Specification has the protocol.  A call does not
start a service that is not running.
"""

import _socket
import _struct as struct
import os

_DEFAULT = "unix:path=/var/run/dbus/system_bus_socket"
_BUS, _BUS_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"
_NOBODY = (f"{_BUS}.Error.ServiceUnknown", f"{_BUS}.Error.NameHasNoOwner")
_METHOD_CALL, _METHOD_RETURN, _ERROR = 1, 2, 3
_NO_AUTO_START = 2
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_TIMEOUT = 30.0  # seconds; a service may be busy with something else


class NoServiceError(Exception):
    """There is no bus, or no program on the bus has that name."""


class DBusError(Exception):
    """The service answered with an error, whose text this is."""


class Bus:
    """A connection to the system bus.  Raises NoServiceError if there is none."""

    def __init__(self) -> None:
        address = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or _DEFAULT
        try:
            self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        except OSError as error:
            raise OSError(error.errno, error.strerror, "open a socket for D-Bus") from None
        self._socket.settimeout(_TIMEOUT)
        self._serial = 0
        self._received = b""
        try:
            self._socket.connect(_socket_address(address))
            # EXTERNAL: the bus learns our user ID from the kernel.
            self._socket.sendall(b"\0AUTH EXTERNAL %s\r\n" % str(os.geteuid()).encode().hex().encode())
            answer = self._read_line()
            if not answer.startswith(b"OK "):
                raise NoServiceError(f"{address}: no access to the bus: {answer.decode(errors='replace')}")
            self._socket.sendall(b"BEGIN\r\n")
            self.call(_BUS, _BUS_PATH, _BUS, "Hello")
        except OSError as error:
            self.close()
            raise NoServiceError(f"{address}: {error.strerror or error}") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def call(self, service: str, path: str, interface: str, method: str, *arguments: str) -> "bool | str":
        """Call a method and return the first value of its answer, if that is a boolean or a string; else "".

        Raises NoServiceError if no program has that name, DBusError if the service answers with an error,
        and OSError.
        """
        self._serial += 1
        body = b""
        for argument in arguments:
            body += _padding(body, 4) + _string(argument)
        fields = b""
        for code, kind, value in (
            (_PATH, b"o", _string(path)),
            (_INTERFACE, b"s", _string(interface)),
            (_MEMBER, b"s", _string(method)),
            (_DESTINATION, b"s", _string(service)),
            (_SIGNATURE, b"g", bytes((len(arguments),)) + b"s" * len(arguments) + b"\0"),
        ):
            # Each is a structure: its code, and a variant, which is a signature and a value of it.
            fields += _padding(fields, 8) + struct.pack("BB", code, 1) + kind + b"\0" + value
        head = struct.pack("<cBBBII", b"l", _METHOD_CALL, _NO_AUTO_START, 1, len(body), self._serial)
        self._socket.sendall(head + struct.pack("<I", len(fields)) + fields + _padding(fields, 8) + body)
        while True:
            message = _Message(self)
            if message.reply_to == self._serial:
                break  # all other messages are signals
        if message.kind == _METHOD_RETURN:
            return message.value
        if message.error in _NOBODY:
            raise NoServiceError(f"{service}: {message.value}")
        raise DBusError(str(message.value) or message.error)

    def read(self, size: int) -> bytes:
        while len(self._received) < size:
            chunk = self._socket.recv(1 << 16)
            if not chunk:
                raise OSError("the bus has hung up")
            self._received += chunk
        data, self._received = self._received[:size], self._received[size:]
        return data

    def _read_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\r\n"):
            line += self.read(1)
        return line.rstrip()


class _Message:
    """A message that was received, as far as an answer needs it."""

    def __init__(self, bus: Bus) -> None:
        head = bus.read(16)
        self._order = "<" if head[:1] == b"l" else ">"
        self.kind = head[1]
        body_size, _serial, fields_size = struct.unpack(f"{self._order}III", head[4:])
        fields = bus.read((fields_size + 7) & ~7)
        body = bus.read(body_size)
        self.reply_to = 0
        self.error = ""
        signature = ""
        position = 0
        while position < fields_size:
            code, kind = fields[position], chr(fields[position + 2])
            value, end = self._value(fields, position + 4, kind)
            if code == _REPLY_SERIAL and isinstance(value, int):
                self.reply_to = value
            elif code == _ERROR_NAME:
                self.error = str(value)
            elif code == _SIGNATURE:
                signature = str(value)
            position = (end + 7) & ~7
        value = self._value(body, 0, signature[0])[0] if signature and body else ""
        self.value: bool | str = bool(value) if signature.startswith("b") else str(value)

    def _value(self, data: bytes, position: int, kind: str) -> "tuple[int | str, int]":
        """Return the value of a basic type at a position, and where it ends; empty for an unknown type."""
        if kind == "g":
            end = position + 1 + data[position]
            return data[position + 1 : end].decode(), end + 1
        if kind in "ub":
            return int(struct.unpack_from(f"{self._order}I", data, position)[0]), position + 4
        if kind in "so":
            end = position + 4 + struct.unpack_from(f"{self._order}I", data, position)[0]
            return data[position + 4 : end].decode(errors="replace"), end + 1
        return "", len(data)


def _string(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<I", len(data)) + data + b"\0"


def _padding(data: bytes, size: int) -> bytes:
    return bytes(-len(data) % size)


def _socket_address(address: str) -> str:
    """Return the first unix socket of a list of addresses.  Raises NoServiceError if there is none."""
    for entry in address.split(";"):
        transport, _, rest = entry.partition(":")
        for pair in rest.split(","):
            key, _, value = pair.partition("=")
            if transport == "unix" and key in ("path", "abstract"):
                return ("\0" if key == "abstract" else "") + _unescaped(value)
    raise NoServiceError(f"{address}: it has no unix socket")


def _unescaped(value: str) -> str:
    first, *rest = value.split("%")
    return first + "".join(chr(int(part[:2], 16)) + part[2:] for part in rest)
