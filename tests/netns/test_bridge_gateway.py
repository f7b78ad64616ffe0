# SPDX-License-Identifier: Apache-2.0
"""bridge: the gateway's addresses on the bridge, the routes to it, and forwarding."""

import pytest

from tests.netns.differences import LEAKS_LINK
from tests.netns.test_bridge import SUBNET, SUBNET6
from tests.support.host.host import Container, Host
from tests.support.plugins.bridge import network
from tests.support.plugins.cni import CniFailure


def test_gateway_address_is_on_the_bridge(host: Host, container: Container) -> None:
    host.cni("ADD", network(SUBNET, SUBNET6, isGateway=True), container)

    assert host.addresses("cni0") == ["10.9.0.1/24", "2001:db8:9::1/64"]


def test_without_is_gateway_the_bridge_has_no_address(host: Host, container: Container) -> None:
    host.cni("ADD", network(SUBNET), container)

    assert host.addresses("cni0") == []


def test_gateway_defaults_to_the_first_address(host: Host, container: Container) -> None:
    """The IPAM plugin returns no gateway."""
    conf = network(isGateway=True, ipam={"type": "static", "addresses": [{"address": "10.9.0.77/24"}]})
    assert host.implementation
    path = f"{host.implementation.folder}:/usr/lib/cni"
    result = host.cni("ADD", conf, container, CNI_PATH=path)

    assert result["ips"] == [{"interface": 2, "address": "10.9.0.77/24", "gateway": "10.9.0.1"}]
    assert host.addresses("cni0") == ["10.9.0.1/24"]


def test_gateway_makes_the_host_a_router(host: Host, container: Container) -> None:
    host.run(
        "sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv6/conf/all/forwarding"
    )
    host.cni("ADD", network(SUBNET, SUBNET6, isGateway=True), container)

    assert host.sysctl("net/ipv4/ip_forward") == host.sysctl("net/ipv6/conf/all/forwarding") == "1"


def test_without_gateway_the_host_does_not_become_a_router(host: Host, container: Container) -> None:
    host.run(
        "sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv6/conf/all/forwarding"
    )
    host.cni("ADD", network(SUBNET, SUBNET6), container)

    assert host.sysctl("net/ipv4/ip_forward") == host.sysctl("net/ipv6/conf/all/forwarding") == "0"


def test_default_gateway_sets_gateway_and_route(host: Host, container: Container) -> None:
    result = host.cni("ADD", network(SUBNET, SUBNET6, isDefaultGateway=True), container)

    assert host.addresses("cni0") == ["10.9.0.1/24", "2001:db8:9::1/64"]
    assert ("default", "10.9.0.1", "eth0") in container.routes(4)
    assert ("default", "2001:db8:9::1", "eth0") in container.routes(6)
    assert result["routes"] == [
        {"dst": "0.0.0.0/0", "gw": "10.9.0.1"},
        {"dst": "::/0", "gw": "2001:db8:9::1"},
    ]


@pytest.mark.known_difference(
    "isDefaultGateway fails if ipam has a default route, too", here="sets one route", right="cnihook"
)
def test_default_gateway_may_be_configured_twice(host: Host, container: Container) -> None:
    """isDefaultGateway, and a route of ipam to the same gateway, which the route does not name."""
    conf = network(SUBNET, isDefaultGateway=True, ipam={"routes": [{"dst": "0.0.0.0/0"}]})
    host.cni("ADD", conf, container)

    assert [route for route in container.routes() if route[0] == "default"] == [
        ("default", "10.9.0.1", "eth0")
    ]


def test_default_gateway_keeps_the_default_route_of_ipam(host: Host, container: Container) -> None:
    routes = [{"dst": "0.0.0.0/0", "gw": "10.9.0.254"}]
    result = host.cni("ADD", network(SUBNET, isDefaultGateway=True, ipam={"routes": routes}), container)

    assert result["routes"] == routes
    assert [route for route in container.routes() if route[0] == "default"] == [
        ("default", "10.9.0.254", "eth0")
    ]


def test_route_uses_its_own_or_the_first_gateway(host: Host, container: Container) -> None:
    """A gateway alone makes no route.  A route without a gateway uses the first of its family."""
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.9.0.9"}, {"dst": "2001:db8:1::/48"}]
    host.cni("ADD", network(SUBNET, "10.8.0.0/24", SUBNET6, ipam={"routes": routes}), container)

    assert set(container.routes(4)) == {
        ("default", "10.9.0.1", "eth0"),
        ("192.0.2.0/24", "10.9.0.9", "eth0"),
        ("10.9.0.0/24", None, "eth0"),
        ("10.8.0.0/24", None, "eth0"),
    }
    assert ("2001:db8:1::/48", "2001:db8:9::1", "eth0") in container.routes(6)


def test_bridge_may_have_the_gateway_address_already(host: Host, container: Container) -> None:
    host.run("ip", "link", "add", "mybr", "type", "bridge")
    host.run("ip", "addr", "add", "10.9.0.1/24", "dev", "mybr")
    host.leaves("* mybr *")

    host.cni("ADD", network(SUBNET, bridge="mybr", isGateway=True), container)

    assert host.addresses("mybr") == ["10.9.0.1/24"]


@LEAKS_LINK
def test_other_address_of_the_bridge_is_refused(host: Host, container: Container) -> None:
    host.run("ip", "link", "add", "mybr", "type", "bridge")
    host.run("ip", "addr", "add", "10.8.0.1/24", "dev", "mybr")
    host.leaves("* mybr *")

    with pytest.raises(CniFailure, match="mybr"):
        host.cni("ADD", network(SUBNET, bridge="mybr", isGateway=True), container)
    assert host.addresses("mybr") == ["10.8.0.1/24"]


def test_force_address_replaces_the_other_address(host: Host, container: Container) -> None:
    host.run("ip", "link", "add", "mybr", "type", "bridge")
    host.run("ip", "addr", "add", "10.8.0.1/24", "dev", "mybr")
    host.leaves("* mybr *")

    host.cni("ADD", network(SUBNET, bridge="mybr", isGateway=True, forceAddress=True), container)

    assert host.addresses("mybr") == ["10.9.0.1/24"]


def test_ipv6_addresses_of_other_subnets_can_stay(host: Host, container: Container) -> None:
    host.run("ip", "link", "add", "mybr", "type", "bridge")
    host.run("ip", "addr", "add", "2001:db8:8::1/64", "dev", "mybr")
    host.leaves("* mybr *")

    host.cni("ADD", network(SUBNET6, bridge="mybr", isGateway=True), container)

    assert set(host.addresses("mybr")) == {"2001:db8:8::1/64", "2001:db8:9::1/64"}


@LEAKS_LINK
def test_ipv6_address_of_an_overlapping_subnet_is_refused_or_replaced(
    host: Host, container: Container
) -> None:
    host.run("ip", "link", "add", "mybr", "type", "bridge")
    host.run("ip", "addr", "add", "2001:db8:9::99/64", "dev", "mybr")
    host.leaves("* mybr *")
    conf = network(SUBNET6, bridge="mybr", isGateway=True)

    with pytest.raises(CniFailure, match="mybr"):
        host.cni("ADD", conf, container)
    assert host.addresses("mybr") == ["2001:db8:9::99/64"]

    host.cni("ADD", conf | {"forceAddress": True}, container)
    assert host.addresses("mybr") == ["2001:db8:9::1/64"]
