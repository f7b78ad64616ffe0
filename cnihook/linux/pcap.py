# SPDX-License-Identifier: Apache-2.0
"""
Record the packets of a network namespace, as `tcpdump -i any -w FILE` would inside it.

One packet socket receives from all interfaces, including later ones.  The file is pcapng with Ethernet
frames, so it has MAC addresses, VLANs and the interfaces' names.
"""

import _struct as struct
import os
import select
import time
from _socket import AF_PACKET, SO_RCVBUF, SOCK_RAW, SOL_SOCKET, socket

from cnihook.linux.netns import NetNS
from cnihook.process import signals
from cnihook.process.daemonize import daemonize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

# <linux/if_ether.h>, <linux/if_arp.h>
_ETH_P_ALL, _ETH_P_8021Q = 3, 0x8100
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
# <linux/if_packet.h>
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_AUXDATA = 263, 6, 8
_TO_US, _BROADCAST, _MULTICAST, _OTHERHOST, _OUTGOING = 0, 1, 2, 3, 4
_VLAN_VALID, _VLAN_TPID_VALID = 1 << 4, 1 << 6
# <asm-generic/socket.h>
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_MSG_TRUNC, _MSG_DONTWAIT = 0x20, 0x40

_QUEUE = 64 << 20  # bytes that may wait in the kernel
_LONGEST = 256 << 10  # bytes that an interface passes on at once, as one packet; also pcapng's snaplen
_ANCILLARY = 256


class Capture:
    """A separate process that writes packets until finish(), or until this process has ended."""

    def __init__(self, namespace: NetNS, file: int) -> None:
        """Start to capture.  No packet is missed from this call on, even if it is written later.

        The new process gets the descriptor `file`; it is closed in this one.
        """
        with namespace.entered():
            heard = socket(AF_PACKET, SOCK_RAW, _ETH_P_ALL << 8)  # in network order
        heard.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        heard.setsockopt(SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        try:
            heard.setsockopt(SOL_SOCKET, _SO_RCVBUFFORCE, _QUEUE)
        except PermissionError:  # the root of an ordinary user's namespace gets what the system allows
            heard.setsockopt(SOL_SOCKET, SO_RCVBUF, _QUEUE)
        end, self._end = os.pipe()
        self._report, report = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            try:
                signals.ignore_interrupts()
                daemonize(heard.fileno(), file, end, report)
                os.write(report, _record(heard, file, end).encode())
            finally:
                os._exit(0)
        heard.close()
        for fd in (file, end, report):
            os.close(fd)

    def finish(self) -> str:
        """Have the process write what has arrived so far, and end.  Returns the problem, if any, as text."""
        os.close(self._end)
        problem = b""
        while chunk := os.read(self._report, 4096):
            problem += chunk
        os.close(self._report)
        os.waitpid(self._pid, 0)
        return problem.decode()


def _record(heard: socket, file: int, end: int) -> str:
    waiting = select.poll()
    waiting.register(heard.fileno(), select.POLLIN)
    waiting.register(end, 0)  # its other end is closed
    until = 0
    try:
        with open(file, "wb", buffering=1 << 20) as opened:
            written = Writer(opened)
            while not until:
                if any(fd == end for fd, _ in waiting.poll()):
                    until = time.time_ns()
                while written.take(heard, until):
                    pass
                opened.flush()  # for programs that read the file already
            lost = struct.unpack("II", heard.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]
            written.statistics(lost)
    except OSError as error:
        return error.strerror or str(error)
    return f"{lost} packets are missing: they came faster than they could be written" if lost else ""


class Writer:
    """A pcapng file of one section (draft-ietf-opsawg-pcapng).  Numbers are in this machine's byte order."""

    def __init__(self, file: "BinaryIO") -> None:
        self._file = file
        self._interfaces: dict[str, int] = {}
        self._buffer = memoryview(bytearray(_LONGEST))
        self._block(0x0A0D0D0A, struct.pack("=IHHq", 0x1A2B3C4D, 1, 0, -1))

    def take(self, heard: socket, until: int = 0) -> bool:
        """Write the next packet.  Return False if there is none, or none before the time `until` in ns."""
        try:
            length, ancillary, _, (ifname, protocol, kind, hardware, _) = heard.recvmsg_into(
                [self._buffer], _ANCILLARY, _MSG_TRUNC | _MSG_DONTWAIT
            )
        except BlockingIOError:
            return False
        stamp, tag = _read_ancillary(ancillary)
        if until and stamp > until:
            return False
        if hardware == _ARPHRD_LOOPBACK and kind == _OUTGOING:
            return True  # it comes again, as a received packet
        frame = self._buffer[: min(length, _LONGEST)]
        if hardware not in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK):
            head = bytes(12) + struct.pack("!H", protocol)  # a tunnel, whose frames have no addresses
        else:
            head = bytes(frame[:12]) + tag if tag else b""
            frame = frame[12:] if tag else frame
        self.packet(ifname, stamp, kind, head, frame, length + len(head) - (12 if tag else 0))
        return True

    def packet(
        self, ifname: str, stamp: int, kind: int, head: bytes, frame: "bytes | memoryview", length: int
    ) -> None:
        """Write one packet: `head` and `frame` together.

        `length`: its bytes before it was cut.  `kind`: the kernel's packet type.
        """
        size = len(head) + len(frame)
        fields = struct.pack(
            "=IIIII", self._interface(ifname), stamp >> 32, stamp & 0xFFFFFFFF, size, length
        )
        direction = 2 if kind == _OUTGOING else 1
        received = {_TO_US: 1, _MULTICAST: 2, _BROADCAST: 3, _OTHERHOST: 4}.get(kind, 0)
        flags = _option(2, struct.pack("=I", direction | received << 2))
        self._block(6, fields, head, frame, bytes(-size % 4), flags, _option(0))

    def statistics(self, lost: int) -> None:
        """Write how many packets are missing.  The kernel does not report on which interface they came."""
        if self._interfaces:
            now = time.time_ns()
            fields = struct.pack("=III", 0, now >> 32, now & 0xFFFFFFFF)
            self._block(5, fields, _option(5, struct.pack("=Q", lost)), _option(0))

    def _interface(self, ifname: str) -> int:
        number = self._interfaces.get(ifname)
        if number is None:
            number = self._interfaces[ifname] = len(self._interfaces)
            fields = struct.pack("=HHI", 1, 0, _LONGEST)  # LINKTYPE_ETHERNET
            named = _option(2, ifname.encode()) if ifname else b""
            self._block(1, fields, named, _option(9, b"\x09"), _option(0))  # times are in ns
        return number

    def _block(self, kind: int, *parts: "bytes | memoryview") -> None:
        total = struct.pack("=I", 12 + sum(map(len, parts)))
        self._file.write(b"".join([struct.pack("=I", kind), total, *parts, total]))


def _option(code: int, value: bytes = b"") -> bytes:
    return struct.pack("=HH", code, len(value)) + value + bytes(-len(value) % 4)


def _read_ancillary(messages: "list[tuple[int, int, bytes]]") -> "tuple[int, bytes]":
    """Return when the packet came, in ns since 1970, and the VLAN tag that the kernel took out."""
    stamp, tag = 0, b""
    for level, kind, data in messages:
        if (level, kind) == (SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, rest = struct.unpack("ll", data)
            stamp = seconds * 10**9 + rest
        elif (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
            status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", data)
            if status & _VLAN_VALID:
                tag = struct.pack("!HH", tpid if status & _VLAN_TPID_VALID else _ETH_P_8021Q, tci)
    return stamp or time.time_ns(), tag
