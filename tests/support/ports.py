# SPDX-License-Identifier: Apache-2.0
"""Containers with published ports, and traffic through these."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support import bridge
from tests.support.cni import with_previous_result
from tests.support.host import ACCEPT_DAD, Container, Host
from tests.support.namespace import Namespace
from tests.support.traffic import family_of
from tests.support.wait import patience

SUBNET, SUBNET6 = "10.9.0.0/24", "2001:db8:9::/64"
GATEWAY, GATEWAY6 = "10.9.0.1", "2001:db8:9::1"
DEFAULT, DEFAULT6 = {"dst": "0.0.0.0/0"}, {"dst": "::/0"}

# The chains of iptables that the reference makes once and keeps, and what they share with its `bridge`.
REFERENCE_KEEPS = [
    f"nft: table {family} nat / chain {chain}*"
    for family in ("ip", "ip6")
    for chain in ("CNI-HOSTPORT-", "PREROUTING", "OUTPUT", "POSTROUTING")
]


def network(*subnets: str, **keys: Any) -> dict[str, Any]:
    """The first of the chain: a bridge whose containers reach the world."""
    routes = [DEFAULT, DEFAULT6][: len(subnets)]
    made: dict[str, Any] = {"isGateway": True, "ipMasq": True, "ipam": {"routes": routes}}
    return bridge.network(*subnets, **made | keys)


def mapping(host: int, container: int = 80, protocol: str = "tcp", ip: str | None = None) -> dict[str, Any]:
    made = {"hostPort": host, "containerPort": container, "protocol": protocol}
    return made if ip is None else made | {"hostIP": ip}


def conf(*mappings: Any, version: str = "1.0.0", name: str = "net1", **keys: Any) -> dict[str, Any]:
    made = {"cniVersion": version, "name": name, "type": "portmap", "capabilities": {"portMappings": True}}
    if mappings:
        made["runtimeConfig"] = {"portMappings": list(mappings)}
    return made | keys


def attach(
    host: Host, *subnets: str, container: Container | None = None, **keys: Any
) -> tuple[Container, Any]:
    """A container on the bridge; and the result."""
    container = container or host.container()
    container.run("sh", "-c", f"echo 0 > {ACCEPT_DAD}")  # or the reference waits for two seconds
    if host.implementation and host.implementation.name == "reference":
        host.leaves(*REFERENCE_KEEPS)
    return bridge.add(host, network(*(subnets or (SUBNET,)), **keys), container)


def publish(host: Host, container: Container, result: Any, sent: Any) -> Any:
    """ADD behind the bridge.  Returns what DEL and CHECK are sent: with the result."""
    return with_previous_result(sent, host.cni("ADD", sent | {"prevResult": result}, container))


def published(host: Host, *mappings: Any, subnets: tuple[str, ...] = (SUBNET,), **keys: Any) -> Container:
    """A container on the bridge, with these ports published."""
    container, result = attach(host, *subnets)
    publish(host, container, result, conf(*mappings, **keys))
    return container


def seen(
    client: Namespace,
    server: Namespace,
    address: str,
    port: int,
    target: int = 80,
    *,
    protocol: str = "tcp",
    timeout: float | None = None,
) -> str:
    """Talk to a port of the host; returns whom the server sees.  Raises OSError where that does not work."""
    timeout = patience() if timeout is None else timeout
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    how = kind, family_of(address), socket.IPPROTO_SCTP if protocol == "sctp" else 0
    with server.socket(*how) as listener, client.socket(*how) as ours:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", target))
        listener.settimeout(timeout)
        ours.settimeout(timeout)
        if protocol == "udp":
            ours.connect((address, port))
            ours.send(b"ping")
            word, peer = listener.recvfrom(16)
            listener.sendto(b"pong", peer)
        else:
            listener.listen()
            ours.connect((address, port))
            theirs, peer = listener.accept()
            with theirs:
                theirs.settimeout(timeout)
                ours.sendall(b"ping")
                word = theirs.recv(16)
                theirs.sendall(b"pong")
                assert ours.recv(16) == b"pong"
                return str(peer[0])
        assert word == b"ping" and ours.recv(16) == b"pong"
        return str(peer[0])


def reached(
    client: Namespace,
    server: Namespace,
    address: str,
    port: int,
    target: int = 80,
    *,
    expected: bool = False,
) -> bool:
    """Return True if a connection works.  `expected`: what the test demands, by which it is waited for."""
    try:
        seen(client, server, address, port, target, timeout=patience(expected))
    except OSError:
        return False
    return True


# The host's own programs stand in: each sleeps, and has a socket that listens.
LISTENER = """\
import os, socket, sys, time
kind, family, own, only_v6 = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
one = socket.socket(getattr(socket, family), socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
if family == "AF_INET6":
    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_v6)
one.bind((own, 8080))
if kind == "tcp":
    one.listen()
print(os.getpid(), flush=True)
time.sleep(1000)
"""


@contextmanager
def listening(
    host: Host, kind: str = "tcp", own: str = "0.0.0.0", *, only_v6: bool = False
) -> Iterator[int]:
    """A process of the host that listens on port 8080.  Its PID as the host sees it."""
    family = "AF_INET6" if ":" in own else "AF_INET"
    words = ["/usr/bin/python3", "-IS", "-c", LISTENER, kind, family, own, str(int(only_v6))]
    with host.popen(*words) as process:
        try:
            assert process.stdout
            yield int(process.stdout.readline())
        finally:
            process.kill()
