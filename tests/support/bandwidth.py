# SPDX-License-Identifier: Apache-2.0
"""Containers with a link to the host that some other plugin made, its limits, and how fast it really is."""

import hashlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.cni import with_previous_result
from tests.support.host import Container, Host
from tests.support.namespace import Namespace
from tests.support.wait import patience

INGRESS = {"ingressRate": 20_000_000, "ingressBurst": 400_000}
EGRESS = {"egressRate": 16_000_000, "egressBurst": 320_000}
# As the kernel tells them: in bytes, and with the microseconds that a packet may wait.
INGRESS_TBF = {"rate": 2_500_000, "burst": 50_000, "lat": 25_000}
EGRESS_TBF = {"rate": 2_000_000, "burst": 40_000, "lat": 25_000}
HOST, CONTAINER = "10.9.0.1", "10.9.0.2"
# The kernel counts all of an Ethernet frame, of which TCP's data are a part, after its headers.
FRAME, DATA = 1514, 1448


def linked(host: Host, name: str | None = None) -> Container:
    """A container with eth0, one end of a pair, as the leak check wants to see it again."""
    made = host.container(name)
    pair(host, made)
    return made


def pair(host: Host, container: Container, ifname: str = "eth0") -> str:
    """One more link; returns the name of the host's end."""
    outer = outer_of(container, ifname)
    host.run(*f"ip link add {outer} type veth peer name {ifname} netns {container.name}".split())
    host.run("ip", "link", "set", outer, "up")
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
    """ADD as the second of a chain.  Returns what DEL and CHECK are sent: with the result."""
    sent = {"prevResult": previous(container, ifname, conf["cniVersion"])} | conf
    return with_previous_result(sent, host.cni("ADD", sent, container, ifname))


def ifb_name(container_id: str, network: str = "net1") -> str:
    return "bwp" + hashlib.sha512(f"{network}{container_id}".encode()).hexdigest()[:12]


def ifbs(namespace: Namespace) -> set[str]:
    return {link["ifname"] for link in namespace.ip("link", "show", "type", "ifb") or []}


def limits(namespace: Namespace) -> dict[str, Any]:
    """Of each link that has one, what its limit is."""
    qdiscs = json.loads(namespace.run("tc", "-j", "qdisc", "show").stdout)
    return {qdisc["dev"]: qdisc["options"] for qdisc in qdiscs if qdisc["kind"] == "tbf"}


def qdiscs(namespace: Namespace) -> set[str]:
    """Those of kinds that a link does not have by itself."""
    found = json.loads(namespace.run("tc", "-j", "qdisc", "show").stdout)
    return {f"{qdisc['kind']} on {qdisc['dev']}" for qdisc in found if qdisc["kind"] != "noqueue"}


@contextmanager
def stream(sender: Namespace, receiver: Namespace, address: str) -> Iterator[socket.socket]:
    """A connection that is sent to without an end; yields the receiving side.

    So little is on its way at a time that a limit has room for it: nothing is dropped and sent again.
    """
    with receiver.socket() as listener, sender.socket() as ours:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        listener.bind(("", 0))
        listener.listen()
        ours.connect((address, listener.getsockname()[1]))
        theirs, _ = listener.accept()
        with theirs:
            theirs.settimeout(patience())

            def pump() -> None:
                try:
                    while True:
                        ours.sendall(bytes(1 << 16))
                except OSError:
                    pass  # the receiver has seen enough

            thread = threading.Thread(target=pump)
            thread.start()
            try:
                yield theirs
            finally:
                ours.shutdown(socket.SHUT_RDWR)
                thread.join()


def received(connection: socket.socket) -> int:
    """The bytes that came in, whether or not somebody has read them."""
    tcp_info, offset = 11, 128  # <linux/tcp.h>: TCP_INFO, and tcpi_bytes_received in it
    info = connection.getsockopt(socket.IPPROTO_TCP, tcp_info, 256)
    return int(struct.unpack_from("=Q", info, offset)[0])


def check_limit(sender: Namespace, receiver: Namespace, address: str, rate: int, burst: int) -> None:
    """Send more than the burst, and fail if it comes in faster than rate and burst allow.

    A busy machine makes it slower, never faster, so there is no lower bound: all of it must come.
    """
    begin = time.monotonic()
    with stream(sender, receiver, address) as incoming:
        while received(incoming) < (burst + rate // 2) // 8:
            assert incoming.recv(1 << 18)
        bits = received(incoming) * FRAME / DATA * 8
        assert bits < (rate * (time.monotonic() - begin) + burst) * 1.05
