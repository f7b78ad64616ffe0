# SPDX-License-Identifier: Apache-2.0
"""ptp: the link and the routes that ADD makes, the traffic through them, and how DEL removes them."""

import json
import re
import socket
from typing import Any

import pytest

from tests.netns.differences import (
    BACKEND,
    HOST_NETNS,
    KEEPS_LEASE,
    LEAKS_LINK,
    SPEC_1_1,
    TAKES_ADDRESS,
    WAITS_FOR_DAD,
)
from tests.support.host.host import ACCEPT_DAD, Container, Host, Outside
from tests.support.host.sockets import connect, reaches, source_seen
from tests.support.plugins.bridge import add, address, leased
from tests.support.plugins.cni import CniFailure
from tests.support.plugins.ptp import BOTH, DEFAULT, MASQUERADED, ROUTED, SUBNET, SUBNET6, network, static

NO_GATEWAY = pytest.mark.known_difference(
    "ADD fails without a gateway", here="uses the first address of the subnet", right="cnihook"
)


def host_end(host: Host, result: Any) -> Any:
    return host.link(result["interfaces"][0]["name"])


@pytest.fixture
def quick(container: Container) -> Container:
    """Return a container in which the reference does not wait 2 s to see if an IPv6 address is unique."""
    container.set_sysctl(ACCEPT_DAD, "0")
    return container


def expect_nothing_of(host: Host, container: Container) -> None:
    assert container.links() == {"lo"}
    assert leased(host) == []
    assert not any(link.startswith("veth") for link in host.links())


@pytest.mark.parametrize("version", ["1.0.0", pytest.param("1.1.0", marks=SPEC_1_1)])
def test_result_has_both_ends_and_the_address(host: Host, container: Container, version: str) -> None:
    result = host.cni("ADD", network(SUBNET, version=version, ipam={"routes": [DEFAULT]}), container)

    outer, inner = result["interfaces"]
    assert re.fullmatch("veth[0-9a-f]{8}", outer["name"])
    assert outer == {"name": outer["name"], "mac": host.link(outer["name"])["address"]}
    assert inner == {"name": "eth0", "mac": container.link("eth0")["address"], "sandbox": container.path}
    assert result == {
        "cniVersion": version,
        "interfaces": [outer, inner],
        "ips": [{"interface": 1, "address": "10.9.0.2/24", "gateway": "10.9.0.1"}],
        "routes": [DEFAULT],
    }


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0"])
def test_result_of_0_3_has_the_family_of_the_address(host: Host, container: Container, version: str) -> None:
    result = host.cni("ADD", network(SUBNET, version=version), container)

    assert result["cniVersion"] == version and len(result["interfaces"]) == 2 and result["dns"] == {}
    assert [(ip["version"], ip["interface"]) for ip in result["ips"]] == [("4", 1)]


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_result_of_0_2_has_addresses_only(host: Host, container: Container, version: str) -> None:
    assert host.cni("ADD", network(SUBNET, version=version), container) == {
        "cniVersion": version,
        "ip4": {"ip": "10.9.0.2/24", "gateway": "10.9.0.1"},
        "dns": {},
    }


def test_subnet_is_reached_by_the_gateway_only(host: Host, quick: Container) -> None:
    """The neighbours are not on this link, so the container must not look for them there."""
    host.cni("ADD", network(SUBNET, SUBNET6), quick)

    assert quick.addresses("eth0") == ["10.9.0.2/24", "2001:db8:9::2/64"]
    assert sorted(quick.routes(4)) == [
        ("10.9.0.0/24", "10.9.0.1", "eth0"),
        ("10.9.0.1", None, "eth0"),
    ]
    assert sorted(route for route in quick.routes(6) if route[0] != "ff00::/8") == [
        ("2001:db8:9::/64", "2001:db8:9::1", "eth0"),
        ("2001:db8:9::1", None, "eth0"),
    ]
    assert {route["prefsrc"] for route in quick.ip("-4", "route")} == {"10.9.0.2"}


def test_host_has_the_gateways_address_and_a_route_to_the_container(host: Host, quick: Container) -> None:
    result = host.cni("ADD", network(SUBNET, SUBNET6), quick)

    link = host_end(host, result)
    name = link["ifname"]
    assert "UP" in link["flags"] and link["linkinfo"]["info_kind"] == "veth"
    assert host.addresses(name) == ["10.9.0.1/32", "2001:db8:9::1/128"]
    assert host.routes(4) == [("10.9.0.2", None, name)]
    assert ("2001:db8:9::2", None, name) in host.routes(6)


def test_route_of_ipam_uses_its_own_or_the_hosts_gateway(host: Host, container: Container) -> None:
    routes = [DEFAULT, {"dst": "192.0.2.0/24", "gw": "10.9.0.1"}]
    host.cni("ADD", network(SUBNET, ipam={"routes": routes}), container)

    assert {("default", "10.9.0.1", "eth0"), ("192.0.2.0/24", "10.9.0.1", "eth0")} < set(container.routes())


