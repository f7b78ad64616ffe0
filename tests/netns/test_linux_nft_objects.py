# SPDX-License-Identifier: Apache-2.0
"""linux.nft_objects: its messages declare exactly what nft would declare."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pytest

from cnihook.fast.address import IPNet
from cnihook.linux import netlink, nft, nft_objects
from cnihook.linux.netlink import NetlinkError
from cnihook.nftables import port_chains, port_maps, spoofcheck
from tests.support.host.host import Host

if TYPE_CHECKING:
    from cnihook.linux.nft_objects import Message

NETS = [
    "10.22.0.0/16",
    "10.22.7.128/25",
    "10.0.0.0/1",
    "10.1.1.1/32",
    "fd00:1::/64",
    "fd00:1::/61",
    "fd00::9/128",
]

WORDS = """\
add table inet t
add map inet t m4 { type ipv4_addr : verdict ; }
add map inet t m6 { type ipv6_addr : verdict ; }
add map inet t members { type ifname : verdict ; }
add chain inet t base { type nat hook postrouting priority srcnat ; }
add chain inet t one
add rule inet t base ip saddr vmap @m4
add rule inet t base ip6 saddr vmap @m6
"""
WORDS += "".join(f"add rule inet t one {'ip6' if ':' in net else 'ip'} daddr {net} return\n" for net in NETS)
WORDS += "add rule inet t one masquerade\n"
WORDS += """\
add chain inet t out { type filter hook forward priority filter ; }
add chain inet t lost
add rule inet t out ct state invalid jump lost
"""
for net in NETS:
    ip = "ip6" if ":" in net else "ip"
    WORDS += f"add rule inet t lost {ip} saddr {net} {ip} daddr != {net} drop\n"


# The objects for published ports, with and without conditions, but without the rule that has the conditions.
PORTS = """\
add table inet cnihook
add map inet cnihook ports4 { type inet_proto . inet_service : ipv4_addr . inet_service ; }
add map inet cnihook ports4-at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service ; }
add set inet cnihook ports4-held { type inet_proto . inet_service ; }
add map inet cnihook ports-to4 { type ipv4_addr : verdict ; }
add map inet cnihook ports6 { type inet_proto . inet_service : ipv6_addr . inet_service ; }
add map inet cnihook ports6-at { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service ; }
add set inet cnihook ports6-held { type inet_proto . inet_service ; }
add map inet cnihook ports-to6 { type ipv6_addr : verdict ; }
add chain inet cnihook ports
add chain inet cnihook ports-conditional
add chain inet cnihook ports-guard { type filter hook prerouting priority raw ; }
add chain inet cnihook ports-prerouting { type nat hook prerouting priority dstnat ; }
add chain inet cnihook ports-output { type nat hook output priority -100 ; }
add chain inet cnihook ports-postrouting { type nat hook postrouting priority srcnat ; }
add chain inet cnihook ports-loopback-out { type filter hook output priority -150 ; }
add chain inet cnihook ports-loopback-back { type filter hook prerouting priority -99 ; }
add chain inet cnihook ports-loopback-in { type filter hook input priority 101 ; }
add rule inet cnihook ports-loopback-out ip saddr 127.0.0.0/8 ct direction original ct status dnat \
    ct status snat ip saddr set 192.0.0.8
add rule inet cnihook ports-loopback-back iifname != "lo" ct direction reply ct status dnat \
    ip daddr 127.0.0.0/8 ip daddr set ct reply ip daddr
add rule inet cnihook ports-loopback-in iifname != "lo" ct direction reply ct status dnat \
    ct original ip saddr 127.0.0.0/8 ip daddr set ct original ip saddr
