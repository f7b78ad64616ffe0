# SPDX-License-Identifier: Apache-2.0
"""vlan: a container in one VLAN of the host's uplink."""

from functools import partial

import pytest

from tests.netns.differences import LEAKS_LINK, OLD_KEYS
from tests.support.host.host import Container, Host, Outside
from tests.support.host.sockets import connect, reaches
from tests.support.plugins import child_link
from tests.support.plugins.bridge import add, leased
from tests.support.plugins.cni import CniFailure, with_previous_result

network = partial(child_link.network, "vlan")
static = partial(child_link.static, "vlan")


@pytest.fixture(autouse=True)
def outside(host: Host) -> Outside:
    """Return a machine at the other side of the trunk, with 10.9.0.1 in VLAN 100."""
    machine = host.outside()
    machine.run("ip", "link", "add", "link", "up0", "name", "up0.100", "type", "vlan", "id", "100")
    machine.run("ip", "address", "add", "10.9.0.1/24", "dev", "up0.100")
    machine.run("ip", "link", "set", "up0.100", "up")
    return machine


def vlan_of(container: Container) -> int:
    return int(container.link("eth0")["linkinfo"]["info_data"]["id"])


def test_container_is_in_its_vlan_and_in_no_other(host: Host, outside: Outside) -> None:
    """The frames must be tagged on the trunk, otherwise the machine would not receive them in the VLAN."""
    blue, result = add(host, static("10.9.0.100/24", vlanId=100))
    red, _ = add(host, static("10.9.0.200/24", vlanId=200))

    mac = blue.link("eth0")["address"]
    assert result["interfaces"] == [{"name": "eth0", "mac": mac, "sandbox": blue.path}]
    assert result["ips"] == [{"interface": 0, "address": "10.9.0.100/24"}]
    assert (vlan_of(blue), vlan_of(red)) == (100, 200)
    assert connect(blue, outside, "10.9.0.1") == "10.9.0.100"
    assert not reaches(red, outside, "10.9.0.1")
    assert not reaches(blue, red, "10.9.0.200") and not reaches(red, blue, "10.9.0.100")


@OLD_KEYS
def test_master_may_be_in_the_container(host: Host, outside: Outside, container: Container) -> None:
    """An earlier network can have created the master, here a macvlan on the trunk."""
    trunk = child_link.network("macvlan", ipam=None, name="trunk")
    host.cni("ADD", trunk, container, "trunk0")
    conf = static("10.9.0.100/24", vlanId=100, master="trunk0", linkInContainer=True)

    result = host.cni("ADD", conf, container)

    assert container.link("eth0")["link"] == "trunk0"
    assert connect(container, outside, "10.9.0.1") == "10.9.0.100"
    host.cni("CHECK", with_previous_result(conf, result), container)
    host.cni("DEL", trunk, container, "trunk0")  # and the VLAN with it


def test_vlan_of_another_container_is_refused(host: Host, outside: Outside, container: Container) -> None:
    """A parent link can have each VLAN only once.  The first container keeps it until its DEL."""
    conf = static("10.9.0.100/24", vlanId=100)
    one, _ = add(host, conf)

    with pytest.raises(CniFailure, match="exists"):
        host.cni("ADD", conf, container)

    assert container.links() == {"lo"}
    assert connect(outside, one, "10.9.0.100") == "10.9.0.1"
    host.cni("DEL", conf, one)
    add(host, conf, container)


@LEAKS_LINK
def test_add_that_fails_leaves_nothing(host: Host, container: Container) -> None:
    """The last step fails; link, address and lease exist by then."""
    conf = network(vlanId=100)
    conf["ipam"]["routes"] = [{"dst": "192.0.2.0/24", "gw": "203.0.113.1"}]

    with pytest.raises(CniFailure):
        host.cni("ADD", conf, container)

    assert container.links() == {"lo"} and leased(host) == []


@pytest.mark.known_difference(
    "DEL fails without the master, and the lease stays", here="succeeds", right="SPEC.md, 4 Delegation"
)
def test_del_needs_neither_master_nor_ipam(host: Host) -> None:
    (one, _), (two, _) = add(host, network()), add(host, static("10.9.0.2/24", vlanId=200))
    assert vlan_of(one) == 0, "the default"

    host.cni("DEL", network(master="up9"), one)
    host.cni("DEL", network(vlanId=200, ipam=None, prevResult={"ips": 5}), two)
    assert one.links() == two.links() == {"lo"} and leased(host) == []

    host.run("ip", "link", "del", "up0")
    host.cni("DEL", network(), one)


def test_check_compares_vlan_and_mtu(host: Host, container: Container) -> None:
    conf = network(vlanId=4094, mtu=1400)
    attached = with_previous_result(conf, host.cni("ADD", conf, container))
    host.cni("CHECK", attached, container)
    assert (vlan_of(container), container.link("eth0")["mtu"]) == (4094, 1400)

    with pytest.raises(CniFailure):
        host.cni("CHECK", attached | {"vlanId": 100}, container)
    container.run("ip", "link", "set", "eth0", "mtu", "1300")
    with pytest.raises(CniFailure):
        host.cni("CHECK", attached, container)
