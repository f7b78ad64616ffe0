# SPDX-License-Identifier: Apache-2.0
"""
DHCP on a link without an address: whole IPv4 packets, without the kernel's IP.

An ordinary UDP socket neither sends from 0.0.0.0 nor receives what is sent to an address that is not set
yet.
"""

import _socket
import errno
import struct
from array import array

from cnihook.dhcp.message import NOBODY, Message
from cnihook.fast.address import Address
from cnihook.linux.netns import NetNS
from cnihook.linux.rtnl import Link

BROADCAST_MAC = b"\xff" * 6
EVERYBODY = Address(b"\xff" * 4)
CLIENT, SERVER = 68, 67  # ports

_ETH_P_IP = 0x0800  # <linux/if_ether.h>
_SO_ATTACH_FILTER = 26  # <asm-generic/socket.h>
_IP = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_IP_WITHOUT_OPTIONS, _TTL, _IPPROTO_UDP = 0x45, 64, 17

# <linux/bpf_common.h>: code, jump if true, jump if false, constant.  Offsets are from the IP header on.
# Without it, all traffic of a busy container would be queued here, and the answer in it could be lost.
_FILTER = (
    (0x30, 0, 0, 9),  # the protocol
    (0x15, 0, 6, _IPPROTO_UDP),  # is UDP
    (0x28, 0, 0, 6),  # flags and offset of the fragment
    (0x45, 4, 0, 0x1FFF),  # it is the first
    (0xB1, 0, 0, 0),  # the IP header's length
    (0x48, 0, 0, 2),  # the port behind it
    (0x15, 0, 1, CLIENT),  # is the client's
    (0x06, 0, 0, 0xFFFF),  # take all of it
    (0x06, 0, 0, 0),  # take nothing
)


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return total ^ 0xFFFF


def packet(payload: bytes, source: Address, destination: Address) -> bytes:
    """Return a client's datagram to a server as an IPv4 packet."""
    length = _UDP.size + len(payload)
    pseudo = struct.pack("!4s4sHH", source, destination, _IPPROTO_UDP, length)
    udp = checksum(pseudo + _UDP.pack(CLIENT, SERVER, length, 0) + payload)
    fields = [
        _IP_WITHOUT_OPTIONS, 0, _IP.size + length, 0, 0, _TTL, _IPPROTO_UDP, 0, source, destination
    ]  # fmt: skip
    fields[7] = checksum(_IP.pack(*fields))
    # A sum of 0 is sent in its other form, because 0 means that there is no sum.
    return _IP.pack(*fields) + _UDP.pack(CLIENT, SERVER, length, udp or 0xFFFF) + payload


def payload(data: bytes) -> bytes:
    """Return the payload of a packet that the filter accepted.  Raises ValueError if it is not whole.

    Its checksum is not verified: a server on this machine leaves it to a network card that does not exist.
    """
    if len(data) < _IP.size or data[0] >> 4 != 4:
        raise ValueError("this is not an IPv4 packet")
    header = (data[0] & 0xF) * 4
    if len(data) < header + _UDP.size:
        raise ValueError("this is not a UDP packet")
    length = _UDP.unpack_from(data, header)[2]
    if not _UDP.size <= length <= len(data) - header:
        raise ValueError("this is a part of a packet")
    return data[header + _UDP.size : header + length]


class Channel:
    """A socket that sends and receives DHCP on a link.  While it is open, it keeps the namespace alive."""

    def __init__(self, namespace: NetNS, link: Link) -> None:
        kind = _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        self._name = link.name
        with namespace.entered():
            self.socket = _socket.socket(_socket.AF_PACKET, kind, 0)  # 0: it receives nothing until bind()
        try:
            code = array("B", b"".join(struct.pack("=HBBI", *line) for line in _FILTER))
            program = struct.pack("@HP", len(_FILTER), code.buffer_info()[0])
            self.socket.setsockopt(_socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
            self.socket.bind((link.name, _ETH_P_IP))
        except BaseException:
            self.socket.close()
            raise

    def close(self) -> None:
        self.socket.close()

    def send(
        self,
        message: Message,
        source: Address = NOBODY,
        destination: Address = EVERYBODY,
        mac: bytes = BROADCAST_MAC,
    ) -> None:
        data = packet(message.encode(), source, destination)
        self.socket.sendto(data, (self._name, _ETH_P_IP, 0, 0, mac))

    async def readable(self) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self.socket.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self.socket.fileno())

    def receive(self) -> "tuple[Message, bytes] | None":
        """Return the next message and the MAC address of its sender; None if there is none yet."""
        while True:
            try:
                data, address = self.socket.recvfrom(1 << 16)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno == errno.ENETDOWN:  # reported once whenever the link goes down
                    return None
                raise
            try:
                return Message.decode(payload(data)), address[4]
            except ValueError:
                continue  # it is not a DHCP message
