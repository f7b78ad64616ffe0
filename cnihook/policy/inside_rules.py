# SPDX-License-Identifier: Apache-2.0
"""
The rules in a container's own namespace, for a link whose packets the host does not route.

    table inet cnihook                     as on the host, but at the hooks output and input
      set policy-links { "eth0" }          its links of this kind; others are not concerned
      set policy-closed { "eth0" }         those with an ingress policy: what is sent to all is dropped, too
      set policy-hosts4 { 192.0.2.1 }      the addresses of the host, except link-local ones
      set policy-nets6                     where neighbours may be: an advertisement can carry data
    table netdev cnihook                   what leaves by the link, below everything that a process can use
      set senders4 { "eth0" . 10.1.0.5 }   its own addresses

The second table lets a packet pass only if it has a route.  That of a packet socket has none, so it cannot
get around the first table.  ARP needs no route, and may only name an own address as the sender.
"""

from cnihook.fast.address import IPNet
from cnihook.linux import nft_objects, nft_sets
from cnihook.linux.nft_objects import (
    DROP,
    EGRESS,
    FILTER,
    FORWARD,
    IFNAME,
    INPUT,
    IPV4_ADDR,
    IPV6_ADDR,
    OUTPUT,
    RETURN,
    Rule,
    verdict,
)
from cnihook.linux.nft_sets import ACCEPT, GOTO
from cnihook.policy import guard, rules
from cnihook.policy.rules import VERSIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cnihook.linux.nft_objects import Message

LINKS, CLOSED, NETS = "policy-links", "policy-closed", "policy-nets6"
TABLE_FAMILY = "netdev"  # of the second table
_IP = {4: IPV4_ADDR, 6: IPV6_ADDR}
_IGMP, _ICMPV6 = 2, 58
_ETHERTYPE, _ARP = {4: 0x0800, 6: 0x86DD}, 0x0806
_FROM_HERE = [IPNet.parse("fe80::/10"), IPNet.parse("ff02::/16")]
_HOOKS = {
    "policy-output": (OUTPUT, FILTER),
    "policy-input": (INPUT, FILTER),
    "policy-forward": (FORWARD, FILTER),
}


def hosts(version: int) -> str:
    return f"policy-hosts{version}"


def receivers(version: int) -> str:
    return f"policy-receivers{version}"


def senders(version: int) -> str:
    return f"senders{version}"


def chains() -> "dict[str, list[Rule]]":
    """Return the rules of the chains of `table inet cnihook` that are the same for every container."""
    content = rules.verdict_chains()
    content["policy-to-host"] = [rules.by_source("policy-host", version) for version in VERSIONS]
    content["policy-output"] = [
        _of_other_link(leaving=True),
        rules.established(),
        # Joins of multicast groups, which are denied, are not worth a record.
        Rule(lambda: nft_sets.of_protocol(_IGMP) + verdict(DROP)),
        *(rules.neighbours(low, high, _to_neighbours) for low, high in rules.NEIGHBOURS),
        *(_of_host(version, of_source=False) for version in VERSIONS),
        # One of them may be of the host, which has one on each link.
        Rule(lambda: nft_objects.destined(_FROM_HERE[0]) + verdict(GOTO, "policy-to-host")),
        *(rules.by_source("policy-out", version) for version in VERSIONS),
    ]
    content["policy-input"] = [
        _of_other_link(leaving=False),
        rules.established(),
        *(rules.neighbours(low, high) for low, high in rules.NEIGHBOURS),
        *(_of_host(version, of_source=True) for version in VERSIONS),
        *(_to_others(version) for version in VERSIONS),
        *(rules.by_destination("policy-in", version) for version in VERSIONS),
    ]
    content["policy-forward"] = [_forwarded(leaving) for leaving in (False, True)]
    return content


def _of_other_link(*, leaving: bool) -> Rule:
    return Rule(
        lambda: (
            nft_sets.load_interface(leaving=leaving) + nft_sets.is_in(LINKS, inverted=True) + verdict(RETURN)
        )
    )


def _to_neighbours() -> bytes:
    return nft_sets.load_address(6, of_source=False) + nft_sets.is_in(NETS)


