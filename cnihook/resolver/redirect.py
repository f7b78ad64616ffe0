# SPDX-License-Identifier: Apache-2.0
"""
The way of a container's questions to the resolver.

Another program of the host, such as dnsmasq, may listen on port 53 of every address.  So the resolver
listens on another port of the gateway, and what containers with a listing send to port 53 there is
translated:

    map resolver-from4 { 10.22.0.2 comment "c1" : jump resolver-to }
    map resolver-at4 { 10.22.0.1 . udp . 53 : 10.22.0.1 . 585, 10.22.0.1 . tcp . 53 : 10.22.0.1 . 585 }
    chain resolver { type nat hook prerouting priority dstnat - 1; ip saddr vmap @resolver-from4 }
    chain resolver-to { dnat ip to ip daddr . meta l4proto . th dport map @resolver-at4 }

If the resolver does not run, the port is closed, so a question never reaches the other program.  The chain
comes before the one of published ports, because port 53 may be published.
"""

from cnihook.linux import nft, nft_objects
from cnihook.linux.nft_objects import Rule
from cnihook.nftables import table
from cnihook.nftables.port import PROTOCOLS
from cnihook.nftables.table import FAMILY, NAME
from cnihook.protocol import locks
from cnihook.resolver.listing import PORT, Listing, containers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnihook.linux.nft_objects import Message

DNS = 53

_HOOK, _TARGET = "resolver", "resolver-to"
_ADDRESS = {4: nft_objects.IPV4_ADDR, 6: nft_objects.IPV6_ADDR}


def _from(version: int) -> str:
    return f"resolver-from{version}"


def _at(version: int) -> str:
    return f"resolver-at{version}"


def _come(version: int) -> Rule:
    return Rule(lambda: nft_objects.source(version) + nft_objects.vmap(_from(version)))


def _translate(version: int) -> Rule:
    return Rule(lambda: nft_objects.dnat(version, _at(version), by_address=True))


_RULES = {
    _HOOK: [_come(4), _come(6)],
    _TARGET: [_translate(4), _translate(6)],
}
_OBJECTS = [f"map {kind(version)}" for kind in (_from, _at) for version in (4, 6)]


def _declaration() -> "Iterator[Message]":
    yield nft_objects.table(NAME)
    for version, address in _ADDRESS.items():
        place = nft_objects.concatenated(address, nft_objects.INET_PROTO, nft_objects.INET_SERVICE)
        target = nft_objects.concatenated(address, nft_objects.INET_SERVICE)
        yield nft_objects.verdict_map(NAME, _from(version), address)
        yield nft_objects.value_map(NAME, _at(version), place, target)
    yield nft_objects.chain(NAME, _TARGET)
    yield nft_objects.chain(NAME, _HOOK, "nat", nft_objects.PRE_ROUTING, nft_objects.DSTNAT - 1)
    for chain, rules in _RULES.items():
        yield from nft_objects.replace_rules(NAME, chain, rules)


def _elements(listing: Listing) -> "Iterator[tuple[str, bytes, bytes]]":
    """Yield the elements that the questions of a container need: map, key, value."""
    for gateway in listing.gateways:
        target = bytes(gateway) + _word(PORT)
        for protocol in (PROTOCOLS["udp"], PROTOCOLS["tcp"]):
            yield _at(gateway.version), bytes(gateway) + bytes((protocol,)) + bytes(3) + _word(DNS), target
    for address in listing.addresses:
        yield _from(address.version), address, b""


def _word(port: int) -> bytes:
    return port.to_bytes(2, "big") + bytes(2)  # a part of a key fills whole words of four bytes


def add(listing: Listing) -> bool:
    """Lead what a container asks at its gateways to the resolver.  Returns False if it is led there."""
    with locks.nft(f"resolver of {listing.container_id}"):
        present = table.chains()
        uses = nft_objects.use_counts(_RULES)
        # Each address of a container adds one to the use count of its target.
        is_whole = all(present.get(chain, 0) >= count for chain, count in uses.items())
        messages = [] if is_whole else [*_declaration()]
        for name, key, value in _elements(listing):
            comment = "" if value else listing.container_id[:128]
            entry = nft.entry_of(FAMILY, NAME, name, key) if is_whole else None
            if entry == (value, comment):
                continue
            if entry:  # from a container that is gone
                messages.append(nft.delete_element(NAME, name, key))
            jump = "" if value else _TARGET
            messages.append(nft.add_element(NAME, name, key, comment, value=value, jump=jump))
        nft.change(FAMILY, messages, f"lead the questions of {listing.container_id} to the resolver")
    return bool(messages)


def remove() -> None:
    """Stop it for every container without a listing, and remove what is not in use then."""
    with locks.nft("resolver"):
        # Read under the lock: another process writes a listing before it calls add().
        comments = {container_id[:128] for container_id in containers()}
        present = table.chains()
        if _HOOK not in present:
            return
        members = [
            (name, key, owner)
            for name in map(_from, _ADDRESS)
            for key, owner in nft.elements(FAMILY, NAME, name)
        ]
        stale = [
            nft.delete_element(NAME, name, key) for name, key, owner in members if owner not in comments
        ]
        nft.change(FAMILY, stale, "stop leading questions to the resolver")
        if len(stale) == len(members):
            table.remove(present, [_HOOK, _TARGET], _OBJECTS)
