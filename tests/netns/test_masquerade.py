# SPDX-License-Identifier: Apache-2.0
"""ipMasq: packets of no connection, which NAT does not see, do not leave with a container's address."""

from typing import Any

import pytest

from tests.netns.differences import LEAKS_INVALID
from tests.support.host.host import ACCEPT_DAD, Container, Host, Outside
from tests.support.host.sockets import connect, sources_of_strays
from tests.support.plugins import bridge
from tests.support.plugins.bridge import add, address
from tests.support.plugins.cni import CniFailure, with_previous_result

SUBNET, SUBNET6 = "10.9.0.0/24", "2001:db8:9::/64"
OTHERS = "10.8.0.0/24", "2001:db8:8::/64"
VERSIONS = pytest.mark.parametrize(
    ("index", "there"), [(0, Outside.ADDRESS), (1, Outside.ADDRESS6)], ids=["IPv4", "IPv6"]
)
OWN_RULES = pytest.mark.known_difference(
    "iptables rules for each container; `ipMasqBackend` selects the backend",
    here="elements in nft maps, whatever `ipMasqBackend` is",
    right="either",
)


def network(kind: str = "bridge", *subnets: str, name: str = "net1", **keys: Any) -> dict[str, Any]:
    conf = bridge.network(*(subnets or (SUBNET, SUBNET6)), name=name, ipMasq=True, **keys)
    conf["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    return conf | {"type": kind} | ({"isGateway": True} if kind == "bridge" else {})


def other(**keys: Any) -> dict[str, Any]:
    return network("bridge", *OTHERS, name="other", bridge="br2") | keys


def quick(host: Host) -> Container:
    container = host.container()
    container.set_sysctl(ACCEPT_DAD, "0")
    return container


@VERSIONS
@LEAKS_INVALID
@pytest.mark.parametrize("kind", ["bridge", "ptp"])
def test_packet_without_a_connection_does_not_leave(host: Host, kind: str, index: int, there: str) -> None:
    """Providers block hosts because of such packets."""
    outside = host.outside()
    one, result = add(host, network(kind), quick(host))
    two, second = add(host, other(), quick(host))

    assert sources_of_strays(one, outside, address(result, index), there) == []
    assert sources_of_strays(two, outside, address(second, index), there) == []
    assert connect(one, outside, there) == (Outside.HOST, Outside.HOST6)[index]


@VERSIONS
def test_packet_without_a_connection_passes_if_not_masqueraded(host: Host, index: int, there: str) -> None:
    """Both from a network that is not masqueraded, and within one that is."""
    outside = host.outside()
    (one, first), (two, second) = (add(host, network(), quick(host)) for _ in range(2))
    plain, third = add(host, other(ipMasq=False), quick(host))

    own = address(third, index)
    assert sources_of_strays(plain, outside, own, there, 5) == [own] * 2
    own = address(first, index)
    assert sources_of_strays(one, two, own, address(second, index), 5) == [own] * 2


@VERSIONS
@pytest.mark.known_difference(
    "`ipMasqSubnets` is not a key of the reference", here="the subnet of several hosts", right="either"
)
def test_packet_to_another_host_of_the_network_keeps_its_source(host: Host, index: int, there: str) -> None:
    """The container's own subnet is one block of a network that several hosts share."""
    outside = host.outside()
    container, result = add(host, network(ipMasqSubnets=["10.9.0.0/16", "2001:db8::/40"]), quick(host))
    block = ("10.9.77.0/24", "2001:db8:77::/64")[index]
    remote = block.replace("0/24", "5").replace("/64", "5")
    host.run("ip", "route", "add", block, "via", there)
    outside.run("ip", "address", "add", remote, "dev", "up0", *["nodad"] * index)
    outside.run("ip", "route", "add", (SUBNET, SUBNET6)[index], "via", (Outside.HOST, Outside.HOST6)[index])
    host.leaves("route *")

    assert connect(container, outside, remote) == address(result, index)
    assert connect(container, outside, there) == (Outside.HOST, Outside.HOST6)[index]


@LEAKS_INVALID
def test_end_of_one_network_leaves_the_others(host: Host) -> None:
    outside = host.outside()
    one, result = add(host, network(), quick(host))
    conf = other()
    two, second = add(host, conf, quick(host))

    host.cni("DEL", with_previous_result(conf, second), two)

    assert sources_of_strays(one, outside, address(result), Outside.ADDRESS) == []
    assert connect(one, outside, Outside.ADDRESS) == Outside.HOST


@OWN_RULES
def test_rules_do_not_grow_with_containers(host: Host) -> None:
    conf = network()
    add(host, conf, quick(host))
    rules = [line for line in host.nft().splitlines() if "drop" in line or "masquerade" in line]
    assert len(rules) > 3

    for _ in range(2):
        add(host, conf, quick(host))

    assert [line for line in host.nft().splitlines() if "drop" in line or "masquerade" in line] == rules


# What an earlier version, or another program, has left of the rules.
DAMAGES = {
    "earlier version": "; ".join(
        f"delete chain inet cnihook masquerade-{c}" for c in ("forward", "invalid")
    ),
    "jump": "flush chain inet cnihook masquerade-forward",
    "rules": "flush chain inet cnihook masquerade-invalid",
}


@OWN_RULES
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("of", ["the same network", "another network"])
def test_missing_rules_are_found_and_restored(host: Host, damage: str, of: str) -> None:
    outside = host.outside()
    conf = network()
    one, result = add(host, conf, quick(host))
    sent = with_previous_result(conf, result)
    host.cni("CHECK", sent, one)
    host.run("nft", DAMAGES[damage])
    with pytest.raises(CniFailure, match="not masqueraded"):
        host.cni("CHECK", sent, one)

    add(host, conf if of == "the same network" else other(), quick(host))

    host.cni("CHECK", sent, one)
    for index, there in enumerate((Outside.ADDRESS, Outside.ADDRESS6)):
        assert sources_of_strays(one, outside, address(result, index), there) == []


@OWN_RULES
@pytest.mark.parametrize("damage", DAMAGES)
def test_del_of_what_an_earlier_version_made_leaves_nothing(host: Host, damage: str) -> None:
    first, second = network(), other()
    (one, result), (two, another) = add(host, first), add(host, second)
    host.run("nft", DAMAGES[damage])

    host.cni("DEL", with_previous_result(first, result), one)
    host.cni("DEL", with_previous_result(second, another), two)

    assert "table inet cnihook" not in host.nft()