def test_host_becomes_a_router(host: Host, quick: Container) -> None:
    """Only for the families that its containers have."""
    assert host.sysctl("net/ipv4/ip_forward") == host.sysctl("net/ipv6/conf/all/forwarding") == "0"
    add(host, network(SUBNET))
    assert (host.sysctl("net/ipv4/ip_forward"), host.sysctl("net/ipv6/conf/all/forwarding")) == ("1", "0")
    add(host, network(SUBNET6, name="net6"), quick)
    assert host.sysctl("net/ipv6/conf/all/forwarding") == "1"


@NO_GATEWAY
def test_gateway_defaults_to_the_first_address(host: Host, container: Container) -> None:
    result = host.cni("ADD", static({"address": "10.9.0.77/24"}), container)

    assert result["ips"] == [{"interface": 1, "address": "10.9.0.77/24", "gateway": "10.9.0.1"}]
    assert connect(container, host, "10.9.0.1") == "10.9.0.77"


@NO_GATEWAY
@pytest.mark.parametrize("net", ["10.9.0.1/24", "10.9.0.7/32", "2001:db8:9::7/128"])
def test_address_that_leaves_no_room_for_a_gateway_is_refused(
    host: Host, container: Container, net: str
) -> None:
    with pytest.raises(CniFailure, match="gateway"):
        host.cni("ADD", static({"address": net}), container)
    expect_nothing_of(host, container)


@pytest.mark.known_difference("ADD fails if two addresses share a gateway", here="works", right="cnihook")
def test_two_addresses_may_share_a_gateway(host: Host, container: Container) -> None:
    addresses = [{"address": f"10.9.0.{last}/24", "gateway": "10.9.0.1"} for last in (5, 6)]
    host.cni("ADD", static(*addresses), container)

    assert container.addresses("eth0") == ["10.9.0.5/24", "10.9.0.6/24"]
    for last in (5, 6):
        assert connect(host, container, f"10.9.0.{last}") == "10.9.0.1"


@pytest.mark.known_difference(
    "ADD fails if the gateway is outside of the subnet", here="works", right="cnihook"
)
def test_gateway_may_be_out_of_the_subnet(host: Host, container: Container) -> None:
    """Clouds assign a single address, and a gateway that every container shares."""
    host.cni("ADD", static({"address": "10.9.0.7/32", "gateway": "169.254.1.1"}), container)

    assert connect(container, host, "169.254.1.1") == "10.9.0.7"


def test_dns_of_the_network_overrides_that_of_ipam(host: Host) -> None:
    own, ipam = {"nameservers": ["192.0.2.53"]}, {"domain": "x.test"}
    conf = static({"address": "10.9.0.7/24", "gateway": "10.9.0.1"}, dns=own)
    conf["ipam"]["dns"] = ipam
    assert add(host, conf)[1]["dns"] == own

    conf = static({"address": "10.9.0.8/24", "gateway": "10.9.0.1"}, name="net2")
    conf["ipam"]["dns"] = ipam
    assert add(host, conf)[1]["dns"] == ipam


def test_mtu_is_set_on_both_ends(host: Host, container: Container) -> None:
    """A packet of that size passes; a packet that is one byte larger does not."""
    result = host.cni("ADD", network(SUBNET, mtu=1400), container)
    assert [host_end(host, result)["mtu"], container.link("eth0")["mtu"]] == [1400, 1400]

    size = 1400 - 20 - 8  # without the headers of IP and UDP
    mtu_discover, do = 10, 2  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
    with container.socket(socket.SOCK_DGRAM) as sender, host.socket(socket.SOCK_DGRAM) as receiver:
        receiver.bind(("", 0))
        sender.setsockopt(socket.IPPROTO_IP, mtu_discover, do)
        there = ("10.9.0.1", receiver.getsockname()[1])
        sender.sendto(bytes(size), there)
        assert len(receiver.recv(2000)) == size
        with pytest.raises(OSError, match="Message too long"):
            sender.sendto(bytes(size + 1), there)


def test_containers_reach_the_host_and_each_other_through_it(host: Host) -> None:
    """Both families work side by side."""
    (one, first), (two, second) = (add(host, network(SUBNET, SUBNET6)) for _ in range(2))

    for family, gateway in enumerate(["10.9.0.1", "2001:db8:9::1"]):
        assert connect(one, host, gateway) == address(first, family)
        assert connect(host, one, address(first, family)) == gateway
        assert connect(one, two, address(second, family)) == address(first, family)
        assert connect(two, one, address(first, family)) == address(second, family)


@WAITS_FOR_DAD
def test_ipv6_addresses_can_be_used_at_once(host: Host, container: Container) -> None:
    """On both ends, whatever the host's setting is for other links."""
    host.set_sysctl(ACCEPT_DAD, "1")
    result = host.cni("ADD", network(SUBNET6), container)

    for link in (host_end(host, result), container.link("eth0")):
        (global_address,) = [item for item in link["addr_info"] if item["scope"] == "global"]
        assert "tentative" not in global_address


