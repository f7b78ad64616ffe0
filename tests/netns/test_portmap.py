# SPDX-License-Identifier: Apache-2.0
"""portmap: the clients that reach a container by a port of the host, and the addresses that it sees."""

from typing import Any

import pytest

from tests.netns.differences import OLD_KEYS
from tests.support.host.host import Container, Host, Outside
from tests.support.plugins.bridge import address
from tests.support.plugins.cni import CniFailure
from tests.support.plugins.ports import (
    GATEWAY,
    GATEWAY6,
    SUBNET,
    SUBNET6,
    attach,
    conf,
    mapping,
    publish,
    published,
    reached,
    seen,
)

BOTH = (SUBNET, SUBNET6)
DOCKER_PORT = """\
iptables -t nat -A DOCKER -p tcp -m tcp --dport {port} -j DNAT --to-destination {address}:80
"""
DOCKER = """\
iptables -t nat -N DOCKER
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
""" + DOCKER_PORT.replace("{port}", "9090")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_outside_reaches_the_container(host: Host, protocol: str) -> None:
    """The container sees the client's own address."""
    outside = host.outside()
    container = published(host, mapping(8080, 80, protocol), subnets=BOTH)

    for there, source in ((Outside.HOST, Outside.ADDRESS), (Outside.HOST6, Outside.ADDRESS6)):
        assert seen(outside, container, there, 8080, protocol=protocol) == source


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_host_reaches_the_container_by_its_own_addresses(host: Host, protocol: str) -> None:
    container = published(host, mapping(8080, 80, protocol), subnets=BOTH)

    for own in (GATEWAY, "127.0.0.1", "127.8.9.10", GATEWAY6):
        source = seen(host, container, own, 8080, protocol=protocol)
        assert source == (GATEWAY6 if ":" in own else GATEWAY)


def test_container_reaches_itself_and_its_siblings_by_the_host(host: Host) -> None:
    """The answers have to return through the host, so the host replaces the source address by its own.

    If the kernel shows bridged packets to nftables (bridge-nf-call-iptables), a container reaches itself
    only if the bridge sends frames back to the port that they came from.
    """
    host.outside()
    container, result = attach(host, *BOTH, hairpinMode=True)
    publish(host, container, result, conf(mapping(8080)))
    sibling, _ = attach(host, *BOTH)

    for client in (container, sibling):
        assert seen(client, container, Outside.HOST, 8080) == GATEWAY
        assert seen(client, container, Outside.HOST6, 8080) == GATEWAY6


def test_without_snat_addresses_stay_as_they_are(host: Host) -> None:
    """Neither the subnet nor 127.0.0.1 gets an answer then."""
    outside = host.outside()
    container = published(host, mapping(8080), snat=False)

    assert seen(outside, container, Outside.HOST, 8080) == Outside.ADDRESS
    assert not reached(container, container, Outside.HOST, 8080)
    assert not reached(host, container, "127.0.0.1", 8080)
    assert host.sysctl("net/ipv4/conf/cni0/route_localnet") == "0"


@OLD_KEYS
def test_masq_all_shows_the_container_only_the_host(host: Host) -> None:
    outside = host.outside()
    container = published(host, mapping(8080), subnets=BOTH, masqAll=True)

    assert seen(outside, container, Outside.HOST, 8080) == GATEWAY
    assert seen(outside, container, Outside.HOST6, 8080) == GATEWAY6
    assert seen(host, container, "127.0.0.1", 8080) == GATEWAY


def test_container_of_ptp_is_reached_like_that_of_a_bridge(host: Host) -> None:
    outside = host.outside()
    container, result = attach(host, *BOTH, type="ptp", bridge=None, isGateway=None)
    publish(host, container, result, conf(mapping(8080)))

    assert seen(outside, container, Outside.HOST, 8080) == Outside.ADDRESS
    assert seen(host, container, "127.0.0.1", 8080) == GATEWAY
    for there, gateway in ((Outside.HOST, GATEWAY), (Outside.HOST6, GATEWAY6)):
        assert seen(container, container, there, 8080) == gateway


