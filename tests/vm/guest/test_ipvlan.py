# SPDX-License-Identifier: Apache-2.0
"""ipvlan: containers that share the MAC address of the host's uplink."""

from functools import partial

import pytest

from tests.support.host.host import ACCEPT_DAD, Container, Host, Outside
from tests.support.host.sockets import connect
from tests.support.plugins import child_link
from tests.support.plugins.bridge import add, address, leased
from tests.support.plugins.child_link import SUBNET, SUBNET6
from tests.support.plugins.cni import CniFailure, with_previous_result

network = partial(child_link.network, "ipvlan")
static = partial(child_link.static, "ipvlan")


@pytest.fixture(autouse=True)
def outside(host: Host) -> Outside:
    return host.outside()


def mode(container: Container) -> str:
    return str(container.link("eth0")["linkinfo"]["info_data"]["mode"])


def test_containers_reach_each_other_and_a_machine_beyond_the_uplink(host: Host, outside: Outside) -> None:
    """All use one MAC address, the uplink's, in both families."""
    conf = network(SUBNET, SUBNET6)
    pair = [host.container() for _ in range(2)]
    for container in pair:
        container.set_sysctl(ACCEPT_DAD, "0")
    (one, first), (two, second) = (add(host, conf, container) for container in pair)

    mac = host.link("up0")["address"]
    assert first["interfaces"] == [{"name": "eth0", "mac": mac, "sandbox": one.path}]
    assert [ip["interface"] for ip in first["ips"]] == [0, 0]
    assert mode(one) == "l2" and two.link("eth0")["address"] == mac
    for family, beyond in enumerate([Outside.ADDRESS, Outside.ADDRESS6]):
        assert connect(one, two, address(second, family)) == address(first, family)
        assert connect(outside, one, address(first, family)) == beyond
        assert connect(two, outside, beyond) == address(second, family)


def test_mode_l3_routes_between_subnets(host: Host, outside: Outside) -> None:
    """No machine answers ARP for the containers' addresses, so the network needs a route to them."""
    l3 = partial(static, mode="l3", ipam={"routes": [{"dst": "0.0.0.0/0"}]})
    one, _ = add(host, l3("10.50.0.2/24"))
    two, _ = add(host, l3("10.60.0.2/24"))
    outside.run("ip", "route", "add", "10.0.0.0/8", "via", Outside.HOST)

    assert mode(one) == "l3"
    assert connect(one, two, "10.60.0.2") == "10.50.0.2"
    assert connect(one, outside, Outside.ADDRESS) == "10.50.0.2"
    assert connect(outside, two, "10.60.0.2") == Outside.ADDRESS


def test_chained_ipvlan_uses_interface_and_addresses_of_prev_result(
    host: Host, outside: Outside, container: Container
) -> None:
    """An empty `ipam` is enough in a chain, also for CHECK and DEL."""
    ip = {"address": "198.51.100.77/24", "gateway": Outside.ADDRESS}
    previous = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "up0"}],
        "ips": [ip],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    conf = network(master=None, ipam={}, prevResult=previous)

    result = host.cni("ADD", conf, container)

    mac = container.link("eth0")["address"]
    assert result["interfaces"] == [{"name": "eth0", "mac": mac, "sandbox": container.path}]
    assert result["ips"] == [ip | {"interface": 0}]
    assert ("default", Outside.ADDRESS, "eth0") in container.routes()
    assert connect(container, outside, Outside.ADDRESS) == "198.51.100.77"


@pytest.mark.known_difference(
    "CHECK of a chained ipvlan fails without a master", here="succeeds", right="SPEC.md, 2 CHECK"
)
def test_check_of_a_chained_ipvlan_needs_no_master(host: Host, container: Container) -> None:
    previous = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "up0"}],
        "ips": [{"address": "198.51.100.77/24"}],
    }
    conf = network(master=None, ipam={})
    result = host.cni("ADD", conf | {"prevResult": previous}, container)

    host.cni("CHECK", with_previous_result(conf, result), container)


@pytest.mark.known_difference(
    "an ADD that fails leaves the link (plugins#560)", here="leaves nothing", right="cnihook"
)
def test_add_that_fails_leaves_nothing(host: Host, container: Container) -> None:
    """The last step fails; link, address and lease exist by then."""
    conf = network()
    conf["ipam"]["routes"] = [{"dst": "192.0.2.0/24", "gw": "203.0.113.1"}]

    with pytest.raises(CniFailure):
        host.cni("ADD", conf, container)

    assert container.links() == {"lo"} and leased(host) == []


def test_master_of_a_macvlan_is_refused(host: Host, container: Container) -> None:
    """The kernel allows only one of the two kinds on a link; its error for the other is "busy"."""
    one, _ = add(host, child_link.network("macvlan", name="other"))

    with pytest.raises(CniFailure, match="busy"):
        host.cni("ADD", network(), container)

    assert container.links() == {"lo"} and leased(host) == []


@pytest.mark.known_difference(
    "DEL fails without a default route or a result", here="succeeds", right="SPEC.md, 2 DEL"
)
def test_del_needs_neither_default_route_nor_result(host: Host, container: Container) -> None:
    conf = network(master=None)
    host.cni("ADD", conf, container)
    assert container.link("eth0")["link_index"] == host.link("up0")["ifindex"]
    host.run("sh", "-ec", "ip route del default; ip -6 route del default")

    for _ in range(2):
        host.cni("DEL", conf | {"prevResult": {"ips": 5}}, container)

    assert container.links() == {"lo"} and leased(host) == []


def test_check_compares_the_mode(host: Host, container: Container) -> None:
    conf = network(mode="l3s")
    attached = with_previous_result(conf, host.cni("ADD", conf, container))
    host.cni("CHECK", attached, container)

    container.run("ip", "link", "set", "eth0", "type", "ipvlan", "mode", "l2")
    with pytest.raises(CniFailure):
        host.cni("CHECK", attached, container)
