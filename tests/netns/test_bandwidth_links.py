# SPDX-License-Identifier: Apache-2.0
"""bandwidth: the interface that is limited, also a macvlan, and a chain with other plugins."""

from typing import Any

import pytest

from tests.netns.differences import VETH_ONLY
from tests.support.host.host import Container, Host, Outside
from tests.support.host.sockets import connect
from tests.support.plugins import bridge
from tests.support.plugins.bandwidth import (
    EGRESS,
    EGRESS_TBF,
    INGRESS,
    INGRESS_TBF,
    add,
    check_limit,
    conf,
    ifb_name,
    ifbs,
    limits,
    linked,
    outer_of,
    pair,
    previous,
    qdiscs,
)
from tests.support.plugins.cni import CniFailure, with_previous_result

BOTH = INGRESS | EGRESS

IFB = ifb_name("c1")

ONE_NAME = pytest.mark.known_difference(
    "two attachments of a container to a network share one ifb; the second ADD fails",
    here="each has its own ifb",
    right="SPEC.md, 3 Attachment Parameters",
)


@pytest.fixture
def container(host: Host) -> Container:
    return linked(host)


OUTER = "vc1eth0"


@pytest.mark.parametrize(
    ("interfaces", "words"),
    [([], "no interfaces provided"), ([{"name": "other"}], "no veth peer")],
    ids=["none", "another"],
)
def test_link_that_the_result_does_not_name_is_refused(
    host: Host, container: Container, interfaces: list[Any], words: str
) -> None:
    """The link may belong to another attachment."""
    result = {"cniVersion": "1.0.0", "interfaces": interfaces}
    with pytest.raises(CniFailure, match=words):
        add(host, container, conf(**BOTH, prevResult=result))

    assert qdiscs(host) == set()


@pytest.mark.known_difference(
    "uses the peer's index without its namespace, and limits another link", here="refused", right="cnihook"
)
def test_pair_whose_other_end_is_elsewhere_is_refused(host: Host, container: Container) -> None:
    """The peer's index is in another namespace; on the host, another link has the same index."""
    other = host.container()
    index = host.link(OUTER)["ifindex"]
    container.run(*f"ip link add eth1 type veth peer name far index {index} netns {other.name}".split())
    host.save_state()
    result = previous(container)
    result["interfaces"][1]["name"] = "eth1"

    with pytest.raises(CniFailure):
        host.cni("ADD", conf(**BOTH, prevResult=result), container, "eth1")

    assert qdiscs(host) == set()


def test_error_names_a_missing_interface(host: Host, container: Container) -> None:
    with pytest.raises(CniFailure, match="eth7"):
        add(host, container, conf(**BOTH), "eth7")


def macvlan(host: Host) -> tuple[Container, Outside]:
    """Return a container with a macvlan on the host's uplink and no link on the host, and the outside."""
    outside = host.outside()
    container = host.container()
    host.run(*f"ip link add link up0 name eth0 netns {container.name} type macvlan mode bridge".split())
    container.run("ip", "link", "set", "eth0", "up")
    container.run("ip", "address", "add", "198.51.100.9/24", "dev", "eth0")
    host.save_state()
    return container, outside


@VETH_ONLY
def test_macvlan_is_limited_in_the_container(host: Host) -> None:
    """plugins#413, #656: the host has no end of the link, so the limits are in the container."""
    container, outside = macvlan(host)
    sent = add(host, container, conf(**BOTH))

    assert limits(container) == {"eth0": EGRESS_TBF, IFB: INGRESS_TBF}
    assert qdiscs(host) == set()
    ifb = {"name": IFB, "mac": container.link(IFB)["address"], "sandbox": container.path}
    assert sent["prevResult"]["interfaces"][2:] == [ifb]
    check_limit(container, outside, Outside.ADDRESS, *EGRESS.values())
    check_limit(outside, container, "198.51.100.9", *INGRESS.values())

    host.cni("CHECK", sent, container)
    for _ in range(2):
        host.cni("DEL", sent, container)
    assert qdiscs(container) == set()
    assert connect(container, outside, Outside.ADDRESS) == "198.51.100.9"


@VETH_ONLY
@pytest.mark.parametrize("kind", ["tuntap add eth0 mode tap", "link add eth0 type bridge"])
def test_any_interface_without_an_end_on_the_host_is_limited(host: Host, kind: str) -> None:
    container = host.container()
    container.run("ip", *kind.split())
    host.save_state()
    sent = add(host, container, conf(**BOTH))

    assert limits(container) == {"eth0": EGRESS_TBF, IFB: INGRESS_TBF}
    host.cni("CHECK", sent, container)


@VETH_ONLY
@pytest.mark.parametrize("broken", ["namespace", "link", "result"])
def test_del_of_a_macvlan_succeeds(host: Host, broken: str) -> None:
    container, _outside = macvlan(host)
    sent = add(host, container, conf(**BOTH))
    if broken == "namespace":
        container.destroy()
    elif broken == "link":
        container.run("ip", "link", "del", "eth0")
        host.before = host.before.without("in c1: link eth0").without("in c1: address eth0")
        host.before = host.before.without("in c1: route eth0")
    else:
        del sent["prevResult"]

    host.cni("DEL", sent, container)


def test_container_of_a_bridge_is_limited(host: Host) -> None:
    network = bridge.network("10.9.0.0/24", isGateway=True)
    container, result = bridge.add(host, network)
    sent = conf(**BOTH, prevResult=result)
    limited = host.cni("ADD", sent, container)

    outer = result["interfaces"][1]["name"]
    assert limits(host) == {outer: INGRESS_TBF, IFB: EGRESS_TBF}
    assert connect(container, host, "10.9.0.1") == bridge.address(limited)

    host.cni("DEL", with_previous_result(conf(**BOTH), limited), container)
    assert ifbs(host) == set()


@ONE_NAME
def test_container_with_two_interfaces_on_a_network(host: Host, container: Container) -> None:
    pair(host, container, "eth1")
    first = add(host, container, conf(**BOTH))
    second = add(host, container, conf(**EGRESS), "eth1")
    other = second["prevResult"]["interfaces"][2]["name"]
    assert ifbs(host) == {IFB, other}
    for sent, ifname in ((first, "eth0"), (second, "eth1")):
        host.cni("CHECK", sent, container, ifname)

    host.cni("DEL", first, container)

    assert qdiscs(host) == {f"tbf on {other}", f"ingress on {outer_of(container, 'eth1')}"}
    host.cni("CHECK", second, container, "eth1")
