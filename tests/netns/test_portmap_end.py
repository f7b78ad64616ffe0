# SPDX-License-Identifier: Apache-2.0
"""portmap: DEL with parts missing, a flushed ruleset, flows, CHECK, GC, STATUS."""

import re
import socket
import time
from typing import Any

import pytest

from tests.netns.differences import NO_GC, SPEC_1_1
from tests.support.host.host import Container, Host, Outside
from tests.support.plugins.ports import (
    GATEWAY,
    SUBNET,
    SUBNET6,
    attach,
    conf,
    mapping,
    publish,
    published,
    seen,
)
from tests.support.wait import SILENCE, patience

BOTH = (SUBNET, SUBNET6)


# DEL


def test_del_can_be_repeated(host: Host) -> None:
    container, result = attach(host, *BOTH)
    before = host.nft() if host.implementation and host.implementation.name == "builtin" else ""
    sent = publish(host, container, result, conf(mapping(8080), mapping(8081, ip="127.0.0.1")))

    for _ in range(2):
        host.cni("DEL", sent, container)

    assert "8080" not in host.nft()
    assert not before or host.nft() == before


def test_del_without_an_add_succeeds(host: Host, container: Container) -> None:
    host.cni("DEL", conf(mapping(8080)), container)
    host.cni("DEL", conf(), container)


@pytest.mark.parametrize("keys", [["runtimeConfig", "prevResult"], ["prevResult"], []])
@pytest.mark.known_difference(
    "DEL without mappings leaves the rules", here="leaves nothing", right="SPEC.md, 2 DEL"
)
def test_del_needs_only_names(host: Host, keys: list[str]) -> None:
    """Neither the mappings, nor the result, nor the namespace: the table shows DEL where to look."""
    container, result = attach(host, *BOTH)
    sent = publish(host, container, result, conf(mapping(8080), mapping(53, 53, "udp", ip="127.0.0.1")))
    container.destroy()

    for key in {"runtimeConfig", "prevResult"} - set(keys):
        del sent[key]
    host.cni("DEL", sent, container, CNI_NETNS="")

    assert "8080" not in host.nft()


def test_del_of_one_leaves_the_other(host: Host) -> None:
    ends = []
    for number in (1, 2):
        container, result = attach(host, *BOTH)
        sent = publish(host, container, result, conf(mapping(8080 + number), conditionsV6=["-i", "up0"]))
        ends.append((container, sent))
    (one, first), (two, _) = ends

    host.cni("DEL", first, one)

    assert "8081" not in host.nft()
    assert seen(host, two, "127.0.0.1", 8082) == GATEWAY


# A flushed ruleset


@pytest.mark.known_difference(
    "DEL fails after the rules are flushed",
    here="succeeds, and the next ADD restores them",
    right="SPEC.md, 2 DEL",
)
def test_next_add_restores_a_flushed_ruleset(host: Host) -> None:
    published(host, mapping(8080))
    host.run("nft", "flush", "ruleset")
    container = published(host, mapping(8081))

    for own in (GATEWAY, "127.0.0.1"):
        assert seen(host, container, own, 8081) == GATEWAY


# Flows


def sends_and_arrives(client: Any, listener: socket.socket) -> bool:
    """Send datagrams of one flow until one arrives."""
    listener.settimeout(SILENCE)
    deadline = time.monotonic() + patience()
    while time.monotonic() < deadline:
        client.send(b"ping")
        try:
            return listener.recv(16) == b"ping"
        except TimeoutError:
            pass
    return False


@pytest.mark.needs("conntrack")
@pytest.mark.parametrize("ip", [None, Outside.HOST], ids=["any", "one"])
def test_earlier_udp_flow_reaches_the_container(host: Host, ip: str | None) -> None:
    """The flow began when a process of the host had the port, and it never pauses."""
    outside = host.outside()
    container, result = attach(host)
    track(host)
    udp = socket.SOCK_DGRAM
    with outside.socket(udp) as client, container.socket(udp) as listener, host.socket(udp) as old:
        old.bind(("", 5353))
        listener.bind(("", 53))
        client.connect((Outside.HOST, 5353))
        assert sends_and_arrives(client, old)
        assert flows(host, 5353)
        old.close()

        publish(host, container, result, conf(mapping(5353, 53, "udp", ip=ip)))

        assert sends_and_arrives(client, listener)


