# SPDX-License-Identifier: Apache-2.0
"""bridge: DEL removes everything, whatever it is given and whatever is missing already.

The leak check after each test makes most of the assertions here.
"""

from typing import Any

import pytest

from tests.netns.differences import LEAVES_HOST_END, LINK_RULES
from tests.support.host.host import Container, Host, Outside
from tests.support.host.sockets import connect
from tests.support.plugins.bridge import add, leased, network
from tests.support.plugins.cni import with_previous_result

SUBNET, SUBNET6 = "10.9.0.0/24", "2001:db8:9::/64"
ALL = network(SUBNET, SUBNET6, isDefaultGateway=True, ipMasq=True, macspoofchk=True)
LEAKS_RULES = pytest.mark.known_difference(
    "DEL without a namespace leaves the masquerading rules (plugins#810, #1078)",
    here="leaves nothing",
    right="SPEC.md, 2 DEL",
)


def test_del_undoes_all_of_add(host: Host) -> None:
    one, result = add(host, ALL)

    assert host.cni("DEL", with_previous_result(ALL, result), one) is None

    assert one.links() == {"lo"}
    assert leased(host) == []
    assert not any(link.startswith("veth") for link in host.links())


def test_del_can_be_repeated(host: Host) -> None:
    one, result = add(host, ALL)

    for _ in range(3):
        host.cni("DEL", with_previous_result(ALL, result), one)


def test_del_without_an_add_succeeds(host: Host, container: Container) -> None:
    host.cni("DEL", ALL, container)


def test_del_needs_no_previous_result(host: Host) -> None:
    """The runtime may have lost its record, and before 0.4.0 it passes no result."""
    one, _ = add(host, ALL)

    host.cni("DEL", ALL, one)


@pytest.mark.parametrize("damaged", [{"cniVersion": "9.9.9"}, {"ips": [{"address": "x"}]}, {"ips": 7}])
def test_del_accepts_a_malformed_previous_result(host: Host, damaged: Any) -> None:
    one, _ = add(host, ALL)

    host.cni("DEL", ALL | {"prevResult": damaged}, one)
    assert leased(host) == [] and one.links() == {"lo"}


@LEAKS_RULES
@pytest.mark.parametrize("with_result", [True, False], ids=["result", "no result"])
def test_del_after_the_namespace_has_gone(host: Host, with_result: bool) -> None:
    one, result = add(host, ALL)
    one.destroy()

    host.cni("DEL", with_previous_result(ALL, result if with_result else None), one)

    assert leased(host) == []


@LEAKS_RULES
@pytest.mark.parametrize("with_result", [True, False], ids=["result", "no result"])
def test_del_without_a_namespace(host: Host, with_result: bool) -> None:
    """A runtime that no longer knows the namespace passes no path.  The container may still run."""
    one, result = add(host, ALL)
    one.destroy()

    host.cni("DEL", with_previous_result(ALL, result if with_result else None), one, CNI_NETNS="")

    assert leased(host) == []


@LEAVES_HOST_END
def test_del_without_the_path_of_a_live_namespace_removes_the_link(host: Host) -> None:
    """DEL can reach the host end.  A container that kept its link would use an address that is free."""
    one, result = add(host, ALL)

    host.cni("DEL", with_previous_result(ALL, result), one, CNI_NETNS="")

    assert "eth0" not in one.links()


@pytest.mark.known_difference(
    "DEL fails if CNI_NETNS is a file that is not a namespace", here="succeeds", right="SPEC.md, 2 DEL"
)
def test_del_succeeds_with_a_file_that_is_not_a_namespace(host: Host, container: Container) -> None:
    """An empty file is left where a bind mount was."""
    _, result = add(host, ALL, container)
    container.destroy()
    host.write(container.path, "")
    host.leaves(f"file {container.path}")

    host.cni("DEL", with_previous_result(ALL, result), container)

    assert leased(host) == []


def test_del_after_the_link_has_gone(host: Host) -> None:
    conf = network(SUBNET)
    one, result = add(host, conf)
    one.run("ip", "link", "del", "eth0")

    host.cni("DEL", with_previous_result(conf, result), one)

    assert leased(host) == []


