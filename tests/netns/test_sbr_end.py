# SPDX-License-Identifier: Apache-2.0
"""sbr: DEL with parts missing, and CHECK of sbr and of the plugins before it in its chain."""

from typing import Any

import pytest

from tests.netns.differences import NO_STATUS, SPEC_1_1
from tests.support.host.host import Container, Host
from tests.support.host.sockets import connect
from tests.support.plugins.cni import CniFailure, with_previous_result
from tests.support.plugins.routing import (
    FAR,
    Chain,
    address,
    attach,
    far_machine,
    network,
    quick,
    routed,
    router,
    rules,
    table,
)

SBR = {"type": "sbr"}
LINK = pytest.mark.known_difference(
    "DEL fails without the link", here="succeeds", right="SPEC.md, 2 DEL", fixed_in="1.9.1"
)


@pytest.fixture
def container(host: Host) -> Container:
    return quick(host)


@LINK
def test_del_undoes_all_of_add_and_can_be_repeated(host: Host, container: Container) -> None:
    chain = attach(host, container, "eth0", network(1, 4, 6), SBR)

    for _ in range(2):
        chain.delete()

    assert rules(container) == {}


def without_previous_result(chain: Chain) -> None:
    chain.result = None


def without_link(chain: Chain) -> None:
    chain.container.run("ip", "link", "del", "eth0")


@pytest.mark.known_difference(
    "DEL without the link leaves rules and tables", here="finds them by what is left", right="SPEC.md, 2 DEL"
)
@pytest.mark.parametrize("loss", [without_previous_result, without_link])
def test_del_finds_its_rules_by_what_is_left(host: Host, container: Container, loss: Any) -> None:
    chain = attach(host, container, "eth0", network(1, 4, 6), SBR)
    loss(chain)

    conf = with_previous_result(chain.confs[1], chain.result)
    host.cni("DEL", conf, container)

    assert rules(container) == {}
    assert table(container, "100") == table(container, "101") == set()


DAMAGED = pytest.mark.known_difference(
    "DEL fails with a damaged previous result", here="succeeds", right="SPEC.md, 2 DEL"
)


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param([], id="no addresses"),
        pytest.param([{"address": 7}], id="damaged", marks=DAMAGED),
    ],
)
def test_del_accepts_any_previous_result(host: Host, container: Container, loss: Any) -> None:
    chain = attach(host, container, "eth0", network(1), SBR)

    host.cni("DEL", chain.confs[1] | {"prevResult": chain.result | {"ips": loss}}, container)


@pytest.mark.known_difference(
    "DEL without a namespace fails, and creates a file at its path", here="succeeds", right="SPEC.md, 2 DEL"
)
@pytest.mark.parametrize("path", ["", "/run/netns/gone"])
def test_del_needs_no_namespace(host: Host, container: Container, path: str) -> None:
    chain = attach(host, container, "eth0", network(1), SBR)
    container.destroy()

    chain.delete(CNI_NETNS=path)

    assert not path or not host.exists(path)


def test_del_without_an_add_succeeds(host: Host, container: Container) -> None:
    attach(host, container, "eth0", network(1))

    host.cni("DEL", network(1) | SBR, container)


def test_del_of_one_leaves_the_others(host: Host, container: Container) -> None:
    machine = far_machine(host, 1)
    attach(host, container, "eth0", network(1), SBR)
    chain = attach(host, container, "eth1", network(2), SBR)

    chain.delete()

    assert rules(container).keys() == {address(1)}
    assert connect(machine, container, address(1)) == FAR


@pytest.mark.known_difference(
    "DEL removes the rules of another network with the same address",
    here="leaves them",
    right="SPEC.md, 2 DEL",
)
@pytest.mark.parametrize("gone", [False, True], ids=["link", "no link"])
def test_del_leaves_another_network_with_the_same_address(
    host: Host, container: Container, gone: bool
) -> None:
    attach(host, container, "eth0", network(1), SBR)
    same = network(2, ipam=network(1)["ipam"])
    chain = attach(host, container, "eth1", same, SBR)
    first = min(rules(container)[address(1)])
    if gone:
        container.run("ip", "link", "del", "eth1")

    chain.delete()

    assert rules(container) == {address(1): [first]}
    assert table(container, first) == routed(1)


# CHECK, STATUS


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", pytest.param("1.1.0", marks=SPEC_1_1)])
@pytest.mark.known_difference(
    "CHECK of an interface plugin fails after sbr or vrf, because it looks in table main only",
    here="succeeds",
    right="SPEC.md, 2 CHECK",
)
def test_check_of_the_whole_chain_accepts_what_add_made(
    host: Host, container: Container, version: str
) -> None:
    chains = [
        attach(host, container, f"eth{number}", network(number, 4, 6, version=version), SBR)
        for number in (1, 2)
    ]

    for chain in chains:
        chain.check()


def test_check_of_two_networks_with_a_default_route_each(host: Host, container: Container) -> None:
    """There is no sbr, and the kernel makes one route of IPv6 with two next hops."""
    chains = []
    for number in (1, 2):
        conf = network(number, 6)
        conf["ipam"]["routes"] = [{"dst": "::/0", "gw": router(number, 6)}]
        chains.append(attach(host, container, f"eth{number}", conf))

    for chain in chains:
        chain.check()


@pytest.mark.known_difference(
    "CHECK always succeeds", here="finds missing rules and routes", right="SPEC.md, 2 CHECK"
)
@pytest.mark.parametrize(
    "damage",
    [
        "ip rule del from 10.1.0.2",
        "ip -6 rule del from 2001:db8:1::2",
        "ip route del default table 100",
        "ip -6 route del default table 101",
        "ip link set eth0 down",
        "ip link del eth0",
    ],
)
def test_check_finds_damage(host: Host, container: Container, damage: str) -> None:
    chain = attach(host, container, "eth0", network(1, 4, 6), SBR)
    container.run(*damage.split())

    with pytest.raises(CniFailure, match="eth0"):
        host.cni("CHECK", with_previous_result(chain.confs[1], chain.result), container)


@pytest.mark.known_difference(
    "CHECK always succeeds", here="finds missing rules and routes", right="SPEC.md, 2 CHECK"
)
def test_check_requires_the_result(host: Host, container: Container) -> None:
    with pytest.raises(CniFailure, match="chained"):
        host.cni("CHECK", network(1) | SBR, container)


@NO_STATUS
def test_status_reports_an_invalid_configuration(host: Host) -> None:
    assert host.cni("STATUS", network(1, version="1.1.0") | SBR) is None

    with pytest.raises(CniFailure, match="gateways"):
        host.cni("STATUS", network(1, version="1.1.0") | SBR | {"gateways": [1]})
