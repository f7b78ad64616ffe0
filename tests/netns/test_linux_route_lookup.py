# SPDX-License-Identifier: Apache-2.0
"""Routes: pyroute2 sees those that linux.rtnl sets, and linux.route_lookup sees those of pyroute2."""

from typing import Any

import pytest

from cnihook.fast.address import Address, IPNet
from cnihook.linux import route_lookup
from cnihook.linux.rtnl import RT_SCOPE_LINK, Link, Rtnl
from tests.netns.test_linux_rtnl import NET, NET6, refusal, witness
from tests.support.host.host import Host


@pytest.fixture(autouse=True)
def implementation() -> None:
    """No plugin takes part: one run is enough."""


def routes_of(host: Host, family: int, **match: Any) -> list[dict[str, Any]]:
    """Return the routes that are not the kernel's own (protocol 2)."""
    routes = witness(host, lambda ip: list(ip.get_routes(family=family, **match)))
    return [dict(route["attrs"]) | dict(route) for route in routes if route["proto"] != 2]


def test_route_with_all_attributes(host: Host, rtnl: Rtnl, eth0: Link) -> None:
    rtnl.add_address(eth0, NET)
    rtnl.add_route(
        eth0, IPNet.parse("10.7.7.7/16"), via=Address.parse("10.1.2.1"), priority=7, table=1000, mtu=1300,
        advmss=1200, source=NET.address,
    )  # fmt: skip

    (route,) = routes_of(host, 2, table=1000)
    assert (route["RTA_DST"], route["dst_len"], route["scope"]) == ("10.7.0.0", 16, 0)
    assert (route["RTA_GATEWAY"], route["RTA_PREFSRC"]) == ("10.1.2.1", "10.1.2.3")
    assert (route["RTA_PRIORITY"], route["RTA_TABLE"], route["RTA_OIF"]) == (7, 1000, eth0.index)
    assert dict(route["RTA_METRICS"]["attrs"]) == {"RTAX_MTU": 1300, "RTAX_ADVMSS": 1200}
    own = next(each for each in route_lookup.routes(rtnl, 4) if each.table == 1000)
    assert (own.dst, own.gateway, own.priority) == (IPNet.parse("10.7.0.0/16"), Address.parse("10.1.2.1"), 7)
    assert (own.index, own.scope, own.version) == (eth0.index, 0, 4)


def test_route_of_ipv6_with_all_attributes(host: Host, rtnl: Rtnl, eth0: Link) -> None:
    rtnl.add_address(eth0, NET6)
    rtnl.add_route(
        eth0, IPNet.parse("2001:db8:7::7/48"), via=Address.parse("2001:db8::1"), priority=7, table=1000,
        mtu=1300, advmss=1220,
    )  # fmt: skip

    (route,) = routes_of(host, 10, table=1000)
    assert (route["RTA_DST"], route["dst_len"]) == ("2001:db8:7::", 48)
    assert (route["RTA_GATEWAY"], route["RTA_PRIORITY"]) == ("2001:db8::1", 7)
    assert dict(route["RTA_METRICS"]["attrs"]) == {"RTAX_MTU": 1300, "RTAX_ADVMSS": 1220}
    own = next(each for each in route_lookup.routes(rtnl, 6) if each.table == 1000)
    assert (own.dst, own.gateway, own.version) == (
        IPNet.parse("2001:db8:7::/48"), Address.parse("2001:db8::1"), 6
    )  # fmt: skip


@pytest.mark.parametrize(
    ("default", "net", "gateway"),
    [("0.0.0.0/0", "10.1.2.3/24", "10.1.2.1"), ("::/0", "2001:db8::3/64", "2001:db8::1")],
)
def test_default_routes(host: Host, rtnl: Rtnl, eth0: Link, default: str, net: str, gateway: str) -> None:
    via = Address.parse(gateway)
    rtnl.add_address(eth0, IPNet.parse(net))
    rtnl.add_route(eth0, IPNet.parse(default), via=via)

    (own,) = [
        route for route in route_lookup.routes(rtnl, via.version) if route.dst is None and route.table == 254
    ]
    assert (own.gateway, own.index) == (via, eth0.index)
    shown = [route for route in host.routes(via.version) if route[0] == "default"]
    assert shown == [("default", gateway, "eth0")]


def test_route_to_a_destination_on_the_link(host: Host, rtnl: Rtnl, eth0: Link) -> None:
    """The route has no gateway.  For IPv4, its scope is that of a link."""
    rtnl.add_route(eth0, IPNet.parse("10.7.0.0/16"))
    rtnl.add_route(eth0, IPNet.parse("2001:db8:7::/48"))

    (four,) = routes_of(host, 2)
    assert (four["RTA_DST"], four["scope"], four.get("RTA_GATEWAY")) == ("10.7.0.0", RT_SCOPE_LINK, None)
    assert ("2001:db8:7::/48", None, "eth0") in host.routes(6)


def test_second_route_to_one_destination(rtnl: Rtnl, eth0: Link) -> None:
    rtnl.add_address(eth0, NET)
    there = IPNet.parse("10.7.0.0/16")
    for gateway in ("10.1.2.1", "10.1.2.2"):
        rtnl.add_route(eth0, there, via=Address.parse(gateway))

    gateways = [str(route.gateway) for route in route_lookup.routes(rtnl, 4) if route.dst == there]
    assert sorted(gateways) == ["10.1.2.1", "10.1.2.2"]
    again = refusal(lambda: rtnl.add_route(eth0, there, via=Address.parse("10.1.2.1")))
    assert str(again) == "add route 10.7.0.0/16 via 10.1.2.1 on eth0: File exists"


def test_error_says_that_a_gateway_cannot_be_reached(rtnl: Rtnl, eth0: Link) -> None:
    error = refusal(lambda: rtnl.add_route(eth0, IPNet.parse("0.0.0.0/0"), via=Address.parse("10.1.2.1")))

    assert str(error).startswith("add route 0.0.0.0/0 via 10.1.2.1 on eth0: ")
    assert "Nexthop has invalid gateway" in str(error)


def test_routes_are_seen_as_pyroute2_sees_them(host: Host, rtnl: Rtnl, eth0: Link) -> None:
    rtnl.add_address(eth0, NET)
    rtnl.add_address(eth0, NET6)
    host.run("ip", "route", "add", "blackhole", "10.66.0.0/16", "table", "300")
    for family, version in ((2, 4), (10, 6)):
        expected = sorted(
            (
                str(route.get_attr("RTA_DST")),
                route["dst_len"] if route.get_attr("RTA_DST") else 0,
                str(route.get_attr("RTA_GATEWAY")),
                route.get_attr("RTA_OIF") or 0,
                route.get_attr("RTA_TABLE"),
                route.get_attr("RTA_PRIORITY") or 0,
                route["scope"],
                route["type"],
            )
            for route in witness(host, lambda ip, family=family: list(ip.get_routes(family=family)))  # type: ignore[misc]
        )
        assert expected and expected == sorted(
            (
                str(route.dst.address if route.dst else None),
                route.dst.prefix if route.dst else 0,
                str(route.gateway),
                route.index,
                route.table,
                route.priority,
                route.scope,
                route.kind,
            )
            for route in route_lookup.routes(rtnl, version)
        )
