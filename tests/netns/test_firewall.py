# SPDX-License-Identifier: Apache-2.0
"""firewall: a network's traffic passes the other firewalls of the host, shown by connections."""

from typing import Any

import pytest

from tests.netns.differences import LEAVES_RULES, NO_LEGACY
from tests.support.host.host import Container, Host, Outside
from tests.support.host.sockets import connect, reaches
from tests.support.plugins import bridge
from tests.support.plugins.cni import CniFailure, with_previous_result
from tests.support.plugins.firewall import (
    BRIDGED,
    NET,
    NET6,
    attach,
    conf,
    drop_forwarded,
    leave_to_reference,
    like_docker,
    publish,
    routed_outside,
    rules,
)
from tests.support.skip import skip_or_fail

pytestmark = pytest.mark.needs("iptables")

ADMIN = "10.9.0.2 -j DROP"


def legacy(host: Host) -> None:
    drop_forwarded(host, "iptables-legacy ip6tables-legacy")


DROPS = {"iptables": drop_forwarded, "docker": like_docker, "legacy": legacy}


@pytest.fixture(autouse=True)
def plain_bridge(host: Host) -> None:
    """Turn off bridge-nf-call-iptables, as on a machine that has not loaded br_netfilter."""
    host.set_sysctl(BRIDGED, "0")
    leave_to_reference(host)


@pytest.fixture(
    params=["iptables", "docker", pytest.param("legacy", marks=NO_LEGACY)],
)
def drop(request: pytest.FixtureRequest, host: Host) -> str:
    """Set up a firewall that drops every forwarded packet that no rule accepts; return its kind."""
    if request.param == "legacy" and host.run("iptables-legacy", "-S", check=False).returncode:
        skip_or_fail("this kernel has no tables for iptables-legacy")
    DROPS[request.param](host)
    return str(request.param)


# No other firewall drops the traffic


def test_prev_result_is_passed_on(host: Host) -> None:
    attached = attach(host, NET, NET6)

    assert attached.result == attached.sent["prevResult"]


@pytest.mark.known_difference(
    "makes chains and two rules for each container, even if no firewall drops its traffic",
    here="makes no rule",
    right="either",
)
def test_no_rule_is_set_if_no_firewall_drops_the_traffic(host: Host) -> None:
    before = host.nft()

    attached = attach(host, NET, NET6)
    attached.check()

    assert host.nft() == before


def test_missing_previous_result_is_an_error(host: Host, container: Container) -> None:
    for command in ("ADD", "CHECK"):
        with pytest.raises(CniFailure) as refused:
            host.cni(command, conf(), container)
        assert refused.value.code == 999
        assert refused.value.msg == "missing prevResult from earlier plugin"


def test_versions_before_0_4_0_are_refused(host: Host, container: Container) -> None:
    for version in ("", "0.1.0", "0.2.0", "0.3.0", "0.3.1"):
        with pytest.raises(CniFailure) as refused:
            host.cni("ADD", conf(version), container)

        assert (refused.value.code, refused.value.msg) == (1, "incompatible CNI versions")
        assert 'supports ["0.4.0" "1.0.0"' in refused.value.details


def test_versions_from_0_4_0_on_are_supported(host: Host, container: Container) -> None:
    result = bridge.add(host, bridge.network(NET, version="0.4.0"), container)[1]

    assert host.cni("ADD", with_previous_result(conf("0.4.0"), result), container) == result


# A policy of iptables that drops forwarded packets


def test_traffic_passes_if_forwarded_packets_are_dropped(host: Host, drop: str) -> None:
    """Both with the outside and between containers of two networks."""
    outside = routed_outside(host)
    one = attach(host, NET, NET6)
    other = attach(host, "10.8.0.0/24", "2001:db8:9:1::/64", link="cni1", name="net2")

    for family, there in enumerate((Outside.ADDRESS, Outside.ADDRESS6)):
        assert connect(one.container, outside, there) == one.address(family)
        assert connect(one.container, other.container, other.address(family)) == one.address(family)
        assert connect(other.container, one.container, one.address(family)) == other.address(family)


def test_outside_cannot_connect_if_forwarded_packets_are_dropped(host: Host) -> None:
    """The host's policy is there to prevent this."""
    drop_forwarded(host)
    outside = routed_outside(host)
    one = attach(host, NET, NET6)

    assert not reaches(outside, one.container, one.address(0))
    assert not reaches(outside, one.container, one.address(1))


@pytest.mark.known_difference(
    "a policy of DROP drops connections to published ports", here="they pass", right="cnihook"
)
def test_published_port_is_open_if_forwarded_packets_are_dropped(host: Host) -> None:
    """A port is published to be reached."""
    drop_forwarded(host)
    outside = routed_outside(host)
    one = attach(host)
    publish(host, 8080, one.address())

    assert connect(outside, one.container, Outside.HOST, port=8080) == Outside.ADDRESS


