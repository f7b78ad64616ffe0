# SPDX-License-Identifier: Apache-2.0
"""cnihook repair: traffic flows again, after any part of a running container's network was removed."""

import json
from typing import Any

import pytest

from tests.support.commands.repair import WEB, WebContainer, cnihook, detach, repair
from tests.support.host import sockets
from tests.support.host.host import ACCEPT_DAD, Host, Outside
from tests.support.host.netns_state import NetnsState
from tests.support.plugins import firewall
from tests.support.runtimes.oci import MYNET, RESULTS, bridge, configure

PTP: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "ptp",
    "plugins": [
        {
            "type": "ptp",
            "ipMasq": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.23.0.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
    ],
}


@pytest.fixture
def outside(host: Host) -> Outside:
    host.leaves("dir /run/cni", "dir /run/cni/tuning")
    return host.outside()


@pytest.fixture
def web(host: Host, outside: Outside) -> WebContainer:
    configure(host, WEB)
    return WebContainer.published(host, outside)


def test_flushed_nftables_are_restored_without_a_new_link(host: Host, web: WebContainer) -> None:
    """`systemctl reload nftables` flushes so; open connections are kept."""
    index = web.space.link("eth0")["ifindex"]
    host.run("nft", "flush", "ruleset")
    assert not web.reaches_outside(expected=False) and not web.is_published(expected=False)

    lines = repair(host)

    assert [line.partition(" plugin ")[0] for line in lines] == ["repaired c1: web eth0:"] * 2
    assert "10.22.0.2 is not masqueraded" in lines[0] and "table inet cnihook" in lines[1]
    assert web.works() and web.is_published()
    assert web.space.link("eth0")["ifindex"] == index
    detach(web)


@pytest.mark.parametrize("what", ["table inet cnihook", "chain inet cnihook postrouting"])
def test_flushed_chains_are_filled_again(host: Host, web: WebContainer, what: str) -> None:
    """The map elements stay then, but their chains are empty."""
    host.run("nft", "flush", *what.split())
    assert not web.reaches_outside(expected=False)

    assert repair(host, "c1")
    assert web.works() and web.is_published()
    detach(web)


@pytest.mark.parametrize("end", ["host", "container"])
def test_deleted_link_is_restored_with_its_addresses(host: Host, web: WebContainer, end: str) -> None:
    """Both ends of a veth pair are deleted together."""
    if end == "host":
        (port,) = [link["ifname"] for link in host.ip("link", "show", "master", "cni0")]
        host.run("ip", "link", "del", port)
    else:
        web.space.run("ip", "link", "del", "eth0")
    assert not web.is_published(expected=False)

    lines = repair(host)

    assert all(line.startswith("repaired c1: web eth0: ") for line in lines)
    assert all(line.endswith("(attached again)") for line in lines)
    assert web.works() and web.is_published()
    detach(web)


def test_flushed_addresses_in_the_container_are_restored(host: Host, web: WebContainer) -> None:
    web.space.run("ip", "address", "flush", "dev", "eth0")

    (line,) = repair(host)

    assert "does not have address 10.22.0.2/24 (attached again)" in line
    assert web.works() and web.is_published()
    detach(web)


def test_link_that_is_down_in_the_container_is_restored(host: Host, web: WebContainer) -> None:
    """The kernel has removed its routes as well."""
    web.space.run("ip", "link", "set", "eth0", "down")

    assert repair(host)
    assert web.works() and web.is_published()
    detach(web)


@pytest.mark.parametrize(
    "command",
    [
        "ip link del cni0",
        "ip link set cni0 down",
        "ip address flush dev cni0",
        "ip link set {port} down",
        "ip link set {port} nomaster",
    ],
)
def test_bridge_is_restored_without_a_new_link(host: Host, web: WebContainer, command: str) -> None:
    """Two containers use the bridge; the repair of the first restores it for both."""
    other = WebContainer(host, web.outside, "c2")
    (port,) = [
        link["ifname"]
        for link in host.ip("link")
        if "master" in link and link.get("ifalias") == "web c1 eth0"
    ]
    host.run(*command.format(port=port).split())
    index = web.space.link("eth0")["ifindex"]

    assert repair(host)
    assert web.works() and web.is_published() and other.works()
    assert sockets.reaches(web.space, other.space, other.address, expected=True)
    assert web.space.link("eth0")["ifindex"] == index
    detach(web, other)


def test_rules_in_dockers_chain_are_restored(host: Host, web: WebContainer) -> None:
    """Docker started later than the container, with its policy; then DOCKER-USER was flushed."""
    firewall.like_docker(host)
    assert not web.reaches_outside(expected=False)
    assert "does not let cni0 through" in "".join(repair(host))
    assert web.works() and web.is_published()

    host.run("iptables", "-F", "DOCKER-USER")
    assert not web.reaches_outside(expected=False)
    assert "does not let cni0 through" in "".join(repair(host))
    assert web.works() and web.is_published()
    detach(web)


def test_lost_limit_is_restored(host: Host, web: WebContainer) -> None:
    (port,) = [link["ifname"] for link in host.ip("link", "show", "master", "cni0")]
    host.run("tc", "qdisc", "del", "dev", port, "root")

    (line,) = repair(host)

    assert f"{port}: it has no limit" in line and "attached again" not in line
    assert "tbf" in host.run("tc", "qdisc", "show", "dev", port).stdout
    detach(web)


