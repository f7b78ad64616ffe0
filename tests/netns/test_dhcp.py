# SPDX-License-Identifier: Apache-2.0
"""dhcp: the address that a server on the container's network grants.  The server is a real dnsmasq."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.host import sockets
from tests.support.host.host import Container, Host
from tests.support.plugins import cni
from tests.support.plugins.cni import CniFailure
from tests.support.services import dhcp
from tests.support.services.dhcp import Lan, address, client_id, network, request

pytestmark = pytest.mark.needs("dnsmasq")

NO_DNS = pytest.mark.known_difference(
    "name servers and domains of the DHCP server are not in the result",
    here="they are in the result",
    right="SPEC.md, 5 Success",
)


@pytest.fixture
def lan(host: Host, implementation: cni.Implementation, tmp_path: Path) -> Iterator[Lan]:
    """Return the network.  For the reference, start its daemon, too."""
    segment = Lan(host, tmp_path)
    if implementation.name == "reference":
        dhcp.reference_daemon(host)
    host.save_state()
    dhcp.leave_keeper(host)
    with segment:
        yield segment


@pytest.fixture
def container(host: Host, lan: Lan) -> Container:
    """Return a container that has a link, so that the plugin dhcp can be called by itself."""
    return lan.plug(host.container())


def test_container_on_a_bridge_gets_an_address_and_uses_it(host: Host, lan: Lan) -> None:
    """The link is up when the plugin sends its requests, and ready for use when ADD returns."""
    lan.serve()
    container = host.container()
    result = host.cni("ADD", network(), container)

    assert result["ips"] == [{"interface": 2, "address": f"{address(result)}/24", "gateway": lan.ADDRESS}]
    assert container.addresses("eth0") == [f"{address(result)}/24"]
    assert ("default", lan.ADDRESS, "eth0") in container.routes()
    assert sockets.connect(container, lan.machine, lan.ADDRESS) == address(result)


def test_result_holds_address_gateway_and_default_route(host: Host, lan: Lan, container: Container) -> None:
    lan.serve()
    result = request(host, "ADD", network(), container)

    assert result == {
        "cniVersion": "1.0.0",
        "ips": [{"address": f"{address(result)}/24", "gateway": lan.ADDRESS}],
        "routes": [{"dst": "0.0.0.0/0", "gw": lan.ADDRESS}],
    }


def test_link_that_is_down_is_set_up(host: Host, lan: Lan, container: Container) -> None:
    """Some interface plugins call for an address before they set the link up."""
    container.run("ip", "link", "set", "eth0", "down")
    lan.serve()
    request(host, "ADD", network(), container)

    assert "UP" in container.link("eth0")["flags"]


def test_missing_link_is_an_error(host: Host, lan: Lan) -> None:
    lan.serve()

    with pytest.raises(CniFailure, match="eth0"):
        request(host, "ADD", network(), host.container())


def test_client_id_is_made_of_container_and_network(host: Host, lan: Lan) -> None:
    """The MAC address is another one at the next start of the same container."""
    container = lan.plug(host.container("x" * 200))
    lan.serve()
    request(host, "ADD", network() | {"name": "n" * 60}, container)

    assert {lease[2] for lease in lan.leases().values()} == {client_id(container, "n" * 60)}


@NO_DNS
def test_name_servers_and_domains_are_in_the_result(host: Host, lan: Lan, container: Container) -> None:
    servers = "--dhcp-option=6,10.9.0.1,192.0.2.53"
    lan.serve(servers, "--domain=lan.example", "--dhcp-option=119,a.example,b.a.example")

    assert request(host, "ADD", network(), container)["dns"] == {
        "nameservers": ["10.9.0.1", "192.0.2.53"],
        "domain": "lan.example",
        "search": ["a.example", "b.a.example"],
    }


def test_configured_dns_overrides_that_of_the_server(host: Host, lan: Lan) -> None:
    lan.serve("--dhcp-option=6,10.9.0.1")
    dns = {"nameservers": ["192.0.2.9"]}

    assert host.cni("ADD", network() | {"dns": dns}, host.container())["dns"] == dns


def test_classless_routes_replace_the_router(host: Host, lan: Lan, container: Container) -> None:
    """RFC 3442: a client that gets option 121 ignores option 3, even if it then has no default route."""
    lan.serve("--dhcp-option=121,192.0.2.0/24,10.9.0.7,198.51.100.128/25,10.9.0.8")

    assert request(host, "ADD", network(request=[{"option": "121"}]), container)["routes"] == [
        {"dst": "192.0.2.0/24", "gw": "10.9.0.7"},
        {"dst": "198.51.100.128/25", "gw": "10.9.0.8"},
    ]


@pytest.mark.known_difference(
    "classless routes are requested only if the configuration says so",
    here="always requested",
    right="cnihook",
)
def test_classless_routes_are_requested(host: Host, lan: Lan, container: Container) -> None:
    """Every other machine on such a network requests them."""
    lan.serve("--dhcp-option=121,192.0.2.0/24,10.9.0.7")

    routes = request(host, "ADD", network(), container)["routes"]
    assert routes == [{"dst": "192.0.2.0/24", "gw": "10.9.0.7"}]


@pytest.mark.known_difference(
    "a classless route without a router has the gateway 0.0.0.0",
    here="it is a route on the link",
    right="cnihook",
)
def test_classless_route_without_a_router_is_on_the_link(host: Host, lan: Lan) -> None:
    lan.serve("--dhcp-option=121,192.0.2.0/24,0.0.0.0,198.51.100.0/24,10.9.0.1")
    container = host.container()
    conf = network(version="1.1.0", request=[{"option": "121"}])

    assert host.cni("ADD", conf, container)["routes"] == [
        {"dst": "192.0.2.0/24", "scope": 253},
        {"dst": "198.51.100.0/24", "gw": "10.9.0.1"},
    ]
    assert ("192.0.2.0/24", None, "eth0") in container.routes()


def test_static_routes_do_not_replace_the_router(host: Host, lan: Lan, container: Container) -> None:
    """Option 33 has no prefix lengths.  172.16.0.0 has that of its class, 16."""
    lan.serve("--dhcp-option=33,172.16.0.0,10.9.0.7")

    assert request(host, "ADD", network(request=[{"option": "33"}]), container)["routes"] == [
        {"dst": "172.16.0.0/16", "gw": "10.9.0.7"},
        {"dst": "0.0.0.0/0", "gw": "10.9.0.1"},
    ]


@pytest.mark.known_difference(
    "not every route has `priority` as its metric", here="every route has it", right="cnihook"
)
def test_priority_is_the_metric_of_every_route(host: Host, lan: Lan, container: Container) -> None:
    lan.serve("--dhcp-option=33,172.16.0.0,10.9.0.7")
    result = request(host, "ADD", network(version="1.1.0", priority=77), container)

    assert [route["priority"] for route in result["routes"]] == [77, 77]


@pytest.mark.parametrize(
    ("provide", "args", "seen"),
    [
        ({"option": "host-name", "value": "web1"}, "", "client provides name: web1\n"),
        ({"option": "12", "value": "web1"}, "", "client provides name: web1\n"),
        ({"option": "host-name", "fromArg": "POD"}, "POD=pod7;X=y", "client provides name: pod7\n"),
        ({"option": "host-name", "value": "a", "fromArg": "POD"}, "POD=b", "client provides name: b\n"),
        ({"option": "host-name", "value": "a", "fromArg": "POD"}, "", "client provides name: a\n"),
        ({"option": "vendor-class-identifier", "value": "cni/1"}, "", "vendor class: cni/1\n"),
        ({"option": "user-class", "value": "\x04blue"}, "", "user class: blue\n"),
    ],
    ids=["name", "number", "argument", "argument first", "no argument", "vendor class", "user class"],
)
def test_options_are_provided(
    host: Host, lan: Lan, container: Container, provide: Any, args: str, seen: str
) -> None:
    lan.serve()
    request(host, "ADD", network(provide=[provide]), container, CNI_ARGS=f"IgnoreUnknown=1;{args}")

    assert lan.seen(seen)


def test_provided_client_id_is_used_unchanged(host: Host, lan: Lan, container: Container) -> None:
    lan.serve()
    provide = [{"option": "dhcp-client-identifier", "value": "abc"}]
    request(host, "ADD", network(provide=provide), container)

    assert [lease[2] for lease in lan.leases().values()] == ["61:62:63"]


def test_configured_options_are_requested(host: Host, lan: Lan, container: Container) -> None:
    lan.serve()
    request(host, "ADD", network(request=[{"option": "42"}, {"option": "routers"}]), container)

    assert lan.seen(r"requested options:.*\b42:ntp-server")


def test_default_request_can_be_left_out(host: Host, lan: Lan, container: Container) -> None:
    """The result then has no router and no name server."""
    lan.serve("--dhcp-option=6,10.9.0.1")
    conf = network(request=[{"option": "subnet-mask", "skipDefault": True}])
    result = request(host, "ADD", conf, container)

    assert result == {"cniVersion": "1.0.0", "ips": [{"address": f"{address(result)}/24"}]}


@pytest.mark.parametrize(
    "ipam",
    [
        {"provide": [{"option": "no-such-option", "value": "x"}]},
        {"provide": [{"option": "256", "value": "x"}]},
        {"provide": [{"option": "host-name", "value": "x" * 256}]},
        {"request": [{"option": "-1"}]},
    ],
    ids=["unknown", "number", "too long", "requested"],
)
def test_invalid_options_are_refused(host: Host, lan: Lan, container: Container, ipam: Any) -> None:
    lan.serve()
    with pytest.raises(CniFailure):
        request(host, "ADD", network(**ipam), container)

    assert not lan.seen("DHCPDISCOVER")


def test_lease_is_renewed(host: Host, lan: Lan, container: Container) -> None:
    """The client renews it long before it ends; a short T1 makes that visible."""
    lan.serve("--dhcp-option=58,3")
    result = request(host, "ADD", network(request=[{"option": "58"}]), container)

    lan.wait_until_seen(rf"DHCPACK\(eth0\) {address(result)}", 2)
    dhcp.wait_for(lambda: list(lan.leases()) == [address(result)], "the server has that lease")


def test_check_finds_the_lease(host: Host, lan: Lan, container: Container) -> None:
    lan.serve()
    result = request(host, "ADD", network(), container)

    assert request(host, "CHECK", network() | {"prevResult": result}, container) is None
    assert list(lan.leases()) == [address(result)]


def test_del_releases_the_address(host: Host, lan: Lan, container: Container) -> None:
    lan.serve()
    result = request(host, "ADD", network(), container)
    request(host, "DEL", network() | {"prevResult": result}, container)

    lan.wait_until_seen(rf"DHCPRELEASE\(eth0\) {address(result)}")
    dhcp.wait_for(lambda: lan.leases() == {}, "the server has no lease")


@pytest.mark.known_difference(
    "DEL removes the link first, and then fails to release the lease",
    here="the lease is released first",
    right="SPEC.md, 2 DEL",
    run=False,
)
def test_del_on_a_bridge_releases_the_address(host: Host, lan: Lan) -> None:
    """The message is sent while the link still exists."""
    lan.serve()
    container = host.container()
    result = host.cni("ADD", network(), container)
    host.cni("DEL", network() | {"prevResult": result}, container)

    lan.wait_until_seen(rf"DHCPRELEASE\(eth0\) {address(result)}")


def test_del_can_be_repeated(host: Host, lan: Lan, container: Container) -> None:
    lan.serve()
    result = request(host, "ADD", network(), container)
    for _time in range(2):
        request(host, "DEL", network() | {"prevResult": result}, container)
    request(host, "DEL", network(), host.container("never-seen"))


@pytest.mark.parametrize("netns", ["", "/run/netns/gone"], ids=["empty", "gone"])
def test_del_needs_no_namespace(host: Host, lan: Lan, netns: str) -> None:
    lan.serve()
    container = host.container()
    result = host.cni("ADD", network(), container)
    container.destroy()

    host.cni("DEL", network() | {"prevResult": result}, container, CNI_NETNS=netns)


def test_two_interfaces_of_one_container_have_separate_leases(
    host: Host, lan: Lan, container: Container
) -> None:
    lan.plug(container, "eth1")
    lan.serve()
    results = [request(host, "ADD", network(), container, f"eth{i}") for i in range(2)]
    assert {address(result) for result in results} == set(lan.leases())

    request(host, "DEL", network() | {"prevResult": results[0]}, container, "eth0")

    assert request(host, "CHECK", network() | {"prevResult": results[1]}, container, "eth1") is None


@pytest.mark.known_difference(
    "the daemon keeps the namespace of a dead container open, and the link in it",
    here="both end with the container",
    right="cnihook",
    run=False,
)
def test_crashed_container_gets_its_address_again(host: Host, lan: Lan) -> None:
    """There is no DEL.  The next start has another MAC address, but the same client ID."""
    lan.serve()
    crashed = host.container("c")
    first = host.cni("ADD", network(), crashed)
    port = first["interfaces"][1]["name"]
    crashed.destroy()
    dhcp.wait_for(lambda: port not in host.links(), "the link went with its namespace")

    assert host.cni("ADD", network(), host.container("c"))["ips"] == first["ips"]
