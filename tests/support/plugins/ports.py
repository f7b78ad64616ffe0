# SPDX-License-Identifier: Apache-2.0
"""Containers with published ports, and traffic to the ports."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.host.host import ACCEPT_DAD, Container, Host
from tests.support.host.namespace import Namespace
from tests.support.host.sockets import family_of
from tests.support.plugins import bridge
from tests.support.plugins.cni import with_previous_result
from tests.support.wait import patience

SUBNET, SUBNET6 = "10.9.0.0/24", "2001:db8:9::/64"
GATEWAY, GATEWAY6 = "10.9.0.1", "2001:db8:9::1"
DEFAULT, DEFAULT6 = {"dst": "0.0.0.0/0"}, {"dst": "::/0"}

# The iptables chains that the reference makes once and keeps, and those that its `bridge` uses, too.
REFERENCE_KEEPS = [
    f"nft: table {family} nat / chain {chain}*"
    for family in ("ip", "ip6")
    for chain in ("CNI-HOSTPORT-", "PREROUTING", "OUTPUT", "POSTROUTING")
]


def network(*subnets: str, **keys: Any) -> dict[str, Any]:
    """Return the first plugin of the chain: a bridge with a gateway, masquerading and default routes."""
    routes = [DEFAULT, DEFAULT6][: len(subnets)]
    defaults: dict[str, Any] = {"isGateway": True, "ipMasq": True, "ipam": {"routes": routes}}
    return bridge.network(*subnets, **defaults | keys)


def mapping(host: int, container: int = 80, protocol: str = "tcp", ip: str | None = None) -> dict[str, Any]:
    entry = {"hostPort": host, "containerPort": container, "protocol": protocol}
    return entry if ip is None else entry | {"hostIP": ip}


def conf(*mappings: Any, version: str = "1.0.0", name: str = "net1", **keys: Any) -> dict[str, Any]:
    raw = {"cniVersion": version, "name": name, "type": "portmap", "capabilities": {"portMappings": True}}
    if mappings:
        raw["runtimeConfig"] = {"portMappings": list(mappings)}
    return raw | keys


def attach(
    host: Host, *subnets: str, container: Container | None = None, **keys: Any
) -> tuple[Container, Any]:
    """Attach a container to the bridge.  Returns it and the result."""
    container = container or host.container()
    container.set_sysctl(ACCEPT_DAD, "0")  # otherwise the reference waits for two seconds
    if host.implementation and host.implementation.name == "reference":
        host.leaves(*REFERENCE_KEEPS)
    return bridge.add(host, network(*(subnets or (SUBNET,)), **keys), container)


def publish(host: Host, container: Container, result: Any, sent: Any) -> Any:
    """Call ADD after the bridge.  Returns the configuration for DEL and CHECK, with the result."""
    return with_previous_result(sent, host.cni("ADD", sent | {"prevResult": result}, container))


def published(host: Host, *mappings: Any, subnets: tuple[str, ...] = (SUBNET,), **keys: Any) -> Container:
    """Return a container on the bridge, with these published ports."""
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
    """Exchange data with a port of the host.  Returns the client's address as the server sees it.

    Raises OSError if that fails.
    """
    timeout = patience() if timeout is None else timeout
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    how = kind, family_of(address), socket.IPPROTO_SCTP if protocol == "sctp" else 0
    with server.socket(*how) as listener, client.socket(*how) as client_end:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", target))
        listener.settimeout(timeout)
        client_end.settimeout(timeout)
        if protocol == "udp":
            client_end.connect((address, port))
            client_end.send(b"ping")
            data, peer = listener.recvfrom(16)
            listener.sendto(b"pong", peer)
        else:
            listener.listen()
            client_end.connect((address, port))
            server_end, peer = listener.accept()
            with server_end:
                server_end.settimeout(timeout)
                client_end.sendall(b"ping")
                data = server_end.recv(16)
                server_end.sendall(b"pong")
                assert client_end.recv(16) == b"pong"
                return str(peer[0])
        assert data == b"ping" and client_end.recv(16) == b"pong"
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
    """Return True if a connection works.  `expected`: the test's expectation, which sets the timeout."""
    try:
        seen(client, server, address, port, target, timeout=patience(expected))
    except OSError:
        return False
    return True


# A program that opens a socket, listens, and sleeps.
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
    where: Namespace, kind: str = "tcp", own: str = "0.0.0.0", *, only_v6: bool = False
) -> Iterator[int]:
    """Start a process that listens on port 8080 in a namespace.  Yields its PID as the host sees it."""
    family = "AF_INET6" if ":" in own else "AF_INET"
    words = ["/usr/bin/python3", "-IS", "-c", LISTENER, kind, family, own, str(int(only_v6))]
    with where.popen(*words) as process:
        try:
            assert process.stdout
            yield int(process.stdout.readline())
        finally:
            process.kill()