def test_changed_setting_is_set_again(host: Host, web: WebContainer) -> None:
    web.space.set_sysctl("net/ipv4/conf/eth0/arp_filter", "0")

    (line,) = repair(host)

    assert "arp_filter" in line and "attached again" not in line
    assert web.space.sysctl("net/ipv4/conf/eth0/arp_filter") == "1"
    detach(web)


def test_lost_name_of_the_namespace_is_bound_again(host: Host, web: WebContainer) -> None:
    host.run("ip", "netns", "del", "c1")

    (line,) = repair(host)

    assert line == "repaired c1: it had lost its name in /run/netns"
    assert "eth0" in host.run("ip", "-n", "c1", "link").stdout
    detach(web)


def test_ptp_keeps_its_address(host: Host, outside: Outside) -> None:
    """No plugin of the network accepts a MAC address, so the link gets another one."""
    configure(host, PTP)
    attached = WebContainer(host, outside, "c1")
    host.run("nft", "flush", "ruleset")
    (line,) = repair(host)
    assert "not masqueraded" in line and attached.works()
    host.run("ip", "route", "flush", "10.23.0.2")
    assert repair(host)
    assert attached.space.addresses("eth0") == ["10.23.0.2/24"] and attached.reaches_outside()
    detach(attached)


def test_network_of_a_version_without_check_is_repaired(host: Host, outside: Outside) -> None:
    """Most existing configurations have version 0.2.0, whose results do not even name an interface."""
    configure(host, MYNET)
    attached = WebContainer(host, outside, "c1")
    record = json.loads(host.read(f"{RESULTS}/mynet-c1-eth0"))
    host.run("nft", "flush", "ruleset")
    (line,) = repair(host)
    assert "not masqueraded" in line and attached.works()

    attached.space.run("ip", "link", "del", "eth0")
    assert all("attached again" in line for line in repair(host))
    assert attached.space.addresses("eth0") == ["10.22.0.2/16"] and attached.reaches_outside()
    assert json.loads(host.read(f"{RESULTS}/mynet-c1-eth0"))["result"] == record["result"]
    detach(attached)


DUAL: dict[str, Any] = {
    "type": "bridge",
    "bridge": "cni0",
    "isDefaultGateway": True,
    "ipMasq": True,
    "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.22.0.0/24"}], [{"subnet": "2001:db8:9::/64"}]],
    },
}
STATIC: dict[str, Any] = {
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": True,
    "capabilities": {"ips": True, "mac": True},
    "ipam": {"type": "static", "routes": [{"dst": "0.0.0.0/0", "gw": "10.22.0.1"}]},
}
MACVLAN: dict[str, Any] = {
    "type": "macvlan",
    "master": "up0",
    "ipam": {"type": "host-local", "subnet": "198.51.100.0/24", "rangeStart": "198.51.100.16"},
}


@pytest.mark.parametrize(
    ("plugin", "wants"),
    [(DUAL, {}), (STATIC, {"networks": "web:ip=10.22.0.77/24,mac=02:00:00:00:00:07"}), (MACVLAN, {})],
    ids=["dual-stack", "static", "macvlan"],
)
def test_all_addresses_are_the_same_after_a_new_link(
    host: Host, outside: Outside, plugin: dict[str, Any], wants: dict[str, str]
) -> None:
    configure(host, {"cniVersion": "1.0.0", "name": "web", "plugins": [plugin]})
    attached = WebContainer(host, outside, "c1", **wants)
    addresses = attached.identity[1]
    assert len(addresses) == (2 if plugin is DUAL else 1)
    attached.space.run("ip", "link", "del", "eth0")

    assert all("attached again" in line for line in repair(host))
    assert attached.link() == attached.identity
    attached.space.run("ip", "address", "flush", "dev", "eth0")
    assert repair(host)
    assert attached.link() == attached.identity
    if plugin is DUAL:
        assert attached.works()
        assert sockets.connect(attached.space, outside, Outside.ADDRESS6) == Outside.HOST6
    if plugin is MACVLAN:
        assert sockets.connect(attached.space, outside, Outside.ADDRESS) == attached.address
    detach(attached)


def test_restored_gateway_is_ready_at_once(host: Host, outside: Outside) -> None:
    """The host detects duplicates of its IPv6 addresses, as by default."""
    host.set_sysctl(ACCEPT_DAD, "1")
    configure(host, {"cniVersion": "1.0.0", "name": "web", "plugins": [DUAL]})
    attached = WebContainer(host, outside, "c1")
    host.run("ip", "link", "del", "cni0")

    outcome = cnihook(host, "repair", "--all")
    assert not [*host.inside(NetnsState).pending, *attached.space.inside(NetnsState).pending]
    assert outcome.returncode == 0 and attached.works()
    detach(attached)


def test_isolation_of_bridges_is_restored(host: Host, outside: Outside) -> None:
    """A flush also removes the isolation, which no missing traffic would show."""
    apart = []
    for name, subnet in (("one", "10.22.0.0/24"), ("two", "10.23.0.0/24")):
        network = bridge(name, subnet, isDefaultGateway=True)
        network["plugins"].append({"type": "firewall", "ingressPolicy": "same-bridge"})
        apart.append(network)
    configure(host, *apart)
    one, two = (WebContainer(host, outside, f"c-{name}", networks=name) for name in ("one", "two"))
    assert not sockets.reaches(one.space, two.space, two.address)
    host.run("nft", "flush", "ruleset")
    assert sockets.reaches(one.space, two.space, two.address, expected=True)

    assert len(repair(host)) == 2
    assert not sockets.reaches(one.space, two.space, two.address)
    detach(one, two)
