# SPDX-License-Identifier: Apache-2.0
"""
Guards: a container can send only from its own addresses, and on a bridge only to the host.

    table inet cnihook                  the host's ends of ptp containers
      set policy-links { "veth1a2b3c4d" }      set policy-senders4 { "veth1a2b3c4d" . 10.1.0.5 }
    table bridge cnihook-policy         ports of bridges that have a container with a policy
      set ports { "veth5e6f7a8b" }             set senders4 { "veth5e6f7a8b" . 02:.. . 10.2.0.7 }
      set joining { ... }                      where only the host answers ARP, for the moment of a change

On such a bridge, frames pass from no port to another one.  The host answers for all addresses (proxy ARP
and NDP) and routes between the containers, so the rules of policies see that traffic, too.  br_netfilter
would be another way, but it concerns all bridges of the host.
"""

import _struct as struct

from cnihook.fast.address import IPNet, mac_bytes
from cnihook.linux import nft_objects, nft_sets
from cnihook.linux.nft_objects import (
    DROP,
    ETHER_ADDR,
    FORWARD,
    IFNAME,
    PRE_ROUTING,
    RAW,
    RETURN,
    Rule,
    verdict,
)
from cnihook.linux.nft_sets import ACCEPT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cnihook.linux.nft_objects import Message
    from cnihook.policy.endpoint import Endpoint

BRIDGE_FAMILY, BRIDGE_TABLE = "bridge", "cnihook-policy"
LINKS, CHAIN, NEIGHBOURS = "policy-links", "policy-guard", "policy-neighbours"

_IP = {4: nft_objects.IPV4_ADDR, 6: nft_objects.IPV6_ADDR}
_ETHERTYPE, _ARP = {4: 0x0800, 6: 0x86DD}, 0x0806
_ICMPV6 = 58
ADVERTISEMENT = 136
# What a host sends from its link-local address, or from none: reports of a multicast listener, and the
# search for routers and neighbours.
FROM_LINK_LOCAL = ((131, 133), (135, 135), (143, 143))
_LINK_LOCAL, _UNSPECIFIED = IPNet.parse("fe80::/10"), IPNet.parse("::/128")
_IF, _MAC = IFNAME[1] // 4, ETHER_ADDR[1] // 4  # words of a key


def senders(version: int) -> str:
    return f"policy-senders{version}"


def _return() -> bytes:
    return verdict(RETURN)


def _drop() -> bytes:
    return verdict(DROP)


def _all(*parts: "Callable[[], bytes]") -> Rule:
    return Rule(lambda: b"".join(part() for part in parts))


def _icmp_type(low: int, high: int) -> bytes:
    return nft_sets.load_transport(0, 1) + nft_sets.between(bytes((low,)), bytes((high,)))


def _is_icmpv6() -> bytes:
    return nft_sets.of_version(6) + nft_sets.of_protocol(_ICMPV6)


def from_link_local(
    is_ipv6: "Callable[[], bytes]", types: "Iterable[tuple[int, int]]" = FROM_LINK_LOCAL
) -> "Iterator[Rule]":
    """Yield the rules for the types that a container sends from its link-local address, or from none."""

    def from_net(net: IPNet) -> "Callable[[], bytes]":
        return lambda: is_ipv6() + nft_sets.of_source(net)

    def of_type(low: int, high: int) -> "Callable[[], bytes]":
        return lambda: _icmp_type(low, high)

    for net in (_LINK_LOCAL, _UNSPECIFIED):
        for low, high in types:
            yield _all(from_net(net), of_type(low, high), _accept)


def inet_chains() -> "dict[str, list[Rule]]":
    advertisement = _all(lambda: _icmp_type(ADVERTISEMENT, ADVERTISEMENT), lambda: verdict(ACCEPT))
    # On a link of its own, a container has no neighbour to impersonate.
    chains = {NEIGHBOURS: [*from_link_local(lambda: nft_sets.of_version(6)), advertisement]}
    rules = [Rule(lambda: nft_sets.load_interface() + nft_sets.is_in(LINKS, inverted=True) + _return())]
    for version in (4, 6):
        rules.append(
            _all(
                lambda version=version: nft_sets.of_version(version),  # type: ignore[misc]
                nft_sets.load_interface,
                lambda version=version: nft_sets.load_address(version, _IF),  # type: ignore[misc]
                lambda version=version: nft_sets.is_in(senders(version)),  # type: ignore[misc]
                _return,
            )
        )
    rules += [Rule(_is_icmpv6, jump=NEIGHBOURS), Rule(_drop)]
    chains[CHAIN] = rules
    return chains


def inet_base(table: str) -> "Iterator[Message]":
    yield nft_objects.value_set(table, LINKS, IFNAME)
    for version in (4, 6):
        pair = nft_objects.concatenated(IFNAME, _IP[version])
        yield nft_objects.value_set(table, senders(version), pair)
    yield from nft_sets.filter_chains(table, inet_chains(), {CHAIN: (PRE_ROUTING, RAW)})


