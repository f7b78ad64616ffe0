# SPDX-License-Identifier: Apache-2.0
"""vrf: interfaces that share a routing table only with the other members of their VRF.

Configurations that it rejects are in tests/netns/test_vrf.py, which needs no kernel with VRFs.
"""

from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.host.sockets import connect
from tests.support.plugins.cni import CniFailure, with_previous_result
from tests.support.plugins.routing import (
    FAR,
    FAR6,
    Chain,
    address,
    all_of,
    attach,
    far_machine,
    network,
    routed,
    router,
    rules,
    shown,
    subnet,
    table,
)

BLUE, RED = ({"type": "vrf", "vrfname": name} for name in ("blue", "red"))
SBR = {"type": "sbr"}

# These are not run with the reference, because a test takes seconds in the guest.
ROUTES = pytest.mark.known_difference(
    "routes that the kernel removes with the move are lost", here="set again", right="cnihook", run=False
)
LEAVES = pytest.mark.known_difference(
    "DEL fails without the interface; an ADD that fails leaves the VRF",
    here="the VRF ends with its last member",
    right="SPEC.md, 2 DEL",
    run=False,
)


@pytest.fixture
def container(host: Host) -> Container:
    """Return a container whose servers listen in every VRF, with IPv6's duplicate detection."""
    container = host.container()
    container.set_sysctl("net/ipv4/tcp_l3mdev_accept", "1")
    return container


def vrfs(container: Container) -> dict[str, int]:
    """Return the existing VRFs and their tables."""
    links = container.ip("-d", "link", "show", "type", "vrf") or []
    return {link["ifname"]: link["linkinfo"]["info_data"]["table"] for link in links if link}


def master(container: Container, ifname: str = "eth0") -> str | None:
    name: str | None = container.link(ifname).get("master")
    return name


def set_routes(container: Container, *routes: str) -> None:
    for route in routes:
        container.run("ip", "route", *route.split())


def by_others(container: Container, name: str) -> list[Any]:
    """Return a table's routes, except those that the kernel adds itself."""
    routes = shown(container, "route", "show", "table", name)
    return sorted((r for r in routes if r.get("protocol") != "kernel" and r.get("dev") != "lo"), key=str)


def vrf_del(chain: Chain, **env: str) -> None:
    (conf,) = [conf for conf in chain.confs if conf["type"] == "vrf"]
    sent = with_previous_result(conf, chain.result)
    chain.host.cni("DEL", sent, chain.container, chain.ifname, **env)


@ROUTES
@pytest.mark.parametrize("kept", ["0", "1"])
def test_interface_works_in_its_vrf_as_it_did_before(host: Host, container: Container, kept: str) -> None:
    """Traffic works at once, with either value of keep_addr_on_down; each route is in the VRF's table."""
    machine = far_machine(host, 1)
    chain = attach(host, container, "eth0", network(1, 4, 6))
    container.set_sysctl("net/ipv6/conf/eth0/keep_addr_on_down", kept)
    set_routes(
        container,
        f"add 10.78.0.0/16 dev eth0 src {address(1)}",
        f"add 10.77.0.0/16 via 10.78.0.1 dev eth0 src {address(1)} metric 50 mtu 1300 advmss 1200",
        "add 10.79.0.0/16 nexthop via 10.1.0.5 weight 3 nexthop via 10.1.0.6",
        "add 2001:db8:77::/48 via fe80::1 dev eth0 metric 50 pref high",
        "add 10.80.0.0/16 via 10.1.0.5 table 50",
    )
    result = chain.result
    main, other, everything = (
        by_others(container, "main"),
        by_others(container, "50"),
        table(container, "main"),
    )

    assert chain.then(BLUE).result == result

    assert connect(machine, container, address(1, 6)) == FAR6
    assert connect(machine, container, address(1)) == FAR
    assert vrfs(container) == {"blue": 1} and master(container) == "blue"
    assert (by_others(container, "1"), by_others(container, "50")) == (main, other)
    assert everything <= table(container, "1") and table(container, "main") == set()
    assert container.addresses("eth0") == [f"{address(1)}/24", f"{address(1, 6)}/64"]
    chain.check()


@ROUTES
def test_addresses_without_a_subnet_on_the_link_can_be_in_a_vrf(host: Host, container: Container) -> None:
    """ptp configures such addresses: each destination needs one of its routes."""
    conf = {key: value for key, value in network(1, 4, 6).items() if key != "bridge"}
    chain = attach(host, container, "eth0", conf | {"type": "ptp"}, BLUE)

    for version in (4, 6):
        assert connect(host, container, address(1, version)) == router(1, version)
    chain.check()


