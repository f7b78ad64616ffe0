# SPDX-License-Identifier: Apache-2.0
"""
dhcp and the times of a lease: T1, T2 and its end, and a server that refuses.

dnsmasq grants no lease shorter than two minutes, and it answers every request.  The server here answers as
the test says, and its times are seconds.
"""

import socket
import struct
import threading
from collections.abc import Callable

import pytest

from cnihook.dhcp import message
from cnihook.dhcp.message import Message
from cnihook.fast.address import Address
from tests.support.host.host import Container, Host
from tests.support.plugins import cni
from tests.support.plugins.cni import CniFailure
from tests.support.services import dhcp
from tests.support.services.dhcp import Lan, network, request, wait_for

_IP_PKTINFO = 8  # <linux/in.h>: also report the destination of a datagram
GIVEN = Address.parse("10.9.0.50")


@pytest.fixture
def implementation(implementations: dict[str, cni.Implementation]) -> cni.Implementation:
    """Return the built-in plugins only: these tests are about cnihook's implementation of RFC 2131."""
    return implementations["builtin"]


@pytest.fixture
def container(host: Host, lan: Lan) -> Container:
    return lan.plug(host.container())


class Server:
    """A DHCP server that grants an address; `verdict` returns its answer to a renewal or rebinding, or 0."""

    def __init__(self, lan: Lan, *, lease: int = 120, t1: int = 1, t2: int = 100) -> None:
        self.address = GIVEN
        self.verdict: Callable[[str], int] = lambda _asked: message.ACK
        self.heard: list[str] = []
        times = {message.LEASE_TIME: lease, message.RENEWAL_TIME: t1, message.REBINDING_TIME: t2}
        self._options = {
            message.SERVER: Address.parse(lan.ADDRESS),
            message.SUBNET_MASK: b"\xff\xff\xff\0",
            **{code: struct.pack("!I", value) for code, value in times.items()},
        }
        self._socket = lan.machine.socket(socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        self._socket.setsockopt(socket.SOL_IP, _IP_PKTINFO, 1)
        self._socket.bind(("", 67))
        self._socket.settimeout(0.05)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                data, ancillary, _flags, _sender = self._socket.recvmsg(2048, 64)
            except TimeoutError:
                continue
            query = Message.decode(data)
            is_broadcast = ancillary[0][2].endswith(b"\xff" * 4)
            kind = 0
            if query.kind == message.DISCOVER:
                kind, name = message.OFFER, "discover"
            elif query.kind == message.RELEASE:
                name = "release"
            elif message.SERVER in query.options:
                kind, name = message.ACK, "request"
            else:
                name = "rebind" if is_broadcast else "renew"
                kind = self.verdict(name)
            self.heard.append(name)
            if kind:
                options = {message.MESSAGE_TYPE: bytes((kind,))} | self._options
                answer = Message(query.xid, query.mac, options, offered=self.address, from_server=True)
                self._socket.sendto(answer.encode(), ("255.255.255.255", 68))


def is_up(container: Container) -> bool:
    return "UP" in container.link("eth0")["flags"]


def test_client_renews_from_t1_and_rebinds_from_t2(host: Host, lan: Lan, container: Container) -> None:
    """A container must not lose its address if another server replaces the first one."""
    with Server(lan, lease=60, t1=1, t2=4) as server:
        server.verdict = lambda asked: message.ACK if asked == "rebind" else 0
        request(host, "ADD", network(), container)

        wait_for(lambda: server.heard.count("rebind") > 1, "every server is asked")
        assert server.heard[:3] == ["discover", "request", "renew"]
        request(host, "DEL", network(), container)
        wait_for(lambda: server.heard[-1] == "release", "the address is released")


def test_address_of_an_expired_lease_is_given_up(host: Host, lan: Lan, container: Container) -> None:
    """The server may grant it to another machine from then on."""
    with Server(lan, lease=3, t1=1, t2=2) as server:
        server.verdict = lambda _asked: 0
        result = request(host, "ADD", network(), container)
        wait_for(lambda: not is_up(container), "the link is down")

    with pytest.raises(CniFailure, match="there is no lease of eth0"):
        request(host, "CHECK", network() | {"prevResult": result}, container)
    assert "no DHCP server answers; eth0 is down now" in host.read(f"/run/cnihook/log/{container.name}")
    container.ip("link", "set", "eth0", "up")  # as it was before the test
    host.leaves("file /run/cnihook/log/*")


def test_server_that_lost_the_lease_may_grant_the_address_again(
    host: Host, lan: Lan, container: Container
) -> None:
    """A server refuses to renew an unknown lease, but may grant the same address to a new request."""
    with Server(lan, t1=1) as server:
        server.verdict = lambda _asked: message.NAK
        request(host, "ADD", network(), container)

        wait_for(lambda: server.heard.count("request") > 1, "it is granted again")
        assert server.heard[:5] == ["discover", "request", "renew", "discover", "request"]
        assert is_up(container)


@pytest.mark.parametrize("kind", [message.NAK, message.ACK], ids=["refused", "granted"])
def test_another_address_is_not_accepted(host: Host, lan: Lan, container: Container, kind: int) -> None:
    """The runtime has passed on the first address, and would not learn about another one."""
    with Server(lan, t1=1) as server:
        server.verdict = lambda _asked: kind
        request(host, "ADD", network(), container)
        server.address = GIVEN + 1

        wait_for(lambda: not is_up(container), "the link is down")
    wait_for(lambda: not host.exists(dhcp.LEASES), "the lease is removed")
    container.ip("link", "set", "eth0", "up")
    host.leaves("file /run/cnihook/log/*")


def test_missing_mask_is_an_error_that_leaves_nothing(host: Host, lan: Lan, container: Container) -> None:
    with Server(lan) as server:
        server._options.pop(message.SUBNET_MASK)
        with pytest.raises(CniFailure, match="without a subnet mask"):
            request(host, "ADD", network(), container)

        wait_for(lambda: "release" in server.heard, "the address is released")
    assert not host.exists(dhcp.LEASES)


def test_malformed_options_count_as_missing(host: Host, lan: Lan, container: Container) -> None:
    with Server(lan) as server:
        server._options |= {
            message.CLASSLESS_ROUTES: b"\x21\x01",
            message.NAME_SERVERS: b"\x01\x02\x03",
            message.DOMAIN_NAME: b"a\nnameserver 192.0.2.66",
            message.DOMAIN_SEARCH: b"\xc0\x00",
            message.ROUTERS: Address.parse("10.9.0.1"),
        }
        assert request(host, "ADD", network(), container) == {
            "cniVersion": "1.0.0",
            "ips": [{"address": "10.9.0.50/24", "gateway": "10.9.0.1"}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}],
        }


def test_mac_address_may_change_while_the_lease_is_kept(host: Host, lan: Lan, container: Container) -> None:
    """A later plugin such as tuning may set another MAC address; the client ID stays the same."""
    with Server(lan, t1=1) as server:
        request(host, "ADD", network(), container)
        original_mac = container.link("eth0")["address"]
        container.ip("link", "set", "eth0", "address", "02:00:00:00:00:50")

        wait_for(lambda: server.heard.count("renew") > 1, "it is renewed")
        assert is_up(container)
    container.ip("link", "set", "eth0", "address", original_mac)  # as it was before the test
