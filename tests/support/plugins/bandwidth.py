# SPDX-License-Identifier: Apache-2.0
"""Containers with a link to the host as another plugin makes it, its limits, and its measured rate."""

import hashlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.host.host import Container, Host
from tests.support.host.namespace import Namespace
from tests.support.plugins.cni import with_previous_result
from tests.support.wait import patience

INGRESS = {"ingressRate": 20_000_000, "ingressBurst": 400_000}
EGRESS = {"egressRate": 16_000_000, "egressBurst": 320_000}
# As tc prints them: in bytes, and with the longest wait of a packet in microseconds.
INGRESS_TBF = {"rate": 2_500_000, "burst": 50_000, "lat": 25_000}
EGRESS_TBF = {"rate": 2_000_000, "burst": 40_000, "lat": 25_000}
HOST, CONTAINER = "10.9.0.1", "10.9.0.2"
# Bytes of an Ethernet frame, which the kernel counts, and of the TCP data in it.
FRAME, DATA = 1514, 1448


def linked(host: Host, name: str | None = None) -> Container:
    """Return a container with eth0, one end of a pair.  The leak check expects it unchanged."""
    container = host.container(name)
    pair(host, container)
    return container


def pair(host: Host, container: Container, ifname: str = "eth0") -> str:
    """Add a link.  Returns the name of the host end."""
    outer = outer_of(container, ifname)
    host.run("ip", "-batch", "-", input=f"""\
link add {outer} type veth peer name {ifname} netns {container.name}
link set {outer} up
""")  # fmt: skip
    container.run("ip", "link", "set", ifname, "up")
    host.save_state()
    return outer


def outer_of(container: Container, ifname: str = "eth0") -> str:
    return f"v{container.name}{ifname}"


def addressed(host: Host, container: Container) -> Container:
    host.run("ip", "address", "add", f"{HOST}/24", "dev", outer_of(container))
    container.run("ip", "address", "add", f"{CONTAINER}/24", "dev", "eth0")
    host.save_state()
    return container


def conf(version: str = "1.0.0", /, **keys: Any) -> dict[str, Any]:
    return {"cniVersion": version, "name": "net1", "type": "bandwidth", **keys}


def previous(container: Container, ifname: str = "eth0", version: str = "1.0.0") -> dict[str, Any]:
    interfaces = [
        {"name": outer_of(container, ifname)},
        {"name": ifname, "sandbox": container.path},
    ]
    return {"cniVersion": version, "interfaces": interfaces}


def add(host: Host, container: Container, conf: Any, ifname: str = "eth0") -> Any:
    """Call ADD as the second of a chain.  Returns the configuration for DEL and CHECK, with the result."""
    sent = {"prevResult": previous(container, ifname, conf["cniVersion"])} | conf
    return with_previous_result(sent, host.cni("ADD", sent, container, ifname))


def ifb_name(container_id: str, network: str = "net1") -> str:
    return "bwp" + hashlib.sha512(f"{network}{container_id}".encode()).hexdigest()[:12]


def ifbs(namespace: Namespace) -> set[str]:
    return {link["ifname"] for link in namespace.ip("link", "show", "type", "ifb") or []}


def limits(namespace: Namespace) -> dict[str, Any]:
    """Return the options of each link's limit, by link."""
    qdiscs = json.loads(namespace.run("tc", "-j", "qdisc", "show").stdout)
    return {qdisc["dev"]: qdisc["options"] for qdisc in qdiscs if qdisc["kind"] == "tbf"}


def qdiscs(namespace: Namespace) -> set[str]:
    """Return the qdiscs that a plugin added; noqueue is the kernel's default."""
    listed = json.loads(namespace.run("tc", "-j", "qdisc", "show").stdout)
    return {f"{qdisc['kind']} on {qdisc['dev']}" for qdisc in listed if qdisc["kind"] != "noqueue"}


@contextmanager
def stream(sender: Namespace, receiver: Namespace, address: str) -> Iterator[socket.socket]:
    """Send without an end over a new connection; yield the receiving side.

    The receive buffer is so small that a limit never drops a packet, so nothing is sent again.
    """
    with receiver.socket() as listener, sender.socket() as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        listener.bind(("", 0))
        listener.listen()
        client.connect((address, listener.getsockname()[1]))
        server, _ = listener.accept()
        with server:
            server.settimeout(patience())

            def pump() -> None:
                try:
                    while True:
                        client.sendall(bytes(1 << 16))
                except OSError:
                    pass  # the block below has ended

            thread = threading.Thread(target=pump)
            thread.start()
            try:
                yield server
            finally:
                client.shutdown(socket.SHUT_RDWR)
                thread.join()


def received(connection: socket.socket) -> int:
    """Return how many bytes have arrived; they need not have been read."""
    tcp_info, offset = 11, 128  # <linux/tcp.h>: TCP_INFO, and tcpi_bytes_received in it
    info = connection.getsockopt(socket.IPPROTO_TCP, tcp_info, 256)
    return int(struct.unpack_from("=Q", info, offset)[0])


def check_limit(sender: Namespace, receiver: Namespace, address: str, rate: int, burst: int) -> None:
    """Send more than the burst, and fail if it arrives faster than rate and burst allow.

    A busy machine makes it slower, never faster.  So there is no lower bound, but all of it must arrive.
    """
    begin = time.monotonic()
    with stream(sender, receiver, address) as incoming:
        while received(incoming) < (burst + rate // 2) // 8:
            assert incoming.recv(1 << 18)
        bits = received(incoming) * FRAME / DATA * 8
        assert bits < (rate * (time.monotonic() - begin) + burst) * 1.05
