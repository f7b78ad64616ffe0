# SPDX-License-Identifier: Apache-2.0
"""Real traffic between the namespaces of a test: connections, datagrams, and bare Ethernet frames."""

import socket
import struct
import time

from tests.support.host.namespace import Namespace
from tests.support.wait import SILENCE, patience

EXPERIMENTAL = 0x88B5  # the EtherType for local experiments


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def connect(
    client: Namespace, server: Namespace, address: str, timeout: float | None = None, *, port: int = 0
) -> str:
    """Exchange data over TCP.  Returns the client's address as the server sees it.

    `port`: by default any free port of the server.  Raises OSError if that fails.
    """
    timeout = patience() if timeout is None else timeout
    family = family_of(address)
    with server.socket(family=family) as listener, client.socket(family=family) as client_end:
        listener.bind(("", port))
        listener.listen()
        client_end.settimeout(timeout)
        client_end.connect((address, listener.getsockname()[1]))
        server_end, peer = listener.accept()
        with server_end:
            server_end.settimeout(timeout)
            client_end.sendall(b"ping")
            assert server_end.recv(16) == b"ping"
            server_end.sendall(b"pong")
            assert client_end.recv(16) == b"pong"
        return str(peer[0])


def reaches(
    client: Namespace, server: Namespace, address: str, *, port: int = 0, expected: bool = False
) -> bool:
    """Return True if a connection works.  `expected`: the test's expectation, which sets the timeout."""
    try:
        connect(client, server, address, timeout=patience(expected), port=port)
    except OSError:
        return False
    return True


def source_seen(client: Namespace, server: Namespace, address: str) -> str:
    """Send a datagram.  Returns its source address as the server sees it; no answer is sent."""
    family = family_of(address)
    with (
        server.socket(socket.SOCK_DGRAM, family) as receiver,
        client.socket(socket.SOCK_DGRAM, family) as sender,
    ):
        receiver.bind(("", 0))
        sender.sendto(b"ping", (address, receiver.getsockname()[1]))
        return str(receiver.recvfrom(16)[1][0])


def sources_of_strays(
    client: Namespace, server: Namespace, source: str, destination: str, timeout: float = SILENCE
) -> list[str]:
    """Send two segments, RST and ACK, without a connection.  Returns the sources of those that arrive."""
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
    pseudo += struct.pack(
        "!HH", socket.IPPROTO_TCP, len(segment)
    )  # without its zeros, which do not change the sum
    total = sum(struct.unpack(f"!{(len(pseudo) + len(segment)) // 2}H", pseudo + segment))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return segment[:16] + struct.pack("!H", ~total & 0xFFFF) + segment[18:]


def packet_socket(namespace: Namespace, link: str) -> socket.socket:
    opened = namespace.socket(socket.SOCK_RAW, socket.AF_PACKET, socket.htons(EXPERIMENTAL))
    opened.bind((link, EXPERIMENTAL))
    return opened


def frame(source: str, destination: str) -> bytes:
    addresses = bytes.fromhex((destination + source).replace(":", ""))
    return addresses + EXPERIMENTAL.to_bytes(2, "big") + b"cnihook".ljust(46, b"\0")


def arrives(receiver: socket.socket, expected: bool = False) -> bool:
    """Return True if a frame arrives; frames that this socket sends do not count.

    `expected`: the test's expectation, which sets the timeout.
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