@LINK_RULES
def test_del_after_the_link_has_gone_with_masquerade(host: Host) -> None:
    one, result = add(host, ALL)
    one.run("ip", "link", "del", "eth0")

    host.cni("DEL", with_previous_result(ALL, result), one)


def test_del_after_the_bridge_has_gone(host: Host) -> None:
    one, result = add(host, ALL)
    host.run("ip", "link", "del", "cni0")

    host.cni("DEL", with_previous_result(ALL, result), one)

    assert one.links() == {"lo"} and leased(host) == []


@pytest.mark.known_difference(
    "DEL fails if its iptables chains are gone", here="succeeds", right="SPEC.md, 2 DEL"
)
def test_del_after_the_rules_have_gone(host: Host) -> None:
    """`nft flush ruleset` removes them, for example when a firewall is reloaded."""
    one, result = add(host, ALL)
    host.run("nft", "flush", "ruleset")

    host.cni("DEL", with_previous_result(ALL, result), one)


@pytest.mark.known_difference(
    "two interfaces of a container share a chain, and DEL of one fails",
    here="each interface has its own element",
    right="SPEC.md, 2 DEL",
)
def test_del_leaves_the_other_interface_of_a_container(host: Host, container: Container) -> None:
    """The other interface keeps its masquerade, too."""
    outside = host.outside()
    conf = network(SUBNET, isGateway=True, ipMasq=True)
    add(host, conf | {"isDefaultGateway": True}, container, "eth0")
    _, second = add(host, conf, container, "eth1")

    host.cni("DEL", with_previous_result(conf, second), container, "eth1")

    assert container.links() == {"lo", "eth0"} and leased(host) == ["10.9.0.2"]
    assert connect(container, outside, Outside.ADDRESS) == Outside.HOST


def test_bridge_stays_as_long_as_it_has_a_port(host: Host) -> None:
    conf = network(SUBNET, isGateway=True)
    (one, first), (two, _) = (add(host, conf) for _ in range(2))

    host.cni("DEL", with_previous_result(conf, first), one)

    assert "cni0" in host.links()
    assert connect(host, two, "10.9.0.3") == "10.9.0.1"


@pytest.mark.known_difference(
    "the bridge stays after the last container (plugins#1175)",
    here="DEL removes it, if the plugin made it",
    right="either",
)
def test_bridge_is_removed_with_its_last_port(host: Host) -> None:
    conf = network(SUBNET, isGateway=True)
    both = [add(host, conf) for _ in range(2)]

    for one, result in both:
        host.cni("DEL", with_previous_result(conf, result), one)

    assert "cni0" not in host.links()


@pytest.mark.known_difference(
    "the bridge stays after the last container (plugins#1175)",
    here="DEL removes it, if the plugin made it",
    right="either",
)
def test_bridge_is_removed_with_its_last_port_after_the_namespace(host: Host) -> None:
    conf = network(SUBNET, isGateway=True)
    one, result = add(host, conf)
    one.destroy()

    host.cni("DEL", with_previous_result(conf, result), one)

    assert "cni0" not in host.links()


def test_bridge_of_the_administrator_stays(host: Host) -> None:
    host.run("ip", "link", "add", "mybr", "type", "bridge")
    host.run("ip", "address", "add", "10.9.0.1/24", "dev", "mybr")
    host.leaves("* mybr *")
    conf = network(SUBNET, bridge="mybr", isGateway=True)
    one, result = add(host, conf)

    host.cni("DEL", with_previous_result(conf, result), one)

    assert host.addresses("mybr") == ["10.9.0.1/24"]


def test_bridge_with_a_foreign_port_stays(host: Host) -> None:
    conf = network(SUBNET, isGateway=True)
    one, result = add(host, conf)
    host.run("ip", "link", "add", "other", "type", "veth", "peer", "name", "rehto")
    host.run("ip", "link", "set", "other", "master", "cni0")
    host.leaves("* cni0 *", "* other *", "* rehto *", "link other *", "link rehto *")

    host.cni("DEL", with_previous_result(conf, result), one)

    assert host.link("other")["master"] == "cni0"
