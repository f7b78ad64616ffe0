# SPDX-License-Identifier: Apache-2.0
"""linux.conntrack and portmap's other queries, compared with `conntrack`, pyroute2, `ip` and `ss`."""

import re
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from pyroute2.netlink.diag import inet_diag_req
from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg

from cnihook.fast.address import Address
from cnihook.linux import conntrack, netlink
from cnihook.linux.listeners import listeners
from cnihook.linux.route_lookup import link_towards
from cnihook.linux.rtnl import Rtnl
from tests.support.host.host import Container, Host
from tests.support.plugins.cni import CHECKOUT

ADDRESSES = {4: ("10.9.0.1", "10.9.0.2"), 6: ("2001:db8:9::1", "2001:db8:9::2")}
DUMP = 0x300


@pytest.fixture(autouse=True)
def implementation() -> None:
    """No plugin takes part: one run is enough."""


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Use a new socket, because a socket belongs to the namespace that it was made in."""
    netlink.reopen_netfilter()
    yield
    netlink.reopen_netfilter()


@pytest.fixture
def peer(host: Host) -> Container:
    """Return a container at the other end of a link.  The host tracks the connections on it."""
    container = host.container()
    host.run("ip", *"link add v1 type veth peer name eth0 netns c1".split())
    for where, link, index in ((host, "v1", 0), (container, "eth0", 1)):
        for own in ADDRESSES.values():
            where.run(
                "ip",
                "address",
                "add",
                own[index] + ("/24" if "." in own[index] else "/64"),
                "dev",
                link,
                "nodad",
            )
        where.run("ip", "link", "set", link, "up")
    host.run(
        "nft",
        "add table inet t; add chain inet t c { type filter hook output priority 0; };"
        " add rule inet t c ct state new",
    )
    host.save_state()
    return container


def begin(host: Host, version: int, port: int, kind: int = socket.SOCK_DGRAM) -> None:
    with host.socket(kind, socket.AF_INET if version == 4 else socket.AF_INET6) as client:
        client.setblocking(False)
        if kind == socket.SOCK_DGRAM:
            client.sendto(b"ping", (ADDRESSES[version][1], port))
        else:
            client.connect_ex((ADDRESSES[version][1], port))


def listed(host: Host, version: int) -> list[tuple[str, int]]:
    """Return protocol and port of every flow, as the program conntrack lists them."""
    shown = host.run("conntrack", "-L", "-f", f"ipv{version}").stdout
    return sorted(
        (line.split()[0], int(re.findall("dport=([0-9]+)", line)[0])) for line in shown.splitlines()
    )


@pytest.mark.needs("conntrack")
@pytest.mark.parametrize("version", [4, 6])
def test_flows_of_udp_are_found_by_their_ports_and_deleted(
    host: Host, peer: Container, version: int
) -> None:
    """Flows of the other IP version, of TCP and to other ports stay."""
    for port in (53, 54, 55):
        for each in (4, 6):
            begin(host, each, port)
    with peer.socket(socket.SOCK_STREAM, socket.AF_INET6) as server:
        server.bind(("", 53))
        server.listen()
        begin(host, version, 53, socket.SOCK_STREAM)
    other = listed(host, 10 - version)

    (first,) = host.inside(lambda: conntrack.flows(version, {53}))
    assert (first.version, str(first.destination), first.port) == (version, ADDRESSES[version][1], 53)
    assert (str(first.answerer), first.answerer_port) == (ADDRESSES[version][1], 53)
    several = host.inside(lambda: conntrack.flows(version, {54, 55, 99}))
    assert sorted(flow.port for flow in several) == [54, 55]

    for flow in (first, several[0], several[0]):  # twice: a flow may end by itself in between
        host.inside(lambda flow=flow: conntrack.delete(flow))  # type: ignore[misc]
    assert listed(host, version) == [("tcp", 53), ("udp", several[1].port)]
    assert listed(host, 10 - version) == other


def test_messages_are_those_of_ctnetlink(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyroute2 reads them; its authors used the same headers."""
    caught: list[tuple[int, int, bytes]] = []

    class Caught:
        def request(self, kind: int, flags: int, body: bytes, what: str) -> list[bytes]:
            assert what, "an error names the request"
            caught.append((kind, flags, body))
            return []

        def close(self) -> None:
            pass

    monkeypatch.setattr(netlink, "_netfilter", Caught())
    conntrack.flows(4, {53})
    conntrack.flows(6, {53, 54})

    one, several = caught
    assert (one[0], one[1]) == (0x101, DUMP)
    message = read(one)
    assert message["nfgen_family"] == socket.AF_INET
    protocol = message.get_attr("CTA_TUPLE_ORIG").get_attr("CTA_TUPLE_PROTO")
    assert (protocol.get_attr("CTA_PROTO_NUM"), protocol.get_attr("CTA_PROTO_DST_PORT")) == (17, 53)
    message = read(several)
    assert message["nfgen_family"] == socket.AF_INET6
    protocol = message.get_attr("CTA_TUPLE_ORIG").get_attr("CTA_TUPLE_PROTO")
    assert (protocol.get_attr("CTA_PROTO_NUM"), protocol.get_attr("CTA_PROTO_DST_PORT")) == (17, None)


