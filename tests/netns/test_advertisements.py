# SPDX-License-Identifier: Apache-2.0
"""Router advertisements: the host keeps the routes that it depends on; those of containers are ignored."""

from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.plugins import bridge, cni
from tests.support.plugins.cni import CniFailure
from tests.support.services.advertising import PREFIX, Router, advertise, has_default_route, teach

SUBNET, SUBNET6 = "10.9.0.0/24", "fd09::/64"


@pytest.fixture
def implementation(implementations: dict[str, cni.Implementation]) -> cni.Implementation:
    """Return the built-in plugins only: the reference's enable forwarding and check nothing else."""
    return implementations["builtin"]


def bridged(*subnets: str, **keys: Any) -> dict[str, Any]:
    return bridge.network(*(subnets or (SUBNET6,)), **{"isGateway": True} | keys)


def routed() -> dict[str, Any]:
    ipam = {"type": "host-local", "ranges": [[{"subnet": SUBNET6}]]}
    return {"cniVersion": "1.0.0", "name": "net1", "type": "ptp", "ipam": ipam}


def forwards(host: Host) -> bool:
    return host.sysctl("net/ipv6/conf/all/forwarding") == "1"


def accept_ra(host: Host, name: str) -> str:
    return host.sysctl(f"net/ipv6/conf/{name}/accept_ra")


@pytest.fixture(autouse=True)
def off(host: Host) -> None:
    host.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=0")


# Advertisements that the host depends on


@pytest.mark.parametrize(
    "conf", [bridged(), bridged(SUBNET, SUBNET6), routed()], ids=["bridge", "dual", "ptp"]
)
def test_routes_from_advertisements_stay(host: Host, container: Container, conf: dict[str, Any]) -> None:
    router = Router(host)
    router.teach()

    host.cni("ADD", conf, container)

    assert forwards(host) and accept_ra(host, "ra0") == "2"
    assert has_default_route(host, "ra0")
    assert f"{PREFIX}/64 dev ra0" in host.run("ip", "-6", "route").stdout


def test_later_advertisements_are_accepted(host: Host, container: Container) -> None:
    """The link is down when the first container starts, as before a cable is plugged in."""
    late = Router(host, up=False)

    host.cni("ADD", bridged(), container)

    host.run("ip", "link", "set", "ra0", "up")
    late.teach()
    assert PREFIX[:-1] in host.run("ip", "-6", "addr", "show", "dev", "ra0").stdout


def test_routes_learned_after_forwarding_was_disabled_stay(host: Host, container: Container) -> None:
    conf = bridged()
    host.cni("ADD", conf, container)
    host.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=0")
    Router(host).teach()

    host.cni("ADD", conf, host.container())

    assert forwards(host) and has_default_route(host, "ra0")


def test_uplink_may_be_a_port_of_the_containers_bridge(host: Host, container: Container) -> None:
    host.run("ip", "link", "add", "br1", "type", "bridge")
    host.run("ip", "link", "set", "br1", "up")
    host.leaves("link br1 *", "address br1 *", "route br1 *", "route * br1 *")
    router = Router(host)
    host.run("ip", "link", "set", "ra0", "master", "br1")
    router.teach("br1")

    host.cni("ADD", bridged(bridge="br1"), container)

    assert has_default_route(host, "br1") and accept_ra(host, "br1") == "2"
    assert accept_ra(host, "ra0") == "1"  # a port has no routes of its own
    router.teach("br1")


@pytest.mark.parametrize("value", [0, 2])
def test_other_settings_of_a_link_stay(host: Host, container: Container, value: int) -> None:
    Router(host)
    host.run("sysctl", "-qw", f"net.ipv6.conf.ra0.accept_ra={value}")

    host.cni("ADD", bridged(), container)

    assert forwards(host) and accept_ra(host, "ra0") == str(value)


def test_nothing_changes_if_forwarding_is_on_or_not_needed(host: Host) -> None:
    Router(host)
    host.cni("ADD", bridged(SUBNET), host.container())
    host.cni("ADD", bridged(isGateway=False, bridge="br2"), host.container())
    assert not forwards(host) and accept_ra(host, "ra0") == "1"
    host.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")

    host.cni("ADD", bridged(), host.container())

    assert accept_ra(host, "ra0") == "1"


def test_default_for_new_links_stays(host: Host, container: Container) -> None:
    host.cni("ADD", bridged(), container)

    assert accept_ra(host, "default") == "1"


def test_add_fails_if_the_host_would_lose_its_routes(host: Host, container: Container) -> None:
    router = Router(host, "ra0.7")
    router.teach()
    path = "/proc/sys/net/ipv6/conf/ra0.7/accept_ra"
    host.run("mount", "--bind", path, path)
    host.run("mount", "-o", "remount,ro,bind", path)
    host.leaves(f"mount {path}", "dir /run/mount")

    with pytest.raises(CniFailure) as failure:
        host.cni("ADD", bridged(), container)

    assert "Read-only file system" in str(failure.value)
    assert "sysctl -w net.ipv6.conf.ra0/7.accept_ra=2" in str(failure.value)
    assert not forwards(host) and has_default_route(host, "ra0.7")


