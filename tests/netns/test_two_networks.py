# SPDX-License-Identifier: Apache-2.0
"""A container on two networks that lead to the same destinations uses the first network."""

import json
from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.plugins.routing import network, quick, router

TAKES_OVER = pytest.mark.known_difference(
    "the default route of a second network replaces that of the first, or becomes its second next hop",
    here="the first network keeps it",
    right="cnihook",
)
DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
FURTHER = {4: "192.0.2.0/24", 6: "2001:db8:77::/48"}
FAR = {4: "192.0.2.", 6: "2001:db8:77::"}


def way(container: Container, version: int, number: int = 7) -> str:
    """Return the gateway that a packet to a far machine takes."""
    answer = container.run("ip", f"-{version}", "-j", "route", "get", f"{FAR[version]}{number}")
    gateway: str = json.loads(answer.stdout)[0]["gateway"]
    return gateway


def ways(container: Container, version: int) -> list[list[str]]:
    """Return the next hops of each default route, the preferred one first."""
    listed = json.loads(container.run("ip", f"-{version}", "-j", "route", "show", "default").stdout)
    listed.sort(key=lambda route: route.get("metric", 0))
    return [[hop["gateway"] for hop in route.get("nexthops", [route])] for route in listed]


@TAKES_OVER
@pytest.mark.parametrize("kind", ["bridge", "ptp"])
@pytest.mark.parametrize("version", [4, 6])
def test_network_that_is_attached_first_has_the_default_route(host: Host, version: int, kind: str) -> None:
    container = quick(host)
    first, second = (network(number, version, type=kind) for number in (1, 2))
    host.cni("ADD", first, container, "eth0")
    host.cni("ADD", second, container, "eth1")

    assert ways(container, version) == [[router(1, version)], [router(2, version)]]
    assert {way(container, version, number) for number in range(1, 20)} == {router(1, version)}
    host.cni("DEL", first, container, "eth0")
    assert ways(container, version) == [[router(2, version)]], "the other network takes over"
    host.cni("ADD", first, container, "eth0")
    assert ways(container, version)[0] == [router(1, version)]
    host.cni("DEL", second, container, "eth1")
    host.cni("DEL", first, container, "eth0")


@TAKES_OVER
@pytest.mark.parametrize("version", [4, 6])
def test_other_routes_of_the_first_network_are_preferred_as_well(host: Host, version: int) -> None:
    container = quick(host)
    for number in (1, 2, 3):
        conf = network(number, version)
        conf["ipam"]["routes"] = [{"dst": FURTHER[version]}]
        host.cni("ADD", conf, container, f"eth{number}")

    listed = json.loads(container.run("ip", f"-{version}", "-j", "route", "show", FURTHER[version]).stdout)
    listed.sort(key=lambda route: route.get("metric", 0))
    assert [route["gateway"] for route in listed] == [router(number, version) for number in (1, 2, 3)]
    assert way(container, version) == router(1, version)


def test_next_hops_of_one_network_stay_together(host: Host) -> None:
    """Two routers for one destination on one link, and IPv6 distributes the flows to both."""
    container = quick(host)
    conf: dict[str, Any] = network(1, 6)
    conf["ipam"]["routes"] = [{"dst": "::/0"}, {"dst": "::/0", "gw": "2001:db8:1::9"}]
    host.cni("ADD", conf, container, "eth0")

    assert ways(container, 6) == [[router(1, 6), "2001:db8:1::9"]]


@TAKES_OVER
def test_next_hops_of_the_second_network_stay_together_behind_the_first(host: Host) -> None:
    container = quick(host)
    host.cni("ADD", network(1, 6), container, "eth0")
    conf: dict[str, Any] = network(2, 6)
    conf["ipam"]["routes"] = [{"dst": "::/0"}, {"dst": "::/0", "gw": "2001:db8:2::9"}]
    host.cni("ADD", conf, container, "eth1")

    assert ways(container, 6) == [[router(1, 6)], [router(2, 6), "2001:db8:2::9"]]
