# SPDX-License-Identifier: Apache-2.0
"""
Netlink messages: one socket, requests and their answers, attributes packed and unpacked.

Written out here because the library that does this well, pyroute2, takes 110 to 150 ms to import, and all
the kernel work of attaching a container takes 2.  <linux/netlink.h> has the formats.
"""

import _socket
import _struct as struct
import errno
import os

from cnihook.fast import descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# <linux/netlink.h>
NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK, NLM_F_DUMP_INTR = 0x1, 0x2, 0x4, 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLMSG_NOOP, NLMSG_ERROR, NLMSG_DONE, NLMSG_OVERRUN = 1, 2, 3, 4
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 16, 17  # <linux/netfilter/nfnetlink.h>
NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF
_NLMSGERR_ATTR_MSG = 1
_SOL_NETLINK, _NETLINK_NO_ENOBUFS, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 270, 5, 11, 12
_SO_SNDBUF, _SO_SNDBUFFORCE, _SO_NETNS_COOKIE = 7, 32, 71  # <asm-generic/socket.h>

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTR = struct.Struct("=HH")  # length, type
# By their own names, because a start reads some 600 attributes and writes 60.
_pack_attr, _unpack_attr = _ATTR.pack, _ATTR.unpack_from
_PADDING = (b"", b"\0", b"\0\0", b"\0\0\0")
_DUMP_TRIES = 5
_SMALL = 16 << 10  # bytes that any socket buffer holds


class NetlinkError(OSError):
    """The kernel refused a request: errno and strerror are its reason, `filename` is what was requested."""

    def __init__(self, code: int, what: str, detail: str = "") -> None:
        reason = os.strerror(code)
        super().__init__(code, f"{reason} ({detail.rstrip('.')})" if detail else reason, what)

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


def attr(kind: int, data: bytes) -> bytes:
    length = 4 + len(data)
    return _pack_attr(length, kind) + data + _PADDING[-length % 4]


def nested(kind: int, *attrs: bytes) -> bytes:
    return attr(kind | NLA_F_NESTED, b"".join(attrs))