def test_vrf_has_its_own_table_and_is_removed_with_its_last_member(host: Host, container: Container) -> None:
    """The table is the lowest that no other VRF has, unless the configuration names one."""
    first = attach(host, container, "eth0", network(1), BLUE)
    attach(host, container, "eth1", network(2), RED | {"table": 3})
    attach(host, container, "eth2", network(3), BLUE | {"vrfname": "green"})
    last = attach(host, container, "eth3", network(4), BLUE | {"table": 1})

    assert vrfs(container) == {"blue": 1, "red": 3, "green": 2}
    assert [master(container, f"eth{n}") for n in range(4)] == ["blue", "red", "green", "blue"]

    vrf_del(first)
    assert vrfs(container).keys() == {"blue", "red", "green"}
    assert (master(container), master(container, "eth3")) == (None, "blue")
    vrf_del(last)
    vrf_del(last)
    assert vrfs(container).keys() == {"red", "green"}


@LEAVES
def test_del_removes_what_is_left(host: Host, container: Container) -> None:
    """The interface is gone, or an ADD was killed before the interface was in the VRF."""
    gone = attach(host, container, "eth0", network(1), BLUE)
    container.run("ip", "link", "del", "eth0")
    vrf_del(gone)
    assert vrfs(container) == {}

    killed = attach(host, container, "eth1", network(2), RED)
    container.run("ip", "link", "set", "eth1", "nomaster")
    vrf_del(killed)
    assert vrfs(container) == {}


@LEAVES
def test_add_that_fails_leaves_all_as_it_was(host: Host, container: Container) -> None:
    """ADD fails early, with another table than the VRF's, or late, by a route that the kernel would not
    accept again.
    """
    attach(host, container, "eth1", network(2), RED)
    chain = attach(host, container, "eth0", network(1, 4, 6))
    before, links = all_of(container), container.links()

    with pytest.raises(CniFailure, match="VRF red already exist with different routing table 1"):
        chain.then(RED | {"table": 8})
    set_routes(container, "add 10.88.0.0/16 dev eth0", "add 203.0.113.0/24 via 10.88.0.1")
    set_routes(container, "del 10.88.0.0/16 dev eth0")
    with pytest.raises(CniFailure, match="203.0.113.0/24"):
        chain.then(BLUE)

    assert (all_of(container), container.links(), master(container)) == (before, links, None)
    assert f"{address(1, 6)}/64" in container.addresses("eth0")


@pytest.mark.known_difference(
    "CHECK looks at membership only",
    here="also at the table and addresses",
    right="SPEC.md, 2 CHECK",
    run=False,
)
def test_check_notices_what_has_changed(host: Host, container: Container) -> None:
    chain = attach(host, container, "eth0", network(1), BLUE)
    sent = with_previous_result(chain.confs[1], chain.result)

    def finds(message: str, **keys: Any) -> None:
        with pytest.raises(CniFailure, match=message):
            host.cni("CHECK", sent | keys, container)

    finds("routing table 1", table=7)
    container.run("ip", "address", "flush", "dev", "eth0")
    finds("10.1.0.2/24")
    container.run("ip", "link", "set", "eth0", "nomaster")
    finds("Failed to find eth0 associated to vrf blue")
    container.run("ip", "link", "del", "blue")
    finds("Failed to find eth0 associated to vrf blue")
    container.run("ip", "link", "del", "eth0")
    finds("eth0")


@ROUTES
@pytest.mark.parametrize("order", [(BLUE, SBR), (SBR, BLUE)], ids=["vrf sbr", "sbr vrf"])
def test_chain_with_sbr_does_what_each_of_them_does(
    host: Host, container: Container, order: tuple[dict[str, Any], ...]
) -> None:
    """In the VRF its own table precedes sbr's.  It has the routes that were in main before."""
    machine = far_machine(host, 1)
    chain = attach(host, container, "eth0", network(1, 4, 6), *order)

    chain.check()
    for version, far in ((4, FAR), (6, FAR6)):
        ((own,)) = rules(container)[address(1, version)]
        assert table(container, own) == routed(1, version)
        in_main = routed(1, version) if order[0] is BLUE else {(subnet(1, version), None, "eth0")}
        assert table(container, "1") >= in_main
        assert connect(machine, container, address(1, version)) == far
    assert table(container, "main") == set()

    chain.delete()
    assert rules(container) == {} and vrfs(container) == {}


@ROUTES
def test_two_networks_may_assign_the_same_address(host: Host, container: Container) -> None:
    """Each is in a VRF of its own, and sbr's rule for one does not apply to packets of the other."""
    machines = [far_machine(host, number) for number in (1, 2)]
    machines[1].run("ip", "address", "add", f"{router(1)}/32", "dev", "eth0")
    machines[1].run("ip", "route", "add", subnet(1), "dev", "eth0", "src", FAR)
    host.save_state()
    attach(host, container, "eth0", network(1), BLUE)
    attach(host, container, "eth1", network(2, ipam=network(1)["ipam"]), RED, SBR)

    for machine in machines:
        assert connect(machine, container, address(1)) == FAR