def bridge_chains() -> "dict[str, list[Rule]]":
    def of_sender(version: int, at: int, header: str = "network") -> bytes:
        """Match if port, MAC address and the address at this place are of one container."""
        load = nft_sets.load_transport if header == "transport" else nft_sets.load_network
        return (
            nft_sets.load_interface()
            + nft_sets.load_link(6, 6, _IF)
            + load(at, _IP[version][1], _IF + _MAC)
            + nft_sets.is_in(f"senders{version}")
        )

    def of_arp() -> bytes:
        return (
            nft_sets.load_interface()
            + nft_sets.load_network(8, 6, _IF)  # the sender that the message names
            + nft_sets.load_network(14, 4, _IF + _MAC)
            + nft_sets.is_in("senders4")
        )

    neighbours = [
        _all(
            lambda: _icmp_type(ADVERTISEMENT, ADVERTISEMENT), lambda: of_sender(6, 8, "transport"), _accept
        ),
        # The target of an advertisement may be the link-local address of its sender.
        _all(
            lambda: _icmp_type(ADVERTISEMENT, ADVERTISEMENT),
            lambda: nft_sets.load_transport(8, 1) + nft_sets.equals(b"\xfe"),
            _accept,
        ),
        _all(lambda: _icmp_type(ADVERTISEMENT, ADVERTISEMENT), _drop),
        # In this family, there is no `nfproto` of IP.
        *from_link_local(lambda: nft_sets.of_ethertype(_ETHERTYPE[6])),
    ]
    is_other_port = nft_sets.load_interface() + nft_sets.is_in("ports", inverted=True)
    other_mac = nft_sets.load_interface() + nft_sets.load_link(6, 6, _IF)
    other_mac += nft_sets.is_in("macs", inverted=True)

    def of_type(number: int) -> bytes:
        return nft_sets.of_ethertype(number)

    def is_neighbour_search() -> bytes:
        return of_type(_ETHERTYPE[6]) + nft_sets.of_protocol(_ICMPV6) + _icmp_type(135, ADVERTISEMENT)

    searches: list[Callable[[], bytes]] = [lambda: of_type(_ARP), is_neighbour_search]
    return {
        "neighbours": neighbours,
        "prerouting": [
            Rule(lambda: is_other_port + _return()),
            Rule(lambda: other_mac + _drop()),
            Rule(lambda: of_type(_ETHERTYPE[4]) + of_sender(4, 12) + _return()),
            Rule(lambda: of_type(_ARP) + of_arp() + _return()),
            Rule(lambda: of_type(_ETHERTYPE[6]) + nft_sets.of_protocol(_ICMPV6), jump="neighbours"),
            Rule(lambda: of_type(_ETHERTYPE[6]) + of_sender(6, 8) + _return()),
            Rule(_drop),
        ],
        "forward": [
            *(
                Rule(_joining(is_neighbours, leaving))
                for is_neighbours in searches
                for leaving in (False, True)
            ),
            Rule(lambda: nft_sets.load_interface() + nft_sets.is_in("ports") + _drop()),
            Rule(lambda: nft_sets.load_interface(leaving=True) + nft_sets.is_in("ports") + _drop()),
        ],
    }


def _joining(match: "Callable[[], bytes]", leaving: bool) -> "Callable[[], bytes]":
    return lambda: match() + nft_sets.load_interface(leaving=leaving) + nft_sets.is_in("joining") + _drop()


def _accept() -> bytes:
    return verdict(ACCEPT)


BRIDGE_SETS = ("ports", "joining", "macs", "senders4", "senders6")
_BRIDGE_HOOKS = {"prerouting": (PRE_ROUTING, -300), "forward": (FORWARD, -200)}  # <linux/netfilter_bridge.h>


def bridge_base() -> "Iterator[Message]":
    yield nft_objects.table(BRIDGE_TABLE)
    for name in ("ports", "joining"):
        yield nft_objects.value_set(BRIDGE_TABLE, name, IFNAME)
    yield nft_objects.value_set(BRIDGE_TABLE, "macs", nft_objects.concatenated(IFNAME, ETHER_ADDR))
    for version in (4, 6):
        key = nft_objects.concatenated(IFNAME, ETHER_ADDR, _IP[version])
        yield nft_objects.value_set(BRIDGE_TABLE, f"senders{version}", key)
    yield from nft_sets.filter_chains(BRIDGE_TABLE, bridge_chains(), _BRIDGE_HOOKS)


def inet_elements(endpoint: "Endpoint") -> "Iterator[tuple[str, bytes]]":
    """Yield (set, key) of what guards a container's own link in `table inet cnihook`."""
    if endpoint.port and not endpoint.bridge:
        name = nft_objects.interface(endpoint.port)
        yield LINKS, name
        for address in endpoint.addresses:
            yield senders(address.version), name + address


def bridge_elements(endpoint: "Endpoint") -> "Iterator[tuple[str, bytes]]":
    """Yield (set, key) of what guards a container's port in `table bridge cnihook-policy`."""
    name = nft_objects.interface(endpoint.port)
    mac = struct.pack("6s2x", mac_bytes(endpoint.mac))  # whole words of four bytes
    yield "ports", name
    yield "macs", name + mac
    for address in endpoint.addresses:
        yield f"senders{address.version}", name + mac + address