def text(kind: int, value: str) -> bytes:
    return attr(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    return attr(kind, value.to_bytes(1, "little"))


def u16(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack("=H", value))


def s32(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack("=i", value))


def u32(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack("=I", value))


def attributes(data: bytes, offset: int = 0) -> "dict[int, bytes]":
    """Return the attributes from `offset` on, by type; of a repeated one, the last."""
    attrs = {}
    unpack, end = _unpack_attr, len(data) - 3
    while offset < end:
        length, kind = unpack(data, offset)
        if length < 4:
            break
        attrs[kind & _NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return attrs


def read_text(data: "bytes | None") -> str:
    return data.partition(b"\0")[0].decode(errors="replace") if data else ""


def read_u32(data: "bytes | None") -> int:
    return int(struct.unpack_from("=I", data)[0]) if data else 0


class Netlink:
    """A socket of one netlink family.  It stays in the network namespace in which it was made."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        try:
            self._socket = _socket.socket(
                _socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, protocol
            )
            self._socket.bind((0, 0))
        except OSError as error:
            raise NetlinkError(error.errno or 0, "open a netlink socket") from None
        self._protocol = protocol
        self._sequence = 0
        for option in (_NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            try:
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            except OSError:
                pass  # an older kernel, whose errors have no text with the reason

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        descriptor.close(self._socket.detach())

    def _namespace(self) -> bytes:
        """Return the kernel's number for the namespace; empty with Linux before 5.14."""
        try:
            return self._socket.getsockopt(_socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        except OSError:
            return b""

    def request(self, kind: int, flags: int, body: bytes, what: str) -> "list[bytes]":
        """Send one request and return the bodies of its answer.

        `what` describes the request; the NetlinkError of a refusal begins with it.
        """
        for _attempt in range(_DUMP_TRIES):
            self._ask(kind, flags, body, what)
            bodies, interrupted = self._answer(what)
            if not interrupted:
                break
        return bodies  # a dump that changed during each try is used as it is: every part of it was true

    def _ask(self, kind: int, flags: int, body: bytes, what: str) -> None:
        self._sequence += 1
        length = _HEADER.size + len(body)
        message = _HEADER.pack(length, kind, flags | NLM_F_REQUEST | NLM_F_ACK, self._sequence, 0) + body
        try:
            self._socket.send(message)
        except OSError as error:
            raise NetlinkError(error.errno or 0, what) from None

    def stream(self, kind: int, body: bytes, what: str) -> "Iterator[bytes]":
        """Yield the bodies of a dump as they come.  A caller that closes the iterator ends the dump.

        The kernel prepares 4 KiB at first, two links, and the next part when one is read.  It ends a dump
        early only with its socket.  So the dump has an own socket: call this in the namespace of the first.
        After a change of what is listed, the dump starts again.  It then yields some bodies twice.
        """
        other = Netlink(self._protocol)
        try:
            if other._namespace() != self._namespace():
                raise NetlinkError(errno.EXDEV, what, "this process is in another network namespace")
            for _attempt in range(_DUMP_TRIES):
                other._ask(kind, NLM_F_DUMP, body, what)
                is_last = interrupted = False
                while not is_last:
                    bodies: list[bytes] = []
                    is_last, is_interrupted = other._receive(bodies, what)
                    interrupted = interrupted or is_interrupted
                    yield from bodies
                if not interrupted:
                    return
        finally:
            other.close()

    def transaction(self, subsystem: int, messages: "list[tuple[int, int, bytes]]", what: str) -> None:
        """Send (type, flags, body) of several requests to nfnetlink, which does all of them or none.

        Requests that do not fit into one datagram become several transactions, if the caller may not enlarge
        the buffer of the socket.
        """
        if not messages:
            return
        self._sequence += 1
        # All have one sequence number, so _answer() sees the answer to any of them, and a refusal of the
        # whole.  The kernel answers in order, and always reports a refusal.  Only the last request asks for
        # an acknowledgement, so the first answer is that of the transaction.  An acknowledgement for each
        # request would fill the receive buffer at 300.
        edge = bytes(2) + struct.pack(">H", subsystem)
        last, last_flags, last_body = messages[-1]
        packet = b"".join(
            _HEADER.pack(_HEADER.size + len(body), kind, flags | NLM_F_REQUEST, self._sequence, 0) + body
            for kind, flags, body in [
                (NFNL_MSG_BATCH_BEGIN, 0, edge),
                *messages[:-1],
                (last, last_flags | NLM_F_ACK, last_body),
                (NFNL_MSG_BATCH_END, 0, edge),
            ]
        )
        if self._send(packet, what):
            self._answer(what)
        else:
            middle = len(messages) // 2
            self.transaction(subsystem, messages[:middle], what)
            self.transaction(subsystem, messages[middle:], what)

    def _send(self, packet: bytes, what: str) -> bool:
        """Send a packet; return False if it is larger than the socket's buffer may be."""
        if len(packet) > _SMALL:
            # The refusals of all requests would overflow the receive buffer; the first of them is enough.
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
            for option in (_SO_SNDBUF, _SO_SNDBUFFORCE):  # the second is for root, and exceeds wmem_max
                try:
                    self._socket.setsockopt(_socket.SOL_SOCKET, option, len(packet) + _SMALL)
                except PermissionError:
                    pass
        try:
            self._socket.send(packet)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                return False
            raise NetlinkError(error.errno or 0, what) from None
        return True

    def _received(self, what: str) -> bytes:
        try:
            return self._socket.recv(1 << 16)
        except OSError as error:
            raise NetlinkError(error.errno or 0, what) from None

    def _answer(self, what: str) -> "tuple[list[bytes], bool]":
        bodies: list[bytes] = []
        interrupted = False
        while True:
            is_last, is_interrupted = self._receive(bodies, what)
            interrupted = interrupted or is_interrupted
            if is_last:
                return bodies, interrupted

    def _receive(self, bodies: "list[bytes]", what: str) -> "tuple[bool, bool]":
        """Add the bodies of one packet to `bodies`.

        Returns True if the answer ends with it, and True if a change interrupted the dump.
        """
        interrupted = False
        packet = self._received(what)  # the kernel fills at most 32 KiB of a dump at a time
        offset = 0
        while offset + _HEADER.size <= len(packet):
            length, kind, flags, sequence, _port = _HEADER.unpack_from(packet, offset)
            body = packet[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3
            if sequence != self._sequence:
                continue  # the rest of an answer that an exception cut short
            interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
            if kind == NLMSG_ERROR:
                code = -struct.unpack_from("=i", body)[0]
                if code:
                    raise NetlinkError(code, what, _reason(body, flags))
                return True, interrupted
            if kind == NLMSG_DONE:
                code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                if code:
                    raise NetlinkError(code, what)
                return True, interrupted
            if kind == NLMSG_OVERRUN:
                raise NetlinkError(errno.ENOBUFS, what)
            if kind != NLMSG_NOOP:
                bodies.append(body)
        return False, interrupted


_netfilter: "Netlink | None" = None


def netfilter() -> Netlink:
    """Return the process's socket for nftables and for the kernel's flows.

    It stays open, because its close may wait: see linux.nft.
    """
    global _netfilter
    if not _netfilter:
        _netfilter = Netlink(NETLINK_NETFILTER)
    return _netfilter


def reopen_netfilter() -> None:
    """Open a new socket for the next request, after setns(): the old one is of the previous namespace."""
    global _netfilter
    if _netfilter:
        _netfilter.close()
    _netfilter = None


class OtherNetfilter:
    """A context in which netfilter() is a socket of another namespace, in which its block runs."""

    def __init__(self) -> None:
        self._home: Netlink | None = None

    def __enter__(self) -> None:
        global _netfilter
        self._home, _netfilter = _netfilter, None

    def __exit__(self, *_error: object) -> None:
        global _netfilter
        if _netfilter:
            _netfilter.close()
        _netfilter = self._home


def netfilter_descriptors() -> "list[int]":
    """Return the descriptor of the socket, if it is open: while a child has it, a close does not wait."""
    return [_netfilter.fileno()] if _netfilter else []


def _reason(body: bytes, flags: int) -> str:
    """Return the kernel's own sentence on a refusal (extended acknowledgements); empty if it has none."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    echoed = _HEADER.unpack_from(body, 4)[0]
    offset = 4 + (_HEADER.size if flags & NLM_F_CAPPED else (echoed + 3) & ~3)
    return read_text(attributes(body, offset).get(_NLMSGERR_ATTR_MSG))
