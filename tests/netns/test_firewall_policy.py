# SPDX-License-Identifier: Apache-2.0
"""firewall: ingressPolicy, which decides between which containers packets pass."""

import pytest

from tests.netns.differences import OLD_KEYS
from tests.support.host.host import Container, Host, Outside
from tests.support.host.sockets import arrives, connect, frame, packet_socket, reaches
from tests.support.plugins import bridge
from tests.support.plugins.cni import CniFailure, with_previous_result
from tests.support.plugins.firewall import (
    NET,
    NET6,
    Attached,
    attach,
    conf,
    drop_forwarded,
    leave_to_reference,
    publish,
    routed_outside,
)

SECOND, SECOND6 = "10.8.0.0/24", "2001:db8:9:1::/64"
ISOLATED = pytest.param("isolated", marks=OLD_KEYS)


@pytest.fixture(autouse=True)
def plain_bridge(host: Host) -> None:
    """Turn br_netfilter's settings off, as if it were not loaded: iptables does not see bridged packets."""
    ask_iptables(host, False)
    leave_to_reference(host)


def ask_iptables(host: Host, answer: bool) -> None:
    host.run("sh", "-c", f"for f in /proc/sys/net/bridge/bridge-nf-call-*; do echo {int(answer)} > $f; done")


def reach(one: Attached, other: Attached, expected: bool = False) -> bool:
    """Return True if `one` reaches `other` in both families, False if in neither."""
    (answer,) = {
        reaches(one.container, other.container, other.address(family), expected=expected)
        for family in (0, 1)
    }
    return answer


@pytest.mark.parametrize("bridged", [False, True], ids=["", "br_netfilter"])
@pytest.mark.parametrize("policy", [None, "same-bridge", ISOLATED])
def test_containers_of_one_bridge(host: Host, policy: str | None, bridged: bool) -> None:
    """Isolation does not depend on br_netfilter."""
    ask_iptables(host, bridged)
    one, two = (attach(host, NET, NET6, ingressPolicy=policy) for _ in range(2))

    expected = policy != "isolated"
    assert reach(one, two, expected) == reach(two, one, expected) == expected


@pytest.mark.parametrize(
    ("policy", "other", "there", "back"),
    [
        ("open", "open", True, True),
        ("same-bridge", "same-bridge", False, False),
        ("open", "same-bridge", True, True),
        pytest.param("isolated", "isolated", False, False, marks=OLD_KEYS),
        pytest.param("isolated", "same-bridge", False, False, marks=OLD_KEYS),
        pytest.param("open", "isolated", True, True, marks=OLD_KEYS),
    ],
)
def test_containers_of_two_bridges(host: Host, policy: str, other: str, there: bool, back: bool) -> None:
    """No packet passes between two bridges that both have a policy.  A bridge without one is outside."""
    one = attach(host, NET, NET6, ingressPolicy=policy)
    two = attach(host, SECOND, SECOND6, link="cni1", name="net2", ingressPolicy=other)

    assert (reach(one, two, there), reach(two, one, back)) == (there, back)


@pytest.mark.parametrize("policy", ["same-bridge", ISOLATED])
def test_policy_does_not_affect_host_and_outside(host: Host, policy: str) -> None:
    """A policy is about other bridges and neighbours.  Host, outside and container reach each other."""
    outside = routed_outside(host)
    one = attach(host, NET, NET6, ingressPolicy=policy)

    for family, there in enumerate((Outside.ADDRESS, Outside.ADDRESS6)):
        assert connect(one.container, outside, there) == one.address(family)
        assert connect(outside, one.container, one.address(family)) == there
        gateway = one.result["ips"][family]["gateway"]
        assert connect(one.container, host, gateway) == one.address(family)
        assert connect(host, one.container, one.address(family)) == gateway


@pytest.mark.parametrize("policy", ["same-bridge", ISOLATED])
def test_published_port_is_reached_from_outside(host: Host, policy: str) -> None:
    outside = host.outside()
    one = attach(host, ingressPolicy=policy)
    publish(host, 8080, one.address())

    assert connect(outside, one.container, Outside.HOST, port=8080) == Outside.ADDRESS


