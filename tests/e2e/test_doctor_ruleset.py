# SPDX-License-Identifier: Apache-2.0
"""cnihook doctor: a native nftables ruleset drops what containers send."""

import pytest

from tests.support.commands.doctor import doctor, finds
from tests.support.commands.repair import WEB, WebContainer
from tests.support.host.host import Host
from tests.support.runtimes.oci import CNIHOOK, bridge, configure

CHAIN = (
    "add table inet own; add chain inet own forward {{ type filter hook forward priority 0; policy {}; }}"
)


def test_nftables_chain_drops_packets_of_containers(host: Host) -> None:
    """The remedy works as printed: containers reach the outside, and published ports are reachable."""
    configure(host, WEB)
    host.leaves("dir /run/cni", "dir /run/cni/tuning")
    outside = host.outside()
    host.run("nft", CHAIN.format("drop"))
    one = WebContainer(host, outside, "c1", publish="8080:80")
    assert not one.reaches_outside(expected=False)

    remedy = finds(host, "forward-chain", "table inet own", "network web out")
    host.run("sh", "-c", remedy.partition(", and ")[0])

    assert doctor(host, status=0) == []
    assert one.reaches_outside() and one.is_published()
    host.run(CNIHOOK, "detach", "c1")
    host.run("nft", "delete table inet own")


# Rules that accept packets of the network, or might.
ACCEPTING = [
    'iifname "br-mynet" accept',
    'iifname { "lan0", "br-my*" } counter accept',
    'iifname != "wan0" accept',
    "ip saddr 10.0.0.0/8 accept",
    'oifname "wan0" ct state { new, established } accept',
    "iifname @inner accept",
    'iifname vmap { "lan0" : drop, "br-mynet" : accept }',
    "iifname vmap @verdicts",
    "jump elsewhere",
]
# Rules that do not accept them.
OTHERS = [
    "ct state established,related accept",
    "ct state { established, related } accept",
    "ct state vmap { invalid : drop, established : accept }",
    'iifname "lan0" accept',
    'iifname != { "br-mynet", "wan0" } accept',
    'iif "lo" accept',
    'iifname "br-mynet" drop',
    'iifname vmap { "lan0" : accept, "br-mynet" : drop }',
    "counter",
]


@pytest.mark.parametrize("rule", [*ACCEPTING, *OTHERS])
def test_rule_decides_whether_chain_is_a_finding(host: Host, rule: str) -> None:
    """An unclear rule counts as accepting, because false alarms make users ignore the real ones."""
    configure(host, bridge("mynet", "10.22.0.0/24"))
    host.run(
        "nft",
        f"{CHAIN.format('drop')};"
        " add chain inet own elsewhere; add rule inet own elsewhere tcp dport 80 accept;"
        " add set inet own inner { type ifname; }; add map inet own verdicts { type ifname : verdict; };"
        f" add rule inet own forward {rule}",
    )
    if rule in OTHERS:
        host.run("nft", "delete chain inet own elsewhere")
        finds(host, "forward-chain", "table inet own", "mynet")
    else:
        assert doctor(host, status=0) == []
    host.run("nft", "delete table inet own")


def test_chain_with_accept_policy_or_another_hook_is_healthy(host: Host) -> None:
    configure(host, bridge("mynet", "10.22.0.0/24"))
    host.run("nft", CHAIN.format("accept"))
    host.run("nft", "add chain inet own input { type filter hook input priority 0; policy drop; }")
    host.run(
        "nft", "add table ip6 own; add chain ip6 own f { type filter hook forward priority 0; policy drop; }"
    )

    assert doctor(host, status=0) == []
    host.run("nft", "delete table inet own; delete table ip6 own")
