# SPDX-License-Identifier: Apache-2.0
"""
The socket on one interface for one IP version: it is in the group of multicast DNS there.

A membership is bound to the interface and to the address of the group.  So it hears no other interface, and
takes no message from another responder of the host, such as avahi-daemon, which has port 5353 of all
addresses.
"""

import socket
import struct

from cnihook.fast.address import Address, IPNet
from cnihook.linux.rtnl import Link
from cnihook.mdns import message

GROUP = {4: "224.0.0.251", 6: "ff02::fb"}
PORT = 5353
HOPS = 255  # RFC 6762, 11: a packet that has this number has passed no router
RATE, BURST = 250, 500  # messages per second, and at once

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_SO_BINDTOIFINDEX = 62  # <asm-generic/socket.h>
_IP_RECVTTL, _IP_MULTICAST_ALL, _IP_TTL = 12, 49, 2  # <linux/in.h>
_IPV6_MULTICAST_ALL = 29  # <linux/in6.h>
_NUMBER = struct.Struct("=i")


class Packet:
    """A received message.  `port` and `source` are those of its sender, `hops` the TTL or hop limit."""

    __slots__ = ("data", "hops", "port", "source")

    def __init__(self, data: bytes, source: Address, port: int, hops: int) -> None:
        self.data = data
        self.source = source
        self.port = port
        self.hops = hops


class Membership:
    """A socket in the group, on a link that has `nets` as its addresses of this IP version."""

    def __init__(self, link: Link, version: int, nets: "list[IPNet]") -> None:
        self.index = link.index
        self.version = version
        self.nets = nets
        self.limit = Limit()
        self.socket = open_socket(version, link.index)
        try:
            self._join()
        except BaseException:
            self.socket.close()
            raise

    def _join(self) -> None:
        group = socket.inet_pton(_FAMILY[self.version], GROUP[self.version])
        # Not SO_REUSEPORT: the kernel would divide the messages among the sockets that have it.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.version == 4:
            self.socket.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
            joining = struct.pack("=4s4xi", group, self.index)
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joining)
        else:
            self.socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
            joining = struct.pack("=16si", group, self.index)
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, joining)
        self.socket.bind(destination(self.version, self.index))

    def receive(self) -> "Packet | None":
        """Return the next message; None for one that is too long.  Raises OSError if there is none."""
        return receive(self.socket)

    def send(self, data: bytes, to: "tuple[Address, int] | None" = None) -> None:
        """Send a message to the group, or to an address and port."""
        address, port = to or (GROUP[self.version], PORT)
        try:
            self.socket.sendto(data, destination(self.version, self.index, str(address), port))
        except OSError:
            pass  # the interface has just lost its address or its carrier; UDP may lose a message anyway

    def close(self) -> None:
        self.socket.close()


def open_socket(version: int, index: int) -> socket.socket:
    """Return a socket that sends and receives on one interface only, and not what it sends itself."""
    one = socket.socket(_FAMILY[version], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    options: list[tuple[int, int, int]] = [(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, index)]
    if version == 4:
        options += [
            (socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0),
            (socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, HOPS),
            (socket.IPPROTO_IP, _IP_RECVTTL, 1),
        ]
    else:
        options += [
            (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1),
            (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index),
            (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0),
            (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, HOPS),
            (socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1),
        ]
    try:
        for option in options:
            one.setsockopt(*option)
        if version == 4:
            one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=8xi", index))
    except BaseException:
        one.close()
        raise
    return one


def destination(
    version: int, index: int, address: str = "", port: int = PORT
) -> "tuple[str, int] | tuple[str, int, int, int]":
    """Return an address on a link as a socket takes it; that of the group, if none is given."""
    address = address or GROUP[version]
    return (address, port) if version == 4 else (address, port, 0, index)


def receive(one: socket.socket) -> "Packet | None":
    """Return the next message; None for one that is too long.  Raises OSError if there is none."""
    data, ancillary, flags, sender = one.recvmsg(message.LONGEST, socket.CMSG_SPACE(_NUMBER.size))
    if flags & socket.MSG_TRUNC:
        return None
    hops = 0
    for _level, kind, value in ancillary:
        if kind in (_IP_TTL, socket.IPV6_HOPLIMIT) and len(value) >= _NUMBER.size:
            (hops,) = _NUMBER.unpack_from(value)
    return Packet(data, Address.parse(sender[0].partition("%")[0]), sender[1], hops)


def is_from_link(packet: Packet, nets: "list[IPNet]") -> bool:
    """Return True if a packet comes from a machine on a link, which has these addresses of the host."""
    source = packet.source
    if any(source == net.address for net in nets):
        return False
    return packet.hops == HOPS or source.is_link_local or any(source in net for net in nets)


class Limit:
    """The number of messages that may be received now: RATE for each second, and BURST at most."""

    def __init__(self) -> None:
        self._left = float(BURST)
        self._since = 0.0

    def take(self, now: float) -> bool:
        """Return True if one more message may be received at this time, in seconds."""
        self._left = min(BURST, self._left + RATE * (now - self._since))
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