@pytest.mark.parametrize(
    ("policy", "reached"), [("same-bridge", True), pytest.param("isolated", False, marks=OLD_KEYS)]
)
def test_published_port_does_not_bypass_isolation(host: Host, policy: str, reached: bool) -> None:
    """A container connects to its neighbour by way of the host."""
    host.outside()
    one, two = (attach(host, ingressPolicy=policy) for _ in range(2))
    publish(host, 8080, two.address(), masquerade=True)

    assert reaches(one.container, two.container, Outside.HOST, port=8080, expected=reached) == reached


@pytest.mark.parametrize("policy", ["same-bridge", ISOLATED])
def test_policy_holds_if_iptables_drops_forwarded_packets(host: Host, policy: str) -> None:
    """The container reaches the outside, but not the other bridge."""
    drop_forwarded(host)
    outside = routed_outside(host)
    one = attach(host, NET, NET6, ingressPolicy=policy)
    two = attach(host, SECOND, SECOND6, link="cni1", name="net2", ingressPolicy=policy)

    assert connect(one.container, outside, Outside.ADDRESS) == one.address()
    assert not reach(one, two) and not reach(two, one)


@pytest.mark.known_difference(
    "isolated containers of one bridge reach each other without br_netfilter",
    here="the bridge itself separates them",
    right="cnihook",
)
def test_isolated_ports_do_not_get_each_others_frames(host: Host) -> None:
    """Neither frames of a protocol that IP filters do not see, nor broadcasts."""
    one, two = (attach(host, ingressPolicy="isolated") for _ in range(2))
    source, destination = (each.container.link("eth0")["address"] for each in (one, two))

    with packet_socket(one.container, "eth0") as sender, packet_socket(two.container, "eth0") as receiver:
        for target in (destination, "ff:ff:ff:ff:ff:ff"):
            sender.send(frame(source, target))
            assert not arrives(receiver)


@OLD_KEYS
def test_isolation_wins_on_a_bridge_of_two_networks(host: Host) -> None:
    """Packets that return to the bridge they came from pass for one network, but not for the other."""
    host.outside()
    one = attach(host, ingressPolicy="isolated")
    above = {"ipam": {"ranges": [[{"subnet": NET, "rangeStart": "10.9.0.100"}]]}}
    two = attach(host, name="net2", port=above, ingressPolicy="same-bridge")
    publish(host, 8080, one.address(), masquerade=True)

    assert not reaches(two.container, one.container, Outside.HOST, port=8080)


def test_policy_lasts_as_long_as_its_containers(host: Host) -> None:
    """DEL of a neighbour removes nothing.  DEL of the last container removes its bridge's policy only."""
    one, two = (attach(host, NET, NET6, ingressPolicy="same-bridge") for _ in range(2))
    other = attach(host, SECOND, SECOND6, link="cni1", name="net2", ingressPolicy="same-bridge")
    third = attach(
        host, "10.7.0.0/24", "2001:db8:9:2::/64", link="cni2", name="net3", ingressPolicy="same-bridge"
    )

    one.delete()
    assert not reach(two, other) and not reach(other, two)

    two.delete()
    assert not reach(other, third)


@pytest.mark.known_difference(
    "the policy's chains stay after the last container", here="DEL removes them", right="either"
)
def test_policy_ends_with_the_last_container(host: Host) -> None:
    """A bridge is open again when none of its containers has a policy."""
    one = attach(host, NET, NET6, ingressPolicy="same-bridge")
    plain = attach(host, NET, NET6)
    other = attach(host, SECOND, SECOND6, link="cni1", name="net2", ingressPolicy="same-bridge")
    assert not reach(plain, other)
    one.delete()

    assert reach(plain, other) and reach(other, plain)


