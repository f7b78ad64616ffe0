# SPDX-License-Identifier: Apache-2.0
"""portmap: ports on 127.0.0.1 of the host, which always stays closed to containers."""

import socket
import threading
from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.plugins import bridge
from tests.support.plugins.ports import (
    GATEWAY,
    REFERENCE_KEEPS,
    SUBNET,
    attach,
    conf,
    mapping,
    network,
    publish,
    published,
    reached,
    seen,
)
from tests.support.wait import SILENCE, patience

LOCALNET = "net/ipv4/conf/cni0/route_localnet"
SETS_IT = pytest.mark.known_difference(
    "ports on 127.0.0.1 need route_localnet, which opens 127.0.0.0/8 (plugins#729)",
    here="they work without it",
    right="cnihook",
)
ONE_SOURCE = pytest.mark.known_difference(
    "clients reach a port only from 127.0.0.1", here="from all of 127.0.0.0/8", right="cnihook"
)
OWN_TABLE = pytest.mark.known_difference(
    "does not know the tables of cnihook's earlier versions", here="completes them", right="either"
)


def send_to_loopback(host: Host, container: Container, address: str = "127.0.0.1") -> bytes:
    """Send a datagram from a container to 127.0.0.1 of the host; return what arrives, or nothing."""
    container.run(
        "sh",
        "-c",
        "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet; ip route flush table local dev lo;"
        f" ip route replace 127.0.0.0/8 via {GATEWAY} src 10.9.0.2",
    )
    with host.socket(socket.SOCK_DGRAM) as listener, container.socket(socket.SOCK_DGRAM) as sender:
        listener.bind((address, 0))
        listener.settimeout(SILENCE)
        sender.bind(("10.9.0.2", 0))
        sender.sendto(b"let me in", listener.getsockname())
        try:
            return listener.recv(16)
        except TimeoutError:
            return b""


@SETS_IT
@pytest.mark.parametrize("ip", [None, "127.0.0.1"])
@pytest.mark.parametrize("flush", ["", "nft flush ruleset", "nft delete table inet cnihook"])
def test_loopback_stays_closed_to_containers(host: Host, ip: str | None, flush: str) -> None:
    """Even if another program flushes all rules, as each restart of nftables.service does."""
    container = published(host, mapping(8080, ip=ip))
    host.run("sh", "-c", flush)

    assert host.sysctl(LOCALNET) == "0"
    assert send_to_loopback(host, container) == b""


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("ip", [None, "127.0.0.1"])
def test_port_is_reached_by_127_0_0_1(host: Host, protocol: str, ip: str | None) -> None:
    container = published(host, mapping(8080, 80, protocol, ip=ip))

    assert seen(host, container, "127.0.0.1", 8080, protocol=protocol) == GATEWAY


@pytest.mark.parametrize("source", [pytest.param("127.0.0.7", marks=ONE_SOURCE), GATEWAY])
def test_client_may_choose_its_source(host: Host, source: str) -> None:
    container = published(host, mapping(8080))

    with container.socket() as listener, host.socket() as client:
        listener.bind(("", 80))
        listener.listen()
        client.bind((source, 0))
        client.connect(("127.0.0.1", 8080))
        peer, _ = listener.accept()
        with peer:
            client.sendall(b"ping")
            assert peer.recv(16) == b"ping"
            peer.sendall(b"pong")
            assert client.recv(16) == b"pong"


def test_large_transfers_pass_in_both_directions(host: Host) -> None:
    """Segments of the loopback link's size are larger than the container's link accepts."""
    container, result = attach(host, mtu=1400)
    publish(host, container, result, conf(mapping(8080)))
    sent = bytes(range(256)) * 8192

    def answer() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(patience())
            while data := peer.recv(1 << 16):
                peer.sendall(data)

    def send() -> None:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)

    with container.socket() as listener, host.socket() as client:
        listener.bind(("", 80))
        listener.listen()
        echo = threading.Thread(target=answer)
        echo.start()
        client.connect(("127.0.0.1", 8080))
        writer = threading.Thread(target=send)
        writer.start()
        received = bytearray()
        while data := client.recv(1 << 16):
            received += data
        writer.join()
        echo.join()
    assert received == sent