add rule inet cnihook ports-guard iifname != "lo" ip daddr 127.0.0.0/8 drop
add rule inet cnihook ports-guard iifname != "lo" ip saddr 127.0.0.0/8 drop
add rule inet cnihook ports-prerouting fib daddr type local jump ports
add rule inet cnihook ports-output ip6 daddr ::1 return
add rule inet cnihook ports-output fib daddr type local jump ports
add rule inet cnihook ports jump ports-conditional
add rule inet cnihook ports ip saddr 127.0.0.0/8 ip saddr set 192.0.0.8
add rule inet cnihook ports dnat ip to ip daddr . meta l4proto . th dport map @ports4-at
add rule inet cnihook ports meta nfproto ipv4 dnat ip to meta l4proto . th dport map @ports4
add rule inet cnihook ports ip saddr 192.0.0.8 ip saddr set ct original ip saddr
add rule inet cnihook ports dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports6-at
add rule inet cnihook ports meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @ports6
add rule inet cnihook ports-postrouting ct status dnat ip daddr vmap @ports-to4
add rule inet cnihook ports-postrouting ct status dnat ip6 daddr vmap @ports-to6
add rule inet cnihook ports-postrouting ip saddr 192.0.0.8 drop
add map inet cnihook ports6-1234abcd { type inet_proto . inet_service : ipv6_addr . inet_service ; }
add map inet cnihook ports6-at-1234abcd { type ipv6_addr . inet_proto . inet_service \
    : ipv6_addr . inet_service ; }
add set inet cnihook ports6-held-1234abcd { type inet_proto . inet_service ; }
add chain inet cnihook ports-when-ipv6-1234abcd
add rule inet cnihook ports-when-ipv6-1234abcd dnat ip6 to ip6 daddr . meta l4proto . th dport \
    map @ports6-at-1234abcd
add rule inet cnihook ports-when-ipv6-1234abcd meta nfproto ipv6 dnat ip6 to meta l4proto . th dport \
    map @ports6-1234abcd