@pytest.mark.needs("conntrack")
@pytest.mark.known_difference(
    "DEL leaves the flows of UDP (plugins#1190)", here="DEL ends them", right="cnihook"
)
def test_flow_of_udp_does_not_outlive_its_port(host: Host) -> None:
    """Packets for the port reach the next container that publishes it, or the host."""
    outside = host.outside()
    container, result = attach(host)
    udp = socket.SOCK_DGRAM
    with outside.socket(udp) as client, container.socket(udp) as listener, host.socket(udp) as new:
        listener.bind(("", 53))
        sent = publish(host, container, result, conf(mapping(5353, 53, "udp")))
        client.connect((Outside.HOST, 5353))
        assert sends_and_arrives(client, listener)
        new.bind(("", 5353))

        host.cni("DEL", sent, container)

        assert not flows(host, 5353)
        assert sends_and_arrives(client, new)


@pytest.mark.needs("conntrack")
@pytest.mark.known_difference(
    "ADD ends every UDP flow to the port number, even those to other hosts",
    here="ends only flows to this host's port",
    right="cnihook",
)
def test_other_flows_stay(host: Host) -> None:
    """Flows through the host to the same port of another machine, and flows of TCP."""
    outside = host.outside()
    container, result = attach(host)
    client, _ = attach(host)
    with client.socket(socket.SOCK_DGRAM) as udp, client.socket() as tcp, outside.socket() as server:
        server.bind(("", 5353))
        server.listen()
        udp.connect((Outside.ADDRESS, 5353))
        udp.send(b"ping")
        tcp.connect((Outside.ADDRESS, 5353))
        peer, _ = server.accept()  # when the host has seen the last segment of the handshake
        with peer:
            before = flows(host, 5353)
            assert len(before) == 2

            sent = publish(host, container, result, conf(mapping(5353, 5353, "udp"), mapping(5353)))
            assert flows(host, 5353) == before
            host.cni("DEL", sent, container)
            assert flows(host, 5353) == before


def track(host: Host) -> None:
    """Make the kernel track flows, which it does only if a rule needs their state."""
    host.run(
        "nft",
        "add table inet t; add chain inet t c { type filter hook prerouting priority 0; };"
        " add rule inet t c ct state new",
    )
    host.leaves("nft: table inet t*")


def flows(host: Host, port: int) -> list[str]:
    """Return each flow that was opened to a port, without the values that change."""
    listed = [
        host.run("conntrack", "-L", "-p", protocol, "--orig-port-dst", str(port)).stdout
        for protocol in ("tcp", "udp")
    ]
    changes = re.compile(r" \d+ (?=src|[A-Z])| use=\d+")
    return sorted(changes.sub(" ", line) for text in listed for line in text.splitlines())


# CHECK


@pytest.mark.known_difference(
    "CHECK looks for the rules of IPv4 in the table of IPv6",
    here="looks in the right table",
    right="SPEC.md, 2 CHECK",
    fixed_in="1.9.1",
)
def test_check_accepts_what_add_made(host: Host) -> None:
    container, result = attach(host, *BOTH)
    sent = publish(
        host,
        container,
        result,
        conf(mapping(8080), mapping(53, 53, "udp", ip=GATEWAY), conditionsV4=["-i", "up0"]),
    )

    host.cni("CHECK", sent, container)


# GC, STATUS


@NO_GC
@pytest.mark.parametrize(
    ("network", "keep", "left"),
    [
        ("net1", [], [8082]),
        ("net1", [{"containerID": "c1", "ifname": "eth0"}], [8080, 8081, 8082]),
        ("net1", [{"containerID": "c1", "ifname": "eth1"}], [8082]),
        ("net1", None, [8080, 8081, 8082]),
        ("net", [], [8080, 8081, 8082]),
    ],
)
def test_gc_removes_ports_that_are_not_kept(host: Host, network: str, keep: Any, left: list[int]) -> None:
    """GC removes ports of its own network only."""
    published(host, mapping(8080), mapping(8081, ip="127.0.0.1"), conditionsV4=["-s", "127.0.0.1"])
    other = published(host, mapping(8082), name="net2")
    lists = {} if keep is None else {"cni.dev/valid-attachments": keep}

    host.cni("GC", conf(version="1.1.0", name=network) | lists)

    assert [port for port in (8080, 8081, 8082) if f" {port} " in host.nft()] == left
    assert seen(host, other, "127.0.0.1", 8082) == GATEWAY


@SPEC_1_1
def test_status_needs_nftables(host: Host) -> None:
    host.cni("STATUS", conf(version="1.1.0"))
