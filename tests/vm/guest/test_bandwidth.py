# SPDX-License-Identifier: Apache-2.0
"""bandwidth on a kernel that has ipvlan and matchall, and whose qdiscs are modules."""

import json
from typing import Any

import pytest

from tests.netns.differences import LEAVES_QDISC, VETH_ONLY
from tests.support.host.host import Container, Host, Outside
from tests.support.host.namespace import Namespace
from tests.support.host.sockets import connect
from tests.support.plugins.bandwidth import (
    EGRESS,
    EGRESS_TBF,
    INGRESS,
    INGRESS_TBF,
    add,
    addressed,
    conf,
    ifb_name,
    limits,
    linked,
    outer_of,
    previous,
    qdiscs,
)
from tests.support.plugins.cni import CniFailure

BOTH = INGRESS | EGRESS
IFB = ifb_name("c1")


def passed(namespace: Namespace) -> dict[str, int]:
    """Return how many packets each limit has passed, by link."""
    listed: list[Any] = json.loads(namespace.run("tc", "-s", "-j", "qdisc", "show").stdout)
    return {qdisc["dev"]: qdisc["packets"] for qdisc in listed if qdisc["kind"] == "tbf"}


def test_pair_is_limited_on_the_host(host: Host) -> None:
    container = addressed(host, linked(host))
    sent = add(host, container, conf(**BOTH))

    outer = outer_of(container)
    assert limits(host) == {outer: INGRESS_TBF, IFB: EGRESS_TBF}
    before = passed(host)
    connect(container, host, "10.9.0.1")
    assert all(passed(host)[dev] > before[dev] for dev in (outer, IFB))
    host.cni("CHECK", sent, container)


@VETH_ONLY
@pytest.mark.parametrize(("mode", "address"), [("l2", "198.51.100.9"), ("l3", "10.9.0.9")])
def test_ipvlan_is_limited_in_the_container(host: Host, mode: str, address: str) -> None:
    outside = host.outside()
    container = host.container()
    host.run(*f"ip link add link up0 name eth0 netns {container.name} type ipvlan mode {mode}".split())
    container.run("ip", "link", "set", "eth0", "up")
    container.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
    if mode == "l3":  # no machine answers ARP for the container's address
        container.run("ip", "route", "add", "default", "dev", "eth0")
        outside.run("ip", "route", "add", address, "via", Outside.HOST)
    host.save_state()

    sent = add(host, container, conf(**BOTH))

    assert limits(container) == {"eth0": EGRESS_TBF, IFB: INGRESS_TBF}
    before = passed(container)
    assert connect(container, outside, Outside.ADDRESS) == address
    assert all(passed(container)[dev] > before[dev] for dev in ("eth0", IFB))
    host.cni("CHECK", sent, container)
    host.cni("DEL", sent, container)
    assert qdiscs(container) == set()
    assert connect(container, outside, Outside.ADDRESS) == address


@LEAVES_QDISC
def test_filter_of_another_kind_stays(host: Host) -> None:
    container: Container = linked(host)
    outer = outer_of(container)
    host.run(*f"tc qdisc add dev {outer} ingress".split())
    host.run(*f"tc filter add dev {outer} ingress matchall action pass".split())

    with pytest.raises(CniFailure):
        add(host, container, conf(**BOTH))
    host.cni("DEL", conf(**BOTH, prevResult=previous(container)), container)

    assert qdiscs(host) == {f"ingress on {outer}"}
    assert "matchall" in host.run("tc", "filter", "show", "dev", outer, "ingress").stdout
