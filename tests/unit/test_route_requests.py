# SPDX-License-Identifier: Apache-2.0
"""Routes that a container requests, and their effect on the routes of its networks."""

import json
from typing import Any

import pytest

from cnihook.request import npwg
from cnihook.request.request import NetworkRequest
from cnihook.request.resolve import ResolvedNetwork
from tests.unit.test_request_plugins import BRIDGE, net, served

DUAL: dict[str, Any] = {
    "type": "bridge",
    "isDefaultGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd01::/64"}]]},
}
BOTH = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]


def routes_of(one: ResolvedNetwork) -> Any:
    return one.network.plugins[0]["ipam"].get("routes", [])


def asking(*gateways: str) -> NetworkRequest:
    text = json.dumps([{"name": "asking", "default-route": list(gateways)}])
    return npwg.parse(text)[0]


@pytest.mark.parametrize("first", [True, False], ids=["asks first", "asks last"])
@pytest.mark.parametrize(
    ("gateways", "left"),
    [
        (["fd12::1"], BOTH[:1]),
        (["10.2.0.1"], BOTH[1:]),
        (["10.2.0.1", "fd12::1"], []),
    ],
)
def test_requested_default_route_is_the_only_one_of_its_ip_version(
    gateways: list[str], left: list[Any], first: bool
) -> None:
    """The others are removed, from `routes` or from isDefaultGateway, with any IPAM plugin."""
    by_routes = {"type": "bridge", "ipam": {**DUAL["ipam"], "routes": [*BOTH, {"dst": "192.0.2.0/24"}]}}
    another = {"type": "macvlan", "ipam": {"type": "whereabouts", "routes": BOTH}}
    plain = {"type": "macvlan", "ipam": {"type": "whereabouts"}}
    confs = {"a": by_routes, "b": DUAL, "c": another, "d": plain}
    others = [(net(conf, name=name), NetworkRequest(name)) for name, conf in confs.items()]
    own = (net(by_routes, name="asking"), asking(*gateways))
    results = served(*((own, *others) if first else (*others, own)))

    a, b, c, d = results[1:] if first else results[:-1]
    assert routes_of(a) == [*left, {"dst": "192.0.2.0/24"}]
    assert routes_of(b) == left and b.network.plugins[0]["isGateway"] is True
    assert "isDefaultGateway" not in b.network.plugins[0]
    assert routes_of(c) == left
    assert routes_of(d) == [] and d.network.plugins == [plain]
    requested = [{"dst": "::/0" if ":" in gateway else "0.0.0.0/0", "gw": gateway} for gateway in gateways]
    assert routes_of(results[0 if first else -1]) == [*left, {"dst": "192.0.2.0/24"}, *requested]


def test_default_route_of_a_dhcp_server_gets_a_metric_if_another_is_requested() -> None:
    dhcp = {"type": "macvlan", "ipam": {"type": "dhcp"}}
    results = served(
        (net(dhcp, name="lan"), NetworkRequest("lan")), (net(BRIDGE, name="asking"), asking("10.1.0.9"))
    )

    assert results[0].network.plugins[0]["ipam"] == {"type": "dhcp", "priority": 1024}
    own = {"type": "macvlan", "ipam": {"type": "dhcp", "priority": 7}}
    results = served(
        (net(own, name="lan"), NetworkRequest("lan")), (net(BRIDGE, name="asking"), asking("10.1.0.9"))
    )
    assert results[0].network.plugins[0]["ipam"]["priority"] == 7


@pytest.mark.parametrize(
    ("route", "kept"),
    [
        ("::/0=fd01::9", [*BOTH[:1], {"dst": "2001:db8::/32"}, {"dst": "2001:db8::/32", "table": 7}]),
        ("2001:db8::/32=fd01::9", [*BOTH, {"dst": "2001:db8::/32", "table": 7}]),
        ("2001:db8:1::/48=fd01::9", [*BOTH, {"dst": "2001:db8::/32"}, {"dst": "2001:db8::/32", "table": 7}]),
    ],
)
def test_requested_route_replaces_that_of_the_network(route: str, kept: list[Any]) -> None:
    """Both would be used for IPv6.  A route with a `table` stays."""
    routes = [*BOTH, {"dst": "2001:db8::/32"}, {"dst": "2001:db8::/32", "table": 7}]
    conf = {"type": "bridge", "ipam": {**DUAL["ipam"], "routes": routes}}
    (found,) = served((net(conf), NetworkRequest("mynet")), route=route)

    dst, _, gateway = route.partition("=")
    assert routes_of(found) == [*kept, {"dst": dst, "gw": gateway}]


def test_default_route_may_be_requested_if_the_networks_have_none() -> None:
    two = [(net(DUAL, name=name), NetworkRequest(name)) for name in ("one", "two")]
    one, another = served(*two, route="0.0.0.0/0=10.1.0.9", no_default_route="true")

    assert routes_of(one) == [{"dst": "0.0.0.0/0", "gw": "10.1.0.9"}]
    assert routes_of(another) == []
