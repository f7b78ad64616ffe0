# SPDX-License-Identifier: Apache-2.0
"""Real traffic between the namespaces of a test: connections, datagrams, and bare Ethernet frames."""

import socket
import struct
import time

from tests.support.namespace import Namespace
from tests.support.wait import SILENCE, patience

EXPERIMENTAL = 0x88B5  # the EtherType that is free for anybody's use


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def connect(
    client: Namespace, server: Namespace, address: str, timeout: float | None = None, *, port: int = 0
) -> str:
    """Exchange a word over TCP; returns whom the server sees.  Raises OSError where that does not work.

    The port is any one, unless one is given, such as a host's that is passed on as it is.
    """
    timeout = patience() if timeout is None else timeout
    family = family_of(address)
    with server.socket(family=family) as listener, client.socket(family=family) as ours:
        listener.bind(("", port))
        listener.listen()
        ours.settimeout(timeout)
        ours.connect((address, listener.getsockname()[1]))
        theirs, peer = listener.accept()
        with theirs:
            theirs.settimeout(timeout)
            ours.sendall(b"ping")
            assert theirs.recv(16) == b"ping"
            theirs.sendall(b"pong")
            assert ours.recv(16) == b"pong"
        return str(peer[0])


def reaches(
    client: Namespace, server: Namespace, address: str, *, port: int = 0, expected: bool = False
) -> bool:
    """Return True if a connection works.  `expected`: what the test demands, by which it is waited for."""
    try:
        connect(client, server, address, timeout=patience(expected), port=port)
    except OSError:
        return False
    return True


def source_seen(client: Namespace, server: Namespace, address: str) -> str:
    """Whose datagram arrives; needs no way back."""
    family = family_of(address)
    with (
        server.socket(socket.SOCK_DGRAM, family) as theirs,
        client.socket(socket.SOCK_DGRAM, family) as ours,
    ):
        theirs.bind(("", 0))
        ours.sendto(b"ping", (address, theirs.getsockname()[1]))
        return str(theirs.recvfrom(16)[1][0])


def sources_of_strays(
    client: Namespace, server: Namespace, source: str, destination: str, timeout: float = SILENCE
) -> list[str]:
    """Send two segments of no connection, RST and ACK; return the sources of those that arrive in time."""
    family = family_of(destination)
    with (
        server.socket(socket.SOCK_RAW, family, socket.IPPROTO_TCP) as receiver,
        client.socket(socket.SOCK_RAW, family, socket.IPPROTO_TCP) as sender,
    ):
        receiver.settimeout(timeout)
        sender.bind((source, 0))
        for _ in range(2):
            sender.sendto(_stray(source, destination), (destination, 0))
        sources: list[str] = []
        try:
            while len(sources) < 2:
                sources.append(str(receiver.recvfrom(100)[1][0]))
        except TimeoutError:
            pass
        return sources


def _stray(source: str, destination: str) -> bytes:
    family = family_of(source)
    segment = struct.pack("!HHIIBBHHH", 1234, 4321, 7, 7, 5 << 4, 0x14, 512, 0, 0)
    pseudo = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    pseudo += struct.pack("!HH", socket.IPPROTO_TCP, len(segment))  # zeros left out, they add nothing
    total = sum(struct.unpack(f"!{(len(pseudo) + len(segment)) // 2}H", pseudo + segment))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return segment[:16] + struct.pack("!H", ~total & 0xFFFF) + segment[18:]


def packet_socket(namespace: Namespace, link: str) -> socket.socket:
    made = namespace.socket(socket.SOCK_RAW, socket.AF_PACKET, socket.htons(EXPERIMENTAL))
    made.bind((link, EXPERIMENTAL))
    return made


def frame(source: str, destination: str) -> bytes:
    addresses = bytes.fromhex((destination + source).replace(":", ""))
    return addresses + EXPERIMENTAL.to_bytes(2, "big") + b"cnihook".ljust(46, b"\0")


def arrives(receiver: socket.socket, expected: bool = False) -> bool:
    """Return True if a frame comes in; those that it sends itself are not meant.

    `expected`: what the test demands, by which the frame is waited for.
    """
    outgoing = 4
    deadline = time.monotonic() + patience(expected)
    while (left := deadline - time.monotonic()) > 0:
        receiver.settimeout(left)
        try:
            _, address = receiver.recvfrom(2048)
        except TimeoutError:
            return False
        if address[2] != outgoing:
            return True
    return False
