# SPDX-License-Identifier: Apache-2.0
"""linux.rules, linux.routes and linux.vrf: their requests to the kernel, as pyroute2 reads them.

No kernel takes part, as in test_linux_messages.py, except for the routes: these are read and set again.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cnihook.fast.address import Address, IPNet
from cnihook.linux import routes, rules, vrf
from cnihook.linux.rtnl import Rtnl
from tests.support.host.host import Host

# <linux/rtnetlink.h>, <linux/netlink.h>
NEWLINK, GETLINK, NEWROUTE, NEWRULE, DELRULE, GETRULE = 16, 18, 24, 32, 33, 34
EXCL, CREATE, DUMP = 0x200, 0x400, 0x300
INET, INET6 = 2, 10
IPV6_DEFAULT = IPNet.parse("::/0")
V4, V6 = Address.parse("10.1.2.3"), Address.parse("2001:db8::3")


@pytest.fixture(autouse=True)
def implementation() -> None:
    """No plugin takes part: one run is enough."""


class Caught(Rtnl):
    """An Rtnl without a socket: it keeps the requests and returns the given answers."""

    def __init__(self, *answers: bytes) -> None:
        self.requests: list[tuple[int, int, bytes]] = []
        self.answers = list(answers)

    def request(self, kind: int, flags: int, body: bytes, what: str) -> list[bytes]:
        assert what, "an error names the request"
        self.requests.append((kind, flags, body))
        return self.answers


def one(ask: Callable[[Rtnl], object]) -> tuple[int, int, dict[str, Any]]:
    """Return type, flags and content of the only request, as pyroute2 reads them."""
    caught = Caught()
    ask(caught)
    ((kind, flags, body),) = caught.requests
    reader = ifinfmsg if kind < NEWROUTE else rtmsg if kind < NEWRULE else fibmsg
    message = reader(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
    message.decode()
    return kind, flags, plain(message)


def plain(message: Any) -> dict[str, Any]:
    """Return fields and attributes by name, without zeros."""
    fields: dict[str, Any] = {
        key: value
        for key, value in message.items()
        if value and key not in ("attrs", "header", "state", "__align", "event")
    }
    for name, value, *_flags in message.get("attrs", ()):
        fields[name] = plain(value) if isinstance(value, dict) else value
    return fields


# Rules


@pytest.mark.parametrize(("address", "family", "bits"), [(V4, INET, 32), (V6, INET6, 128)])
@pytest.mark.parametrize("table", [100, 255, 256, 0xFFFFFFFF])
def test_rule_is_made(address: Address, family: int, bits: int, table: int) -> None:
    content = {
        "family": family,
        "src_len": bits,
        "action": 1,
        "FRA_SRC": str(address),
        "FRA_TABLE": table,
    } | ({"table": table} if table < 256 else {})

    assert one(lambda rtnl: rules.add(rtnl, address, table)) == (NEWRULE, CREATE | EXCL, content)
    assert one(lambda rtnl: rules.add(rtnl, address, table, 1001))[2] == content | {"FRA_PRIORITY": 1001}


def rule(**fields: Any) -> rules.Rule:
    """Return a rule as the kernel would show it, packed by pyroute2."""
    message = fibmsg()
    message["family"], message["action"] = INET, 1
    for key in ("family", "src_len", "dst_len", "tos", "action", "flags", "table"):
        if key in fields:
            message[key] = fields.pop(key)
    message["attrs"] = list(fields.items())
    message.encode()
    return rules.Rule(bytes(message.data[16:]))


PLAIN = {"src_len": 32, "FRA_SRC": "10.1.2.3", "FRA_TABLE": 300, "FRA_PRIORITY": 9, "FRA_PROTOCOL": 3}


def test_rule_of_a_source_is_read() -> None:
    source_rule = rule(**PLAIN)
    assert (source_rule.source, source_rule.table, source_rule.priority, source_rule.l3mdev) == (
        V4,
        300,
        9,
        False,
    )

    source_rule = rule(family=INET6, src_len=128, table=100, FRA_SRC="2001:db8::3")
    assert (source_rule.source, source_rule.table) == (V6, 100)


@pytest.mark.parametrize(
    "more",
    [
        {"src_len": 24, "FRA_SRC": "10.1.2.0"},
        {"dst_len": 8, "FRA_DST": "10.0.0.0"},
        {"FRA_IIFNAME": "eth0"},
        {"FRA_OIFNAME": "eth0"},
        {"FRA_FWMARK": 7},
        {"FRA_IP_PROTO": 6},
        {"tos": 16},
        {"flags": 2},  # inverted
        {"action": 6},  # blackhole
    ],
    ids=lambda more: next(iter(more)),
)
def test_rule_with_another_condition_is_not_one_of_a_source(more: dict[str, Any]) -> None:
    """Another program made it, whatever its source is."""
    assert rule(**PLAIN | more).source is None


def test_rule_of_vrfs_is_recognized() -> None:
    vrf_rule = rule(FRA_L3MDEV=1, FRA_PRIORITY=1000)

    assert (vrf_rule.l3mdev, vrf_rule.source, vrf_rule.priority) == (True, None, 1000)


def test_rules_are_listed_without_those_of_multicast_routing() -> None:
    caught = Caught(rule(**PLAIN).body, b"\x80" + rule(**PLAIN).body[1:])

    (source_rule,) = rules.listed(caught)

    assert source_rule.source == V4
    assert caught.requests == [(GETRULE, DUMP, bytes(12))]


def test_rule_is_deleted_by_all_its_attributes() -> None:
    """Another rule with the same source then stays."""
    content = one(lambda rtnl: rules.delete(rtnl, rule(**PLAIN)))

    assert content == (DELRULE, 0, {"family": INET, "action": 1, **PLAIN})


# VRFs


def test_vrf_is_made() -> None:
    up = 1

    assert one(lambda rtnl: vrf.add(rtnl, "blue", 300)) == (
        NEWLINK,
        CREATE | EXCL,
        {
            "flags": up,
            "change": up,
            "IFLA_IFNAME": "blue",
            "IFLA_LINKINFO": {"IFLA_INFO_KIND": "vrf", "IFLA_INFO_DATA": {"IFLA_VRF_TABLE": 300}},
        },
    )


def test_tables_of_vrfs_are_read() -> None:
    def link(index: int, kind: str, **data: int) -> bytes:
        message = ifinfmsg()
        message["index"] = index
        info = [("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", {"attrs": list(data.items())})]
        message["attrs"] = [("IFLA_IFNAME", f"link{index}"), ("IFLA_LINKINFO", {"attrs": info})]
        message.encode()
        return bytes(message.data[16:])

    answers = [link(5, "vrf", IFLA_VRF_TABLE=300), link(6, "bridge", IFLA_BR_FORWARD_DELAY=7)]
    caught = Caught(*answers)

    assert vrf.tables(caught) == {5: 300}
    assert caught.requests == [(GETLINK, DUMP, bytes(16))]


# Routes in a kernel


@pytest.fixture
def rtnl(host: Host) -> Iterator[Rtnl]:
    """Return a connection to the kernel of a throw-away host, which has two links with IPv4 and IPv6."""
    host.leaves("*")
    host.run("ip", "-batch", "-", input="""\