def test_client_sees_that_the_container_refuses(host: Host) -> None:
    """A reset for TCP, and an ICMP error for UDP."""
    published(host, mapping(8080), mapping(8080, 80, "udp"))

    with host.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(("127.0.0.1", 8080))
    with host.socket(socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", 8080))
        client.send(b"ping")
        with pytest.raises(ConnectionRefusedError):
            client.recv(16)


def test_container_of_ptp_is_reached_by_127_0_0_1(host: Host) -> None:
    keys = {key: value for key, value in network(SUBNET).items() if key not in ("bridge", "isGateway")}
    container, result = bridge.add(host, keys | {"type": "ptp"})
    if host.implementation and host.implementation.name == "reference":
        host.leaves(*REFERENCE_KEEPS)
    publish(host, container, result, conf(mapping(8080)))

    assert seen(host, container, "127.0.0.1", 8080) == GATEWAY


def test_processes_and_rules_of_the_host_still_work(host: Host) -> None:
    """A process with another port, and another program's redirection on the loopback link."""
    published(host, mapping(8080))
    host.run("nft", "add table ip own; add chain ip own out { type nat hook output priority -100 ; }")
    host.run("nft", "add rule ip own out ip daddr 127.0.0.1 tcp dport 7000 redirect to :7001")

    assert seen(host, host, "127.0.0.1", 7002, 7002) == "127.0.0.1"
    assert seen(host, host, "127.0.0.1", 7000, 7001) == "127.0.0.1"
    host.run("nft", "delete table ip own")


# A table of an earlier version, which set route_localnet.

EARLIER = """
add set inet cnihook ports-localnet { type ifname ; }
add element inet cnihook ports-localnet { "cni0" }
delete chain inet cnihook ports-loopback-out
delete chain inet cnihook ports-loopback-back
delete chain inet cnihook ports-loopback-in
flush chain inet cnihook ports-from-10.9.0.0/24
add rule inet cnihook ports-from-10.9.0.0/24 ip saddr 10.9.0.0/24 masquerade
add rule inet cnihook ports-from-10.9.0.0/24 ip saddr 127.0.0.0/8 masquerade
flush chain inet cnihook ports
add rule inet cnihook ports jump ports-conditional
add rule inet cnihook ports dnat ip to ip daddr . meta l4proto . th dport map @ports4-at
add rule inet cnihook ports meta nfproto ipv4 dnat ip to meta l4proto . th dport map @ports4
add rule inet cnihook ports dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports6-at
add rule inet cnihook ports meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @ports6
flush chain inet cnihook ports-postrouting
add rule inet cnihook ports-postrouting ct status dnat ip daddr vmap @ports-to4
add rule inet cnihook ports-postrouting ct status dnat ip6 daddr vmap @ports-to6
"""


def make_earlier(host: Host) -> None:
    host.run("nft", "-f", "-", input=EARLIER)
    host.run("sysctl", "-qw", "net.ipv4.conf.cni0.route_localnet=1")


@OWN_TABLE
def test_table_of_an_earlier_version_is_completed(host: Host) -> None:
    one = published(host, mapping(8080))
    make_earlier(host)
    assert seen(host, one, "127.0.0.1", 8080) == GATEWAY

    two = published(host, mapping(8081))

    assert host.sysctl(LOCALNET) == "0"
    assert "ports-localnet" not in host.nft()
    assert seen(host, one, "127.0.0.1", 8080) == seen(host, two, "127.0.0.1", 8081) == GATEWAY


@OWN_TABLE
def test_conditions_of_an_earlier_version_are_completed(host: Host) -> None:
    one = published(host, mapping(8080), conditionsV4=["-s", "127.0.0.1"])
    chain = next(word for word in host.nft().split() if word.startswith("ports-when-ipv4-"))
    make_earlier(host)
    rules = [
        line.strip()
        for line in host.run("nft", "list", "chain", "inet", "cnihook", chain).stdout.splitlines()
    ]
    host.run("nft", "flush", "chain", "inet", "cnihook", chain)
    for rule in rules:
        if "dnat" in rule:
            host.run("nft", f"add rule inet cnihook {chain} {rule}")

    published(host, mapping(8081))

    assert seen(host, one, "127.0.0.1", 8080) == GATEWAY


@OWN_TABLE
def test_del_undoes_what_an_earlier_version_has_set(host: Host) -> None:
    stays, _ = attach(host)
    container, result = attach(host)
    sent = publish(host, container, result, conf(mapping(8080)))
    make_earlier(host)

    host.cni("DEL", sent, container)

    assert host.sysctl(LOCALNET) == "0" and "ports" not in host.nft()
    assert stays.links() == {"lo", "eth0"}


def test_port_without_snat_does_not_show_the_substitute_address(host: Host) -> None:
    """A packet that cannot be answered is not sent at all."""
    container = published(host, mapping(8080), snat=False)
    sent: list[Any] = []
    with container.socket(socket.SOCK_RAW, socket.AF_INET, socket.IPPROTO_TCP) as listener:
        listener.settimeout(SILENCE)
        assert not reached(host, container, "127.0.0.1", 8080)
        try:
            while True:
                sent.append(listener.recvfrom(100)[1])
        except TimeoutError:
            pass
    assert sent == []