def test_many_ports_of_one_container(host: Host) -> None:
    outside = host.outside()
    ports = [mapping(8000 + number, 80 + number) for number in range(20)]
    container = published(host, *ports, mapping(8000, 53, "udp"))

    for number in (0, 14, 15, 19):
        assert seen(outside, container, Outside.HOST, 8000 + number, 80 + number)
    assert seen(outside, container, Outside.HOST, 8000, 53, protocol="udp")
    assert not reached(outside, container, Outside.HOST, 8020, 100)


def test_sctp_is_published(host: Host) -> None:
    """The test checks the rule only, because the kernel may have no SCTP sockets."""
    published(host, mapping(9, 9, "sctp"))

    assert "sctp" in host.nft()


def test_protocol_may_be_in_capital_letters(host: Host) -> None:
    container = published(host, mapping(8080, 80, "TCP"))

    assert seen(host, container, GATEWAY, 8080) == GATEWAY


# Addresses of the host


def test_host_address_is_the_only_one(host: Host) -> None:
    outside = host.outside()
    host.run("ip", "address", "add", "198.51.100.3/24", "dev", "up0")
    host.save_state()
    container = published(host, mapping(8080, ip="198.51.100.3"), mapping(8081, ip="127.0.0.1"))

    assert seen(outside, container, "198.51.100.3", 8080) == Outside.ADDRESS
    assert not reached(outside, container, Outside.HOST, 8080)
    assert not reached(host, container, "127.0.0.1", 8080)
    assert seen(host, container, "127.0.0.1", 8081) == GATEWAY
    assert not reached(outside, container, Outside.HOST, 8081)


def test_host_address_selects_the_ip_version(host: Host) -> None:
    """A host address of one version publishes the port for this version only; no address means both."""
    outside = host.outside()
    ips = ["", "0.0.0.0", "::", Outside.HOST6]
    ports = [mapping(8000 + i, 80, ip=ip) for i, ip in enumerate(ips)]
    container = published(host, *ports, subnets=BOTH)

    for there, ways in ((Outside.HOST, [1, 1, 0, 0]), (Outside.HOST6, [1, 0, 1, 1])):
        for port, way in enumerate(ways, 8000):
            assert reached(outside, container, there, port, expected=bool(way)) == way


@pytest.mark.known_difference(
    "a port for an IP version that the container lacks gets a rule that jumps to an empty chain",
    here="no rule",
    right="either",
)
def test_address_of_the_other_ip_version_publishes_nothing(host: Host) -> None:
    published(host, mapping(8080, ip="2001:db8::1"))

    assert "8080" not in host.nft()


@pytest.mark.known_difference(
    "a port on ::1 gets rules that never match",
    here="a process of the host keeps the port",
    right="cnihook",
)
def test_process_of_the_host_keeps_the_port_on_ipv6_loopback(host: Host) -> None:
    """The kernel would drop the answers, so packets to ::1 are not for the container."""
    published(host, mapping(8080, 8080), subnets=BOTH)

    assert seen(host, host, "::1", 8080, 8080) == "::1"


# Other programs and plugins


def test_ports_of_docker_and_of_cnihook_work_side_by_side(host: Host) -> None:
    """Docker's rules are as Docker writes them, before and after those of cnihook."""
    host.leaves("nft: table ip nat*")
    outside = host.outside()
    other, result = attach(host)
    host.run("sh", "-ec", DOCKER.format(address=address(result)))
    container = published(host, mapping(8080))
    host.run("sh", "-ec", DOCKER_PORT.format(port=9091, address=address(result)))

    assert seen(outside, container, Outside.HOST, 8080) == Outside.ADDRESS
    for port in (9090, 9091):
        assert seen(outside, other, Outside.HOST, port) == Outside.ADDRESS
    assert seen(host, other, Outside.HOST, 9090)


def test_container_without_ports_changes_nothing(host: Host) -> None:
    """Most containers publish no port, and must not pay for it."""
    container, result = attach(host)
    before = host.nft()

    assert host.cni("ADD", conf() | {"prevResult": result}, container) == result
    assert host.nft() == before


@pytest.mark.parametrize("sent", [conf(), conf(mapping(8080))])
def test_portmap_must_follow_another_plugin(host: Host, container: Container, sent: Any) -> None:
    with pytest.raises(CniFailure, match="must be called as chained plugin"):
        host.cni("ADD", sent, container)