link add eth0 type veth peer name eth1
link set eth0 up
link set eth1 up
address add 10.1.2.3/24 dev eth0
address add 2001:db8::3/64 dev eth0 nodad
address add 10.2.2.3/24 dev eth1
address add 2001:db8:2::3/64 dev eth1 nodad
""")  # fmt: skip
    connection = host.inside(Rtnl)
    yield connection
    connection.close()


ROUTES = [
    "192.0.2.0/24 dev eth0 scope link src 10.1.2.3 proto static",
    "192.0.2.0/24 via 10.1.2.1 dev eth0 metric 50 mtu lock 1300 advmss 1200 initcwnd 20",
    "192.0.2.0/24 via 10.9.9.9 dev eth0 onlink",
    "192.0.2.0/24 via inet6 fe80::1 dev eth0",
    "192.0.2.0/24 tos 0x10 via 10.1.2.1 dev eth0",
    "192.0.2.0/24 nexthop via 10.1.2.1 weight 3 nexthop via 10.1.2.2 dev eth0 onlink",
    "default via 10.1.2.1 dev eth0",
    "2001:db8:77::/48 dev eth0",
    "2001:db8:77::/48 via 2001:db8::1 dev eth0 src 2001:db8::3 metric 50 mtu 1300 hoplimit 9 pref high",
    "2001:db8:77::/48 via fe80::1 dev eth0 onlink",
    "2001:db8:77::/48 nexthop via 2001:db8::1 weight 3 nexthop via 2001:db8::2",
    "default via fe80::1 dev eth0",
]


def version(words: str) -> int:
    return 6 if words.startswith(("2001:", "default via fe80:")) else 4


def destination(host: Host, words: str, table: int) -> list[Any]:
    """Return what `ip` shows of a destination in a table."""
    name = words.split()[0]
    output = host.ip(f"-{version(words)}", "-d", "route", "show", "table", str(table), name)
    return [{key: value for key, value in route.items() if key != "table"} for route in output or []]


def parts(rtnl: Rtnl, index: int, table: int, words: str) -> list[routes.WholeRoute]:
    """Return the route as it is listed; IPv6 lists one for each next hop."""
    name = words.split()[0]
    return [
        route
        for route in routes.listed(rtnl)
        if (route.index, route.table, route.version) == (index, table, version(words))
        and (str(route.dst) == name if route.dst else name == "default")
    ]


@pytest.mark.parametrize("words", ROUTES)
def test_route_is_moved_to_another_table_and_back_unchanged(host: Host, rtnl: Rtnl, words: str) -> None:
    table = 1000  # more than a byte
    host.run("ip", f"-{version(words)}", "route", "add", *words.split())
    before = destination(host, words, 254)
    originals = parts(rtnl, rtnl.link("eth0").index, 254, words)
    assert before and len(originals) == (2 if version(words) == 6 and "nexthop" in words else 1)

    for route in originals:
        routes.put(rtnl, route.in_table(table))
        routes.put(rtnl, route.in_table(table))  # it is there already
        routes.delete(rtnl, route)
        routes.delete(rtnl, route)  # it is gone already
    assert (destination(host, words, table), destination(host, words, 254)) == (before, [])

    for route in parts(rtnl, rtnl.link("eth0").index, table, words):
        routes.delete(rtnl, route)
    for route in originals:
        routes.put(rtnl, route)
    assert destination(host, words, 254) == before
    assert not any(route.table == table for route in routes.listed(rtnl))


def test_ipv6_next_hops_over_other_links_stay(host: Host, rtnl: Rtnl) -> None:
    """The kernel makes one route of two networks' default routes."""
    for link, gateway in (("eth0", "2001:db8::1"), ("eth1", "2001:db8:2::1")):
        rtnl.add_route(rtnl.link(link), IPV6_DEFAULT, via=Address.parse(gateway))
    (shown,) = host.ip("-6", "route", "show", "default")
    assert len(shown["nexthops"]) == 2
    (mine,) = parts(rtnl, rtnl.link("eth1").index, 254, ROUTES[-1])
    assert mine.gateway == Address.parse("2001:db8:2::1") and not mine.is_direct

    routes.put(rtnl, mine.in_table(100))
    routes.delete(rtnl, mine)

    assert [r["gateway"] for r in host.ip("-6", "route", "show", "default")] == ["2001:db8::1"]
    assert [r["gateway"] for r in host.ip("-6", "route", "show", "table", "100")] == ["2001:db8:2::1"]