add chain inet cnihook ports-from-any
add rule inet cnihook ports-from-any masquerade
add chain inet cnihook ports-from-10.22.0.0/20
add rule inet cnihook ports-from-10.22.0.0/20 ip saddr 10.22.0.0/20 masquerade
add rule inet cnihook ports-from-10.22.0.0/20 ip saddr 192.0.0.8 masquerade
add chain inet cnihook ports-from-fd00__/64
add rule inet cnihook ports-from-fd00__/64 ip6 saddr fd00::/64 masquerade
"""
SPOOF_CHECK = """\
add table bridge cnihook
add set bridge cnihook guarded { type ifname ; }
add set bridge cnihook genuine { type ifname . ether_addr ; }
add chain bridge cnihook prerouting { type filter hook prerouting priority dstnat ; }
add rule bridge cnihook prerouting iifname . ether saddr @genuine return
add rule bridge cnihook prerouting iifname @guarded drop
"""


@pytest.fixture(autouse=True)
def implementation() -> None:
    """No plugin takes part: one run is enough."""


@pytest.fixture(autouse=True)
def fresh(host: Host) -> Iterator[None]:
    """Use a new socket, because a socket belongs to the namespace that it was made in."""
    netlink.reopen_netfilter()
    yield
    netlink.reopen_netfilter()


def messages() -> "list[Message]":
    leave, drop = (nft_objects.verdict(code) for code in (nft_objects.RETURN, nft_objects.DROP))
    nets = [IPNet.parse(net) for net in NETS]
    return [
        nft_objects.table("t"),
        nft_objects.verdict_map("t", "m4", nft_objects.IPV4_ADDR),
        nft_objects.verdict_map("t", "m6", nft_objects.IPV6_ADDR),
        nft_objects.verdict_map("t", "members", nft_objects.IFNAME),
        nft_objects.chain("t", "base", "nat", nft_objects.POST_ROUTING, nft_objects.SRCNAT),
        nft_objects.chain("t", "one"),
        nft_objects.flush("t", "base"),
        nft_objects.flush("t", "one"),
        nft_objects.rule("t", "base", nft_objects.source(4), nft_objects.vmap("m4")),
        nft_objects.rule("t", "base", nft_objects.source(6), nft_objects.vmap("m6")),
        *(nft_objects.rule("t", "one", nft_objects.destined(net), leave) for net in nets),
        nft_objects.rule("t", "one", nft_objects.masquerade()),
        nft_objects.chain("t", "out", "filter", nft_objects.FORWARD, nft_objects.FILTER),
        nft_objects.chain("t", "lost"),
        nft_objects.flush("t", "out"),
        nft_objects.flush("t", "lost"),
        nft_objects.rule("t", "out", nft_objects.invalid(), nft_objects.verdict(nft_objects.JUMP, "lost")),
        *(nft_objects.rule("t", "lost", nft_objects.leaving(net), drop) for net in nets),
    ]


def change(host: Host, wanted: "Sequence[Message]") -> None:
    host.inside(lambda: nft.change("inet", list(wanted), "test"))


def listing(host: Host) -> str:
    """Return the kernel's form of the ruleset and nft's, without the numbers of rules."""
    text = host.run("nft", "--debug=netlink", "list", "ruleset").stdout
    return re.sub(r"^((?:inet|bridge) \w+ [\w/.-]+)( \d+)+ *$", r"\1", text, flags=re.MULTILINE)


def test_nft_would_declare_the_same(host: Host) -> None:
    change(host, messages())
    declared = listing(host)
    host.run("nft", "flush", "ruleset")
    host.run("nft", "-f", "-", input=WORDS)

    assert declared == listing(host)
    assert declared.count("return") > len(NETS) and "masq" in declared
    host.run("nft", "flush", "ruleset")


def test_published_ports_are_declared_as_nft_would(host: Host) -> None:
    (maps,) = port_maps.conditional(["ports-when-ipv6-1234abcd"])
    chains = ("ports-from-any", "ports-from-10.22.0.0/20", "ports-from-fd00__/64")
    ports = [*port_chains.declaration({}), *port_chains.under_conditions(maps)]
    ports += [message for chain in chains for message in port_chains.masquerading(chain)]

    change(host, ports)
    declared = listing(host)
    host.run("nft", "flush", "ruleset")
    host.run("nft", "-f", "-", input=PORTS)
    assert declared == listing(host)

    present = host.inside(lambda: nft.chains("inet", "cnihook"))
    assert port_chains.is_whole(present)
    change(host, [*port_chains.declaration(present)])
    assert sorted(declared.splitlines()) == sorted(listing(host).splitlines())
    host.run("nft", "flush", "ruleset")


def test_spoof_check_is_declared_as_nft_would(host: Host) -> None:
    host.inside(lambda: nft.change("bridge", [*spoofcheck._declaration()], "test"))
    declared = listing(host)
    host.run("nft", "flush", "ruleset")
    host.run("nft", "-f", "-", input=SPOOF_CHECK)

    assert declared == listing(host)
    host.run("nft", "flush", "ruleset")


@pytest.mark.parametrize("first", ["messages", "words"])
def test_declaring_again_changes_nothing(host: Host, first: str) -> None:
    if first == "words":
        host.run("nft", "-f", "-", input=WORDS)
    else:
        change(host, messages())
    before = listing(host)

    change(host, messages())

    assert listing(host) == before
    host.run("nft", "flush", "ruleset")


def test_a_network_of_all_addresses_needs_no_match(host: Host) -> None:
    rule = nft_objects.rule(
        "t", "one", nft_objects.destined(IPNet.parse("0.0.0.0/0")), nft_objects.masquerade()
    )
    change(host, [*messages(), rule])

    assert "meta nfproto ipv4 masquerade" in host.nft()
    host.run("nft", "flush", "ruleset")


def test_objects_can_be_deleted_one_by_one(host: Host) -> None:
    change(host, messages())

    change(host, [nft_objects.delete_chain("t", name) for name in ("base", "one", "out", "lost")])
    assert "chain" not in host.nft() and "map m4" in host.nft()
    change(host, [nft_objects.delete_set("t", name) for name in ("m4", "m6", "members")])
    assert host.nft().split() == ["table", "inet", "t", "{", "}"]
    change(host, [nft_objects.delete_table("t")])
    assert host.nft() == ""


def test_deleting_a_map_in_use_changes_nothing(host: Host) -> None:
    change(host, messages())
    before = host.nft()

    with pytest.raises(NetlinkError, match="test: .*busy"):
        change(host, [nft_objects.delete_chain("t", "one"), nft_objects.delete_set("t", "m4")])

    assert host.nft() == before
    host.run("nft", "flush", "ruleset")