def _of_host(version: int, *, of_source: bool) -> Rule:
    """Return the rule for what the host sends, which is accepted, or for what is sent to the host."""
    end = verdict(ACCEPT) if of_source else verdict(GOTO, "policy-to-host")
    return Rule(
        lambda: (
            nft_sets.of_version(version)
            + nft_sets.load_address(version, of_source=of_source)
            + nft_sets.is_in(hosts(version))
            + end
        )
    )


def _to_others(version: int) -> Rule:
    """Return the rule that drops multicast, broadcast, and what is sent to an address of another link."""
    return Rule(
        lambda: (
            nft_sets.of_version(version)
            + nft_sets.load_interface()
            + nft_sets.is_in(CLOSED)
            + nft_sets.load_interface()
            + nft_sets.load_address(version, IFNAME[1] // 4, of_source=False)
            + nft_sets.is_in(receivers(version), inverted=True)
            + verdict(DROP)
        )
    )


def _forwarded(leaving: bool) -> Rule:
    return Rule(lambda: nft_sets.load_interface(leaving=leaving) + nft_sets.is_in(LINKS) + verdict(DROP))


def declaration(table: str, nets: "Iterable[IPNet]") -> "Iterator[Message]":
    """Yield the messages that add all of chains().  `nets`: the networks of its links, of IPv6."""
    yield nft_objects.table(table)
    yield from rules.base_sets(table)
    for name in (LINKS, CLOSED):
        yield nft_objects.value_set(table, name, IFNAME)
    for version in VERSIONS:
        yield nft_objects.value_set(table, hosts(version), _IP[version])
        pair = nft_objects.concatenated(IFNAME, _IP[version])
        yield nft_objects.value_set(table, receivers(version), pair)
    yield nft_sets.interval_set(table, NETS, IPV6_ADDR)
    neighbours = [*_FROM_HERE, *(net.network() for net in nets)]
    yield from nft_sets.add_intervals(table, NETS, rules.merged(neighbours, []))
    yield from nft_sets.filter_chains(table, chains(), _HOOKS)


# The table below


def guard_chains() -> "dict[str, list[Rule]]":
    """Return the rules of the second table; the chain of each link jumps to `guard`."""
    return {
        "routed": [
            *(_sent_by(version) for version in VERSIONS),
            *guard.from_link_local(_is_icmpv6, [*guard.FROM_LINK_LOCAL, (guard.ADVERTISEMENT,) * 2]),
            Rule(lambda: verdict(DROP)),
        ],
        "guard": [
            # The type in the frame: a packet socket can give the kernel another one.
            Rule(
                lambda: (
                    nft_sets.load_link(12, 2)
                    + nft_sets.equals(_ARP.to_bytes(2, "big"))
                    + nft_sets.load_interface(leaving=True)
                    + nft_sets.load_network(14, 4, IFNAME[1] // 4)
                    + nft_sets.is_in(senders(4))
                    + verdict(ACCEPT)
                )
            ),
            Rule(nft_sets.is_routed, jump="routed"),
            Rule(lambda: verdict(DROP)),
        ],
    }


def _sent_by(version: int) -> Rule:
    return Rule(
        lambda: (
            nft_sets.of_ethertype(_ETHERTYPE[version])
            + nft_sets.load_interface(leaving=True)
            + nft_sets.load_address(version, IFNAME[1] // 4)
            + nft_sets.is_in(senders(version))
            + verdict(ACCEPT)
        )
    )


def _is_icmpv6() -> bytes:
    return nft_sets.of_ethertype(_ETHERTYPE[6]) + nft_sets.of_protocol(_ICMPV6)


def link_chains(links: "Iterable[str]") -> "dict[str, str]":
    """Return the link of each chain that the kernel calls for one."""
    return {f"link-{number}": link for number, link in enumerate(sorted(links))}


def guard_declaration(table: str, links: "Iterable[str]") -> "Iterator[Message]":
    yield nft_objects.table(table)
    for version in VERSIONS:
        pair = nft_objects.concatenated(IFNAME, _IP[version])
        yield nft_objects.value_set(table, senders(version), pair)
    yield from nft_sets.filter_chains(table, guard_chains(), {})
    for name, link in link_chains(links).items():
        yield nft_objects.chain(table, name, "filter", EGRESS, FILTER, link)
        yield Rule(jump="guard").added(table, name)
