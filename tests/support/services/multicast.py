# SPDX-License-Identifier: Apache-2.0
"""Programs that speak multicast DNS on an interface, as a responder or a browser of services does."""

import select
import socket
import struct
import time

from tests.support.host.host import Host
from tests.support.host.namespace import Namespace
from tests.support.services import resolving
from tests.support.wait import SILENCE, wait_for

COMMAND = "mdns-keeper"
FOLDER = "/run/cnihook/mdns"
LEAVES = (f"process *{COMMAND}*", f"dir {FOLDER}*", f"file {FOLDER}/socket")
PORT = 5353
GROUPS = {4: "224.0.0.251", 6: "ff02::fb"}
QU = 0x8000  # in the class of a question: the answer may be for its sender alone

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_PTR, _A, _IN = 12, 1, 1


def _name(name: str) -> bytes:
    return b"".join(bytes((len(label),)) + label.encode() for label in name.split(".")) + b"\0"


def query(name: str = "_ipp._tcp.local", *, cls: int = _IN, flags: int = 0, questions: int = 1) -> bytes:
    return struct.pack("!6H", 0, flags, questions, 0, 0, 0) + _name(name) + struct.pack("!HH", _PTR, cls)


def answer(name: str, address: str = "192.0.2.7") -> bytes:
    """Return an announcement, with a pointer in its second record."""
    record = _name(name) + struct.pack("!HHIH", _A, 0x8000 | _IN, 120, 4) + socket.inet_aton(address)
    second = struct.pack("!HHHIH", 0xC00C, _A, _IN, 120, 4) + socket.inet_aton(address)
    return struct.pack("!6H", 0, 0x8400, 0, 2, 0, 0) + record + second


class Heard:
    """A message that has arrived: `hops` is its TTL or hop limit."""

    def __init__(self, data: bytes, source: str, port: int, hops: int) -> None:
        self.data = data
        self.source = source
        self.port = port
        self.hops = hops


class Speaker:
    """A socket in the group on one interface of a namespace."""

    def __init__(
        self, space: Namespace, version: int = 4, ifname: str = "eth0", *, port: int = PORT
    ) -> None:
        self.version = version
        self._index = int(space.link(ifname)["ifindex"])
        self._socket = space.socket(socket.SOCK_DGRAM, _FAMILIES[version])
        one = self._socket
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        group = socket.inet_pton(_FAMILIES[version], GROUPS[version])
        if version == 4:
            way = struct.pack("=4s4xi", bytes(4), self._index)
            one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + way[4:])
            one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, way)
            one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
            one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
            one.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
        else:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.setsockopt(
                socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack("=i", self._index)
            )
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, self._index)
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        one.bind(("", port))
        one.setblocking(False)

    def send(self, *messages: bytes, to: "Heard | None" = None) -> None:
        """Send to the group, or to the sender of a message."""
        address, port = (to.source, to.port) if to else (GROUPS[self.version], PORT)
        target = (address, port) if self.version == 4 else (address, port, 0, self._index)
        for data in messages:
            self._socket.sendto(data, target)

    def heard(self) -> "list[Heard]":
        """Return the messages that have arrived since the last call."""
        messages = []
        while select.select([self._socket], [], [], 0)[0]:
            data, ancillary, _flags, sender = self._socket.recvmsg(1 << 16, 64)
            ((_level, _kind, hops),) = ancillary
            messages.append(Heard(data, sender[0], sender[1], struct.unpack("=i", hops)[0]))
        return messages

    def hears(self, data: bytes) -> Heard:
        """Wait for a message; the ones before it are lost.  It must come once."""

        def arrived() -> "list[Heard]":
            return [one for one in self.heard() if one.data == data]

        (one,) = wait_for(arrived, f"{data!r} arrives")
        return one

    def hears_nothing(self) -> None:
        time.sleep(SILENCE)
        assert [(one.source, one.data) for one in self.heard()] == []

    def close(self) -> None:
        self._socket.close()


def take_port(holder: socket.socket) -> None:
    """Bind a socket to the port for itself.  A keeper that was killed closes its own a little later."""

    def is_bound() -> bool:
        try:
            holder.bind(("", PORT))
        except OSError:
            return False
        return True

    wait_for(is_bound, f"port {PORT} is free")


def keepers(host: Host) -> "list[int]":
    return resolving.keepers(host, COMMAND)


def end_keeper(host: Host) -> None:
    resolving.end_keeper(host, command=COMMAND)