def test_masqueraded_container_reaches_the_outside(host: Host, quick: Container) -> None:
    """The outside has no route to the container; it sees the host's address."""
    outside = host.outside()
    add(host, BOTH, quick)

    assert connect(quick, outside, Outside.ADDRESS) == Outside.HOST
    assert connect(quick, outside, Outside.ADDRESS6) == Outside.HOST6


def test_without_masquerade_the_outside_sees_the_container(host: Host) -> None:
    outside = host.outside()
    one, result = add(host, ROUTED)

    assert source_seen(one, outside, Outside.ADDRESS) == address(result)
    assert not reaches(one, outside, Outside.ADDRESS)


def test_nothing_is_masqueraded_within_the_subnet(host: Host) -> None:
    (one, first), (two, second) = (add(host, MASQUERADED) for _ in range(2))

    assert connect(one, two, address(second)) == address(first)


@TAKES_ADDRESS
def test_address_of_another_container_is_refused(host: Host) -> None:
    """The host has one route to an address, which stays with the container that has the address."""
    conf = static({"address": "10.9.0.7/24", "gateway": "10.9.0.1"})
    one, _ = add(host, conf)
    two = host.container()

    with pytest.raises(CniFailure, match="10.9.0.7"):
        host.cni("ADD", conf, two)

    assert two.links() == {"lo"}
    assert connect(host, one, "10.9.0.7") == "10.9.0.1"


WRONG = [
    pytest.param({"ipam": None}, "", "", id="no ipam"),
    pytest.param({"ipam": {"type": "no-such-ipam"}}, "no-such-ipam", "", id="no such ipam"),
    pytest.param({"mtu": "1500"}, "mtu", "", id="mtu is a string"),
    pytest.param({"mtu": 10}, "", "", id="mtu that the kernel refuses"),
    pytest.param({"ipMasq": "yes"}, "ipMasq", "", id="ipMasq is a string"),
    pytest.param({"ipMasqBackend": "pf", "ipMasq": True}, "pf", "", marks=BACKEND, id="no such backend"),
    pytest.param({"dns": {"nameservers": "192.0.2.1"}}, "nameservers", "", id="nameservers is a string"),
    pytest.param({}, "/run/netns/none", "/run/netns/none", id="no such namespace"),
]


@pytest.mark.parametrize(("keys", "named", "netns"), WRONG)
def test_add_that_fails_leaves_nothing(
    host: Host, container: Container, keys: dict[str, Any], named: str, netns: str
) -> None:
    with pytest.raises(CniFailure) as failure:
        host.cni("ADD", network(SUBNET) | keys, container, CNI_NETNS=netns or container.path)

    assert named in f"{failure.value.msg} {failure.value.details}"
    expect_nothing_of(host, container)


@LEAKS_LINK
def test_add_with_a_route_that_the_kernel_refuses_leaves_nothing(host: Host, container: Container) -> None:
    """The kernel refuses it late, when links, addresses and the other routes exist."""
    routes = [{"dst": "192.0.2.0/24", "gw": "203.0.113.1"}]
    with pytest.raises(CniFailure):
        host.cni("ADD", network(SUBNET, ipMasq=True, ipam={"routes": routes}), container)
    expect_nothing_of(host, container)


@HOST_NETNS
def test_add_to_the_hosts_own_namespace_is_refused(host: Host, container: Container) -> None:
    with pytest.raises(CniFailure) as failure:
        host.cni("ADD", MASQUERADED, container, CNI_NETNS="/proc/1/ns/net")

    assert failure.value.code == 8
    expect_nothing_of(host, container)


def test_second_add_leaves_the_first_as_it_was(host: Host, container: Container) -> None:
    add(host, network(SUBNET), container)

    with pytest.raises(CniFailure):
        host.cni("ADD", network(SUBNET), container)

    assert leased(host) == ["10.9.0.2"]
    assert connect(host, container, "10.9.0.2") == "10.9.0.1"


@KEEPS_LEASE
@pytest.mark.parametrize(
    "answer",
    [{"cniVersion": "1.0.0"}, {"cniVersion": "1.0.0", "code": 11, "msg": "busy"}],
    ids=["no address", "refusal"],
)
def test_ipam_plugin_that_fails_gets_a_del(host: Host, container: Container, answer: dict[str, Any]) -> None:
    """The plugin may have kept a lease (SPEC.md, "Delegated plugins").  The error has its code."""
    assert host.implementation
    script = f"echo $CNI_COMMAND >> /run/asked; echo '{json.dumps(answer)}'; exit {int('code' in answer)}"
    host.write("/run/plugins/fake", f"#!/bin/sh\n{script}\n", mode=0o755)
    host.leaves("dir /run/plugins", "file /run/plugins/fake", "file /run/asked")

    with pytest.raises(CniFailure) as failure:
        host.cni("ADD", network(ipam={"type": "fake"}), container, CNI_PATH="/run/plugins")

    assert failure.value.code == answer.get("code", 999)
    commands = host.read("/run/asked").split()
    assert commands[0] == "ADD" and commands[-1] == "DEL"
    expect_nothing_of(host, container)