def read(request: tuple[int, int, bytes]) -> Any:
    kind, flags, body = request
    message = nfct_msg(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
    message.decode()
    return message


def test_requests_for_listeners_are_those_of_sock_diag(monkeypatch: pytest.MonkeyPatch) -> None:
    caught: list[tuple[int, int, bytes]] = []

    class Caught:
        def __init__(self, protocol: int) -> None:
            assert protocol == 4

        def request(self, kind: int, flags: int, body: bytes, what: str) -> list[bytes]:
            caught.append((kind, flags, body))
            return []

        def close(self) -> None:
            pass

    monkeypatch.setattr("cnihook.linux.listeners.Netlink", Caught)
    listeners("tcp", {7000})
    listeners("udp", set(range(7000, 7100)))

    requests = []
    for kind, flags, body in caught:
        message = inet_diag_req(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        message.decode()
        keys = ("sdiag_family", "sdiag_protocol", "idiag_states", "idiag_sport", "idiag_dport")
        requests.append((kind, flags, *(message[key] for key in keys)))
    assert requests == [
        *((20, DUMP, family, 6, 1 << 10, 7000, 0) for family in (socket.AF_INET, socket.AF_INET6)),
        *((20, DUMP, family, 17, 1 << 7, 0, 0) for family in (socket.AF_INET, socket.AF_INET6)),
    ]


# The link that a packet would take


def test_link_towards_an_address(host: Host, peer: Container) -> None:
    """There is no link if there is no route, and none for an address of this host."""

    def name(address: str) -> str | None:
        def ask() -> str | None:
            rtnl = Rtnl()
            link = link_towards(rtnl, Address.parse(address))
            rtnl.close()
            return link.name if link else None

        return host.inside(ask)

    assert name("10.9.0.2") == name("2001:db8:9::77") == "v1"
    assert name("10.9.0.1") is None and name("127.0.0.1") is None
    assert name("192.0.2.1") is None
    host.run("ip", "route", "add", "blackhole", "192.0.2.0/24")
    assert name("192.0.2.1") is None
    host.run("ip", "route", "del", "blackhole", "192.0.2.0/24")


# Listening sockets


def test_listeners_are_found_by_their_ports(host: Host) -> None:
    """Connected sockets, those that listen on other ports, and those that are only bound are not found."""
    ports = {7000, 7001, 7002, 7003, 7004}
    with ExitStack() as stack:

        def bound_socket(kind: int, family: int, own: str, port: int) -> socket.socket:
            one = stack.enter_context(host.socket(kind, family))
            one.bind((own, port))
            return one

        tcp, udp, v4, v6 = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.AF_INET, socket.AF_INET6
        for family, own, port in ((v4, "127.0.0.1", 7000), (v6, "::", 7001), (v6, "::ffff:127.0.0.1", 7002)):
            bound_socket(tcp, family, own, port).listen()
            bound_socket(udp, family, own, port)
        bound_socket(tcp, v4, "", 7005).listen()
        bound_socket(tcp, v4, "", 7003)
        talks = bound_socket(tcp, v4, "127.0.0.1", 7004)
        talks.connect(("127.0.0.1", 7005))
        bound_socket(udp, v4, "127.0.0.1", 7004).connect(("127.0.0.1", 7000))

        # /proc/net shows the namespace of the thread that reads it.
        for protocol in ("tcp", "udp"):
            output = host.run(
                *("/usr/bin/python3", "-IS", "-c", PROGRAM, protocol, *map(str, sorted(ports)))
            ).stdout
            assert output == "127.0.0.1 7000\n127.0.0.1 7002\n:: 7001\n", protocol


PROGRAM = f"""\
import sys
sys.path.insert(0, {str(CHECKOUT)!r})
from cnihook.linux.listeners import listeners
listening = listeners(sys.argv[1], set(map(int, sys.argv[2:])))
for line in sorted(f"{{one.address}} {{one.port}}" for one in listening):
    print(line)
"""


@pytest.mark.parametrize("version", [4, 6])
def test_flows_of_an_address_are_found(host: Host, peer: Container, version: int) -> None:
    """Flows that the address opened and flows that it answers, and no others that the host keeps."""
    for each in (4, 6):
        begin(host, each, 53)
    own, answers = (Address.parse(text) for text in ADDRESSES[version])

    results = [
        host.inside(lambda: conntrack.of(frozenset({own}))),
        host.inside(lambda: conntrack.of(frozenset({answers}))),
    ]
    for flows in results:
        assert {flow.port for flow in flows} >= {53}
        assert {flow.version for flow in flows} == {version}
    assert not host.inside(lambda: conntrack.of(frozenset({Address.parse("192.0.2.99")})))


@pytest.mark.needs("conntrack")
def test_kernel_deletes_the_flows_of_an_address_and_no_others(host: Host, peer: Container) -> None:
    """All others would be deleted, too, if the kernel did not understand the filter."""
    for port in (53, 54):
        for version in (4, 6):
            begin(host, version, port)
    six = listed(host, 6)
    can = host.inside(lambda: conntrack.delete_of(Address.parse("192.0.2.99")))  # from Linux 6.8 on
    assert len(listed(host, 4)) == 2

    assert not host.inside(lambda: conntrack.delete_of(Address.parse(ADDRESSES[6][1])))
    assert host.inside(lambda: conntrack.delete_of(Address.parse(ADDRESSES[4][1]))) == can
    assert len(listed(host, 4)) == (0 if can else 2)
    assert listed(host, 6) == six


def test_no_more_flows_are_listed_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy host keeps a quarter of a million, most of them IPv4; the kernel selects by IPv4 address."""
    requests: list[bytes] = []

    class Caught:
        def request(self, _kind: int, _flags: int, body: bytes, _what: str) -> list[bytes]:
            requests.append(body)
            return []

        def close(self) -> None:
            pass

    monkeypatch.setattr(netlink, "_netfilter", Caught())
    four, six = (Address.parse(ADDRESSES[version][1]) for version in (4, 6))
    conntrack.of(frozenset({four, six}))

    families = [body[0] for body in requests]
    assert families == [socket.AF_INET, socket.AF_INET, socket.AF_INET6]
    assert all(bytes(four) in body for body in requests[:2])
    conntrack.of(frozenset({six}))
    assert [body[0] for body in requests[3:]] == [socket.AF_INET6]