def test_bridged_traffic_passes_with_br_netfilter(host: Host) -> None:
    """Docker loads br_netfilter, and then its policy also drops packets between containers of one bridge."""
    host.set_sysctl(BRIDGED, "1")
    drop_forwarded(host)
    one, two = attach(host), attach(host)

    assert connect(one.container, two.container, two.address()) == one.address()


def test_network_without_a_bridge_passes_if_forwarded_packets_are_dropped(
    host: Host, container: Container
) -> None:
    """ptp, for example: its rules match the subnet."""
    drop_forwarded(host)
    outside = routed_outside(host)
    ranges = {
        "ranges": [[{"subnet": NET}], [{"subnet": NET6}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }
    network = {
        "cniVersion": "1.0.0",
        "name": "net1",
        "type": "ptp",
        "ipam": {"type": "host-local", **ranges},
    }
    result = host.cni("ADD", network, container)
    sent = with_previous_result(conf(), result)

    host.cni("ADD", sent, container)
    host.cni("CHECK", sent, container)

    assert connect(container, outside, Outside.ADDRESS) == bridge.address(result, 0)
    assert connect(container, outside, Outside.ADDRESS6) == bridge.address(result, 1)


@pytest.mark.known_difference(
    "makes two rules for each container",
    here="two rules for each network, and elements for containers",
    right="either",
)
def test_rules_do_not_grow_with_containers(host: Host) -> None:
    drop_forwarded(host)
    attach(host, NET)
    before = host.run("iptables", "-S").stdout

    attach(host, NET)

    assert host.run("iptables", "-S").stdout == before


@pytest.mark.known_difference("rules do not name their network", here="a comment names it", right="either")
def test_rules_name_their_network_and_iptables_can_save_them(host: Host, drop: str) -> None:
    attach(host, NET, NET6)
    suffix = "-legacy" if drop == "legacy" else ""

    for program in ("iptables", "ip6tables"):
        own = rules(host, "CNI-FORWARD", f"{program}{suffix}")
        assert own == [
            '-i cni0 -m comment --comment "cnihook: net1 cni0" -j ACCEPT',
            "-o cni0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT"
            ' -m comment --comment "cnihook: net1 cni0" -j ACCEPT',
        ]
        saved = host.run(f"{program}{suffix}-save", "-t", "filter").stdout
        host.run(f"{program}{suffix}-restore", input=saved)
        assert rules(host, "CNI-FORWARD", f"{program}{suffix}") == own


@pytest.mark.known_difference(
    "its chain is before Docker's DOCKER-USER", here="its chain is in DOCKER-USER", right="either"
)
def test_rules_are_in_docker_user(host: Host) -> None:
    """Docker puts DOCKER-USER in front of its own chains each time it starts."""
    like_docker(host)
    before = rules(host, "FORWARD")

    attach(host)

    assert rules(host, "FORWARD") == before
    assert "CNI-FORWARD" in rules(host, "DOCKER-USER")[0]


@LEAVES_RULES
def test_last_del_leaves_iptables_as_it_was(host: Host, drop: str) -> None:
    """Even if the rules were saved and restored in between, as services do at boot."""
    suffix = "-legacy" if drop == "legacy" else ""
    before = [host.run(f"{program}{suffix}", "-S").stdout for program in ("iptables", "ip6tables")]
    one, two = attach(host, NET, NET6), attach(host, NET, NET6)
    other = attach(host, "10.8.0.0/24", link="cni1", name="net2")
    saved = host.run(f"iptables{suffix}-save", "-t", "filter").stdout  # those of IPv6 stay as they were made
    host.run(f"iptables{suffix}-restore", input=saved)

    for attached in (one, other, two):
        assert attached is not two or len(rules(host, "CNI-FORWARD", f"iptables{suffix}")) == 2
        attached.delete()

    after = [host.run(f"{program}{suffix}", "-S").stdout for program in ("iptables", "ip6tables")]
    assert after == before


def test_traffic_of_a_neighbour_passes_after_del(host: Host) -> None:
    drop_forwarded(host)
    outside = routed_outside(host)
    one, two = attach(host), attach(host)

    one.delete()

    assert connect(two.container, outside, Outside.ADDRESS) == two.address()


@LEAVES_RULES
def test_foreign_rules_in_the_chain_stay(host: Host) -> None:
    """Another program, such as the reference plugin, may have rules in the same chain."""
    drop_forwarded(host)
    host.run("iptables", "-N", "CNI-FORWARD")
    host.run("iptables", "-A", "CNI-FORWARD", "-s", "10.7.0.2/32", "-j", "ACCEPT")
    before = host.run("iptables", "-S", "CNI-FORWARD").stdout

    attach(host).delete()

    assert host.run("iptables", "-S", "CNI-FORWARD").stdout == before


def test_flushed_rules_are_back_with_the_next_container(host: Host) -> None:
    """firewalld and other programs flush rules that they do not know."""
    drop_forwarded(host)
    outside = routed_outside(host)
    attach(host)
    host.run("iptables", "-F")

    two = attach(host)

    assert connect(two.container, outside, Outside.ADDRESS) == two.address()


def test_check_finds_missing_rules(host: Host, drop: str) -> None:
    one = attach(host, NET, NET6)
    one.check()
    suffix = "-legacy" if drop == "legacy" else ""
    host.run(f"iptables{suffix}", "-F", "CNI-FORWARD")

    with pytest.raises(CniFailure, match=r"iptables.*cni0|CNI-FORWARD rule|expected rule") as failed:
        one.check()
    assert failed.value.code == 999


def test_check_finds_a_policy_that_came_later(host: Host) -> None:
    """Docker started after the container, and its policy cuts the network off."""
    one = attach(host)
    one.check()
    drop_forwarded(host)
    host.run("iptables", "-F")

    with pytest.raises(CniFailure):
        one.check()


@pytest.mark.known_difference("CHECK creates missing chains", here="changes nothing", right="cnihook")
def test_check_changes_nothing(host: Host) -> None:
    drop_forwarded(host)
    one = attach(host)
    host.run("iptables", "-F")
    host.run("iptables", "-X")
    before = host.run("iptables", "-S").stdout

    with pytest.raises(CniFailure):
        one.check()
    assert host.run("iptables", "-S").stdout == before


# The administrator's chain


def admin_drops(host: Host, address: str, chain: str = "CNI-ADMIN") -> None:
    host.run("iptables", "-N", chain)
    host.run("iptables", "-A", chain, "-s", address, "-j", "DROP")
    host.leaves("nft: table ip filter*")


@pytest.mark.parametrize(
    ("dropped", "keys"),
    [(False, {}), (True, {}), (True, {"iptablesAdminChainName": "MINE"})],
    ids=["accept", "drop", "named"],
)
def test_rule_of_the_administrator_comes_first(host: Host, dropped: bool, keys: dict[str, Any]) -> None:
    """A rule in that chain cuts off one container and not its neighbour, whatever the policy is."""
    if dropped:
        drop_forwarded(host)
    outside = routed_outside(host)
    admin_drops(host, "10.9.0.2", keys.get("iptablesAdminChainName", "CNI-ADMIN"))
    one, two = attach(host, **keys), attach(host, **keys)
    one.check()

    assert one.address() == "10.9.0.2"
    assert not reaches(one.container, outside, Outside.ADDRESS)
    assert connect(two.container, outside, Outside.ADDRESS) == two.address()


def test_rule_of_the_administrator_opens_what_the_policy_drops(host: Host) -> None:
    drop_forwarded(host)
    outside = routed_outside(host)
    host.run("iptables", "-N", "CNI-ADMIN")
    host.run("iptables", "-A", "CNI-ADMIN", "-d", "10.9.0.2", "-j", "ACCEPT")
    one, two = attach(host), attach(host)

    assert connect(outside, one.container, one.address()) == Outside.ADDRESS
    assert not reaches(outside, two.container, two.address())


def test_administrators_chain_made_later_is_used_from_the_next_add_on(host: Host) -> None:
    drop_forwarded(host)
    outside = routed_outside(host)
    attach(host)
    if not rules(host, "CNI-FORWARD") or "CNI-ADMIN" not in rules(host, "CNI-FORWARD")[0]:
        host.run("iptables", "-N", "CNI-ADMIN")
    host.run("iptables", "-A", "CNI-ADMIN", "-s", "10.9.0.3", "-j", "DROP")

    two = attach(host)

    assert not reaches(two.container, outside, Outside.ADDRESS)


@LEAVES_RULES
def test_administrators_chain_stays_as_it_is(host: Host) -> None:
    admin_drops(host, "10.9.0.2")
    before = host.run("iptables", "-S").stdout

    attach(host).delete()

    assert host.run("iptables", "-S").stdout == before


@pytest.mark.known_difference(
    "the error of a wrong iptablesAdminChainName is that of iptables, or there is a loop of rules",
    here="refused; the error names the key",
    right="either",
)
def test_error_of_an_invalid_chain_name_names_the_key(host: Host, container: Container) -> None:
    sent = with_previous_result(conf(), {"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.2/24"}]})

    for name in ("a b", "-x", "CNI-FORWARD", "FORWARD", "x" * 29, "!x"):
        with pytest.raises(CniFailure, match="iptablesAdminChainName") as refused:
            host.cni("ADD", sent | {"iptablesAdminChainName": name}, container)
        assert refused.value.code == 7