def test_flushed_policy_is_back_with_the_next_container(host: Host) -> None:
    one = attach(host, NET, NET6, ingressPolicy="same-bridge")
    other = attach(host, SECOND, SECOND6, link="cni1", name="net2", ingressPolicy="same-bridge")
    host.run("nft", "flush ruleset")

    attach(host, NET, NET6, ingressPolicy="same-bridge")
    attach(host, SECOND, SECOND6, link="cni1", name="net2", ingressPolicy="same-bridge")

    assert not reach(one, other) and not reach(other, one)


@pytest.mark.parametrize("what", ["tables", "sets"])
@pytest.mark.known_difference("the next ADD leaves flushed chains empty", here="fills them", right="cnihook")
def test_flushed_tables_and_sets_are_filled_again(host: Host, what: str) -> None:
    one = attach(host, NET, NET6, ingressPolicy="same-bridge")
    other = attach(host, SECOND, SECOND6, link="cni1", name="net2", ingressPolicy="same-bridge")
    if what == "tables":
        for line in host.run("nft", "list", "tables").stdout.splitlines():
            host.run("nft", "flush", *line.split())
    else:
        host.run("nft", "flush", "set", "inet", "cnihook", "forward-bridges")

    attach(host, NET, NET6, ingressPolicy="same-bridge")

    assert not reach(one, other) and not reach(other, one)


def test_del_succeeds_after_chains_were_flushed(host: Host) -> None:
    """The policy of a neighbour does not count as unused then."""
    one, two = (attach(host, NET, NET6, ingressPolicy="same-bridge") for _ in range(2))
    for line in host.run("nft", "list", "tables").stdout.splitlines():
        host.run("nft", "flush", *line.split())

    one.delete()
    two.delete()


@pytest.mark.parametrize("policy", ["same-bridge", ISOLATED])
@pytest.mark.known_difference(
    "CHECK ignores the policy", here="finds missing rules", right="SPEC.md, 2 CHECK"
)
def test_check_finds_a_missing_policy(host: Host, policy: str) -> None:
    one = attach(host, ingressPolicy=policy)
    one.check()
    for line in host.run("nft", "list", "tables").stdout.splitlines():
        host.run("nft", "flush", *line.split())

    with pytest.raises(CniFailure, match=f'ingress policy "{policy}" is not in force'):
        one.check()


@pytest.mark.known_difference(
    "isolated containers of one bridge reach each other without br_netfilter",
    here="the bridge itself separates them",
    right="cnihook",
)
def test_check_finds_a_port_that_lost_its_isolation(host: Host) -> None:
    one = attach(host, ingressPolicy="isolated")
    one.check()
    port = one.result["interfaces"][1]["name"]
    host.run("ip", "link", "set", port, "type", "bridge_slave", "isolated", "off")

    with pytest.raises(CniFailure, match="not isolated"):
        one.check()


def test_unknown_policy_is_refused(host: Host) -> None:
    with pytest.raises(CniFailure) as refused:
        attach(host, ingressPolicy="closed")

    assert refused.value.msg == 'unknown ingress policy: "closed"'


@pytest.mark.known_difference(
    "a policy accepts any interface instead of a bridge",
    here="refused with code 7",
    right="either",
)
@pytest.mark.parametrize("interfaces", [None, [], [{"name": "lo"}], [{"name": "gone"}]])
def test_policy_needs_a_bridge(host: Host, container: Container, interfaces: object) -> None:
    """The bridge is the first interface in the bridge plugin's result."""
    container, result = bridge.add(host, bridge.network(NET), container)
    result = {key: value for key, value in result.items() if key != "interfaces"}
    result["ips"] = [{"address": "10.9.0.2/24"}]
    if interfaces is not None:
        result["interfaces"] = interfaces
    before = host.nft()

    with pytest.raises(CniFailure, match='chain "firewall" plugin with "bridge"|needs a bridge') as refused:
        host.cni("ADD", with_previous_result(conf(ingressPolicy="same-bridge"), result), container)
    assert refused.value.msg.startswith('ingress policy "same-bridge" needs a bridge')
    assert host.nft() == before