def test_ipv6_route_is_put_behind_that_of_another_link(host: Host, rtnl: Rtnl) -> None:
    """IPv4 has this order by itself.  Two next hops over one link stay together."""
    for link, gateway in (("eth0", "2001:db8::1"), ("eth1", "2001:db8:2::1"), ("eth1", "2001:db8:2::2")):
        rtnl.add_route(rtnl.link(link), IPV6_DEFAULT, via=Address.parse(gateway))
    for link in ("eth0", "eth1"):
        for route in parts(rtnl, rtnl.link(link).index, 254, ROUTES[-1]):
            routes.put_behind(rtnl, route.in_table(100))

    first, second = sorted(host.ip("-6", "route", "show", "table", "100"), key=lambda r: int(r["metric"]))
    assert first["gateway"] == "2001:db8::1"
    assert [hop["gateway"] for hop in second["nexthops"]] == ["2001:db8:2::1", "2001:db8:2::2"]


def test_order_of_routes_to_one_destination_stays(host: Host, rtnl: Rtnl) -> None:
    """The kernel uses the first one."""
    for last in (1, 2, 3):
        host.run("ip", "route", "append", "192.0.2.0/24", "via", f"10.1.2.{last}")
    for route in parts(rtnl, rtnl.link("eth0").index, 254, "192.0.2.0/24"):
        routes.put(rtnl, route.in_table(100))

    shown = host.ip("route", "show", "table", "100")
    assert [route["gateway"] for route in shown] == ["10.1.2.1", "10.1.2.2", "10.1.2.3"]


def test_ipv4_route_over_two_links_belongs_to_neither(host: Host, rtnl: Rtnl) -> None:
    words = "192.0.2.0/24 nexthop via 10.1.2.1 nexthop via 10.2.2.1"
    host.run("ip", "route", "add", *words.split())

    (route,) = parts(rtnl, 0, 254, words)

    assert not route.is_direct and route.gateway is None


def test_source_is_set_and_removed(host: Host, rtnl: Rtnl) -> None:
    host.run("ip", "route", "add", "192.0.2.0/24", "dev", "eth0")
    (route,) = parts(rtnl, rtnl.link("eth0").index, 254, "192.0.2.0/24")

    assert route.source is None and route.is_direct
    assert route.with_source(V4).source == V4
    assert bytes(route.with_source(V4).with_source(None)) == bytes(route)


def test_errors_name_the_route(host: Host, rtnl: Rtnl) -> None:
    host.run("ip", "route", "add", "192.0.2.0/24", "dev", "eth0")
    (route,) = parts(rtnl, rtnl.link("eth0").index, 254, "192.0.2.0/24")

    with pytest.raises(OSError, match=r"set route 192.0.2.0/24 in table 100: .*prefsrc"):
        routes.put(rtnl, route.in_table(100).with_source(Address.parse("192.0.2.99")))
