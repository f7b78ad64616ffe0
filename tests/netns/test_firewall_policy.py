# SPDX-License-Identifier: Apache-2.0
"""firewall: ingressPolicy, who reaches whom."""

import pytest

from tests.netns.differences import OLD_KEYS
from tests.support import bridge
from tests.support.cni import CniFailure, with_previous_result
from tests.support.firewall import (
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
from tests.support.host import Container, Host, Outside
from tests.support.traffic import arrives, connect, frame, packet_socket, reaches

SECOND, SECOND6 = "10.8.0.0/24", "2001:db8:9:1::/64"
ISOLATED = pytest.param("isolated", marks=OLD_KEYS)


@pytest.fixture(autouse=True)
def plain_bridge(host: Host) -> None:
    """As on a machine that has not loaded br_netfilter: iptables does not see what a bridge carries."""
    ask_iptables(host, False)
    leave_to_reference(host)


def ask_iptables(host: Host, answer: bool) -> None:
    host.run("sh", "-c", f"for f in /proc/sys/net/bridge/bridge-nf-call-*; do echo {int(answer)} > $f; done")


def reach(one: Attached, other: Attached, expected: bool = False) -> bool:
    """In both families, which must agree."""
    (answer,) = {
        reaches(one.container, other.container, other.address(family), expected=expected)
        for family in (0, 1)
    }
    return answer


@pytest.mark.parametrize("bridged", [False, True], ids=["", "br_netfilter"])
@pytest.mark.parametrize("policy", [None, "same-bridge", ISOLATED])
def test_containers_of_one_bridge(host: Host, policy: str | None, bridged: bool) -> None:
    """Isolation is no matter of whether the bridge asks iptables."""
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
    """Between two bridges that both have a policy nothing passes; one that has none is the world."""
    one = attach(host, NET, NET6, ingressPolicy=policy)
    two = attach(host, SECOND, SECOND6, link="cni1", name="net2", ingressPolicy=other)

    assert (reach(one, two, there), reach(two, one, back)) == (there, back)


@pytest.mark.parametrize("policy", ["same-bridge", ISOLATED])
def test_world_and_host_are_reached_as_ever(host: Host, policy: str) -> None:
    """And reach the container: a policy is about other bridges, and about neighbours."""
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
def test_published_port_is_no_way_around_isolation(host: Host, policy: str, reached: bool) -> None:
    """To the neighbour by way of the host."""
    host.outside()
    one, two = (attach(host, ingressPolicy=policy) for _ in range(2))
    publish(host, 8080, two.address(), masquerade=True)

    assert reaches(one.container, two.container, Outside.HOST, port=8080, expected=reached) == reached


@pytest.mark.parametrize("policy", ["same-bridge", ISOLATED])
def test_policy_and_iptables_that_drops(host: Host, policy: str) -> None:
    """The way out is open, the way to the other bridge is not."""
    drop_forwarded(host)
    outside = routed_outside(host)
    one = attach(host, NET, NET6, ingressPolicy=policy)
    two = attach(host, SECOND, SECOND6, link="cni1", name="net2", ingressPolicy=policy)

    assert connect(one.container, outside, Outside.ADDRESS) == one.address()
    assert not reach(one, two) and not reach(two, one)


@pytest.mark.known_difference(
    "isolated containers of one bridge reach each other without br_netfilter",
    here="kept apart on the bridge itself",
    right="cnihook",
)
def test_isolated_ports_share_no_wire(host: Host) -> None:
    """Not even frames of a protocol that no filter of IP would see, or those that are for all."""
    one, two = (attach(host, ingressPolicy="isolated") for _ in range(2))
    source, destination = (each.container.link("eth0")["address"] for each in (one, two))

    with packet_socket(one.container, "eth0") as sender, packet_socket(two.container, "eth0") as receiver:
        for target in (destination, "ff:ff:ff:ff:ff:ff"):
            sender.send(frame(source, target))
            assert not arrives(receiver)


@OLD_KEYS
def test_isolation_wins_on_a_bridge_of_two_networks(host: Host) -> None:
    """What is routed back to where it came from passes for the one network, but not for the other."""
    host.outside()
    one = attach(host, ingressPolicy="isolated")
    above = {"ipam": {"ranges": [[{"subnet": NET, "rangeStart": "10.9.0.100"}]]}}
    two = attach(host, name="net2", port=above, ingressPolicy="same-bridge")
    publish(host, 8080, one.address(), masquerade=True)

    assert not reaches(two.container, one.container, Outside.HOST, port=8080)


def test_policy_lasts_as_long_as_its_containers(host: Host) -> None:
    """A neighbour's DEL takes nothing away; the last one's takes the policy, for that bridge alone."""
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
    "the policy's chains stay after the last container", here="removed", right="either"
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
@pytest.mark.known_difference(
    "the next ADD does not fill flushed chains", here="fills them", right="cnihook"
)
def test_what_was_flushed_is_filled_again(host: Host, what: str) -> None:
    one = attach(host, NET, NET6, ingressPolicy="same-bridge")
    other = attach(host, SECOND, SECOND6, link="cni1", name="net2", ingressPolicy="same-bridge")
    if what == "tables":
        for line in host.run("nft", "list", "tables").stdout.splitlines():
            host.run("nft", "flush", *line.split())
    else:
        host.run("nft", "flush", "set", "inet", "cnihook", "forward-bridges")

    attach(host, NET, NET6, ingressPolicy="same-bridge")

    assert not reach(one, other) and not reach(other, one)


def test_del_bears_that_chains_were_flushed(host: Host) -> None:
    """And a neighbour's policy is not taken for one that nobody needs."""
    one, two = (attach(host, NET, NET6, ingressPolicy="same-bridge") for _ in range(2))
    for line in host.run("nft", "list", "tables").stdout.splitlines():
        host.run("nft", "flush", *line.split())

    one.delete()
    two.delete()


@pytest.mark.parametrize("policy", ["same-bridge", ISOLATED])
@pytest.mark.known_difference(
    "CHECK ignores the policy", here="finds missing rules", right="SPEC.md, 2 CHECK"
)
def test_check_sees_that_the_policy_is_gone(host: Host, policy: str) -> None:
    one = attach(host, ingressPolicy=policy)
    one.check()
    for line in host.run("nft", "list", "tables").stdout.splitlines():
        host.run("nft", "flush", *line.split())

    with pytest.raises(CniFailure, match=f'ingress policy "{policy}" is not in force'):
        one.check()


@pytest.mark.known_difference(
    "isolated containers of one bridge reach each other without br_netfilter",
    here="kept apart on the bridge itself",
    right="cnihook",
)
def test_check_sees_a_port_that_is_no_longer_isolated(host: Host) -> None:
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
    "a policy accepts any interface in place of a bridge",
    here="needs a bridge; code 7",
    right="either",
)
@pytest.mark.parametrize("interfaces", [None, [], [{"name": "lo"}], [{"name": "gone"}]])
def test_policy_needs_a_bridge(host: Host, container: Container, interfaces: object) -> None:
    """It is first in the bridge plugin's result."""
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