# Advertisements of containers


def make_bridge(host: Host, *commands: str) -> None:
    for command in ("link add br1 type bridge", "link set br1 up", *commands):
        host.run("ip", *command.split())
    host.leaves("link br1 *", "address br1 *", "route br1 *", "route * br1 *")


@pytest.mark.parametrize(
    "conf", [bridged(SUBNET, bridge="br1"), bridged(bridge="br1"), bridged(bridge="br1", isGateway=False)]
)
def test_container_does_not_give_the_host_a_route(
    host: Host, container: Container, conf: dict[str, Any]
) -> None:
    make_bridge(host)
    assert accept_ra(host, "br1") == "1"

    host.cni("ADD", conf, container)

    assert accept_ra(host, "br1") == "0"
    advertise(container)
    advertise(container)
    assert not has_default_route(host, "br1")


def test_card_in_the_bridge_keeps_its_router(host: Host, container: Container) -> None:
    """The router's advertisement may come after the first container."""
    make_bridge(host, "link add vx0 type vxlan id 7 dstport 4789 dev lo", "link set vx0 master br1")
    host.leaves("link vx0 *")

    host.cni("ADD", bridged(SUBNET, bridge="br1"), container)

    assert accept_ra(host, "br1") == "1"


def test_port_of_the_default_route_keeps_its_router(host: Host, container: Container) -> None:
    """If the host is a container itself, its uplink is a veth pair.  IPv4 may be up first."""
    make_bridge(host)
    Router(host)
    host.run("ip", "link", "set", "ra0", "master", "br1")
    host.run("ip", "address", "add", "192.0.2.2/24", "dev", "br1")
    host.run("ip", "route", "add", "default", "via", "192.0.2.1")

    host.cni("ADD", bridged(SUBNET, bridge="br1", isGateway=False), container)

    assert accept_ra(host, "br1") == "1"


def test_other_containers_in_the_bridge_are_not_an_uplink(host: Host, container: Container) -> None:
    """Ports of another engine, or of cnihook."""
    make_bridge(host)
    Router(host)
    host.run("ip", "link", "set", "ra0", "master", "br1")

    host.cni("ADD", bridged(SUBNET, bridge="br1"), container)

    assert accept_ra(host, "br1") == "0"


def test_route_from_a_container_does_not_keep_accept_ra_on(host: Host, container: Container) -> None:
    """An earlier version left accept_ra of the bridge on, and a container has sent a route."""
    make_bridge(host)
    conf = bridged(SUBNET, bridge="br1")
    host.cni("ADD", conf, container)
    host.run("sysctl", "-qw", "net.ipv6.conf.br1.accept_ra=1")
    teach(host, container, "br1")

    host.cni("ADD", conf, host.container())

    assert accept_ra(host, "br1") == "0"


def test_host_end_ignores_advertisements_before_it_is_up(host: Host, container: Container) -> None:
    """The default for new links makes no difference."""
    host.run("sysctl", "-qw", "net.ipv6.conf.default.accept_ra=2")
    result = host.cni("ADD", routed(), container)

    assert accept_ra(host, result["interfaces"][0]["name"]) == "0"
    host.run("sysctl", "-qw", "net.ipv6.conf.default.accept_ra=1")


# The bridge's MAC


def test_existing_bridge_keeps_its_mac(host: Host) -> None:
    """The kernel gives a bridge the lowest MAC of its ports, so it changes with the ports."""
    make_bridge(host)
    conf = bridged(SUBNET, bridge="br1")
    _, result = bridge.add(host, conf)
    mac = host.link("br1")["address"]
    assert result["interfaces"][0]["mac"] == mac

    host.run(
        "ip", "link", "add", "low", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "up1"
    )
    host.run("ip", "link", "set", "low", "master", "br1")
    assert host.link("br1")["address"] == mac
    host.run("ip", "link", "del", "low")
    assert host.link("br1")["address"] == mac


def test_new_bridge_has_its_mac_from_the_start(host: Host, container: Container) -> None:
    """If the process is killed right after it made the bridge, the MAC still cannot change."""
    host.cni("ADD", bridged(SUBNET), container)

    mac = host.link("cni0")["address"]
    assert int(mac[:2], 16) & 3 == 2
    assert host.read("/sys/class/net/cni0/addr_assign_type").strip() == "3"


def test_mac_that_the_administrator_chose_stays(host: Host, container: Container) -> None:
    make_bridge(host, "link set br1 address 02:00:00:00:00:99")

    host.cni("ADD", bridged(SUBNET, bridge="br1"), container)

    assert host.link("br1")["address"] == "02:00:00:00:00:99"
