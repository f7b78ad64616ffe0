# SPDX-License-Identifier: Apache-2.0
"""The chains and rules of `table inet cnihook` that published ports rely on; see nftables.ports."""

from cnihook.fast.address import IPNet
from cnihook.linux import nft_objects
from cnihook.linux.nft_objects import Rule
from cnihook.nftables import loopback
from cnihook.nftables.port_maps import CONDITIONAL, FIRST, UNCONDITIONAL, Maps, conditional
from cnihook.nftables.table import NAME, TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cnihook.linux.nft_objects import Message

# The connections to a container that are masqueraded: those of its subnet, all, or none.
SUBNET, ANY, NONE = "subnet", "any", "none"

GUARD, FROM = "ports-guard", "ports-from-"
_INCOMING, _OUTGOING, _LAST = "ports-prerouting", "ports-output", "ports-postrouting"

_HOOKS = {
    GUARD: ("filter", nft_objects.PRE_ROUTING, nft_objects.RAW),
    _INCOMING: ("nat", nft_objects.PRE_ROUTING, nft_objects.DSTNAT),
    _OUTGOING: ("nat", nft_objects.OUTPUT, nft_objects.DSTNAT),
    _LAST: ("nat", nft_objects.POST_ROUTING, nft_objects.SRCNAT),
    **loopback.HOOKS,
}
_ADDRESS = {4: nft_objects.IPV4_ADDR, 6: nft_objects.IPV6_ADDR}
_HOST_ITSELF = IPNet.parse("::1/128")


def _drop(match: bytes) -> bytes:
    return match + nft_objects.verdict(nft_objects.DROP)


def _to_container(version: int) -> Rule:
    """Return the rule for the connections that are translated to a container, by its address."""
    return Rule(
        lambda: (
            nft_objects.is_translated(nft_objects.DST_NAT)
            + nft_objects.destination(version)
            + nft_objects.vmap(f"ports-to{version}")
        )
    )


def _nat(maps: Maps, name: str, *, by_address: bool) -> Rule:
    return Rule(lambda: nft_objects.dnat(maps.version, name, by_address=by_address))


def _rules(maps: Maps) -> "list[Rule]":
    """Return the rules that send packets of an IP version to the targets in its maps."""
    rules = [_nat(maps, maps.at, by_address=True), _nat(maps, maps.everywhere, by_address=False)]
    return [Rule(loopback.before_nat), *rules, Rule(loopback.after_nat)] if maps.version == 4 else rules


# The chains that every port relies on, in an order in which they can be removed, each with its rules.
_RULES = {
    _INCOMING: [Rule(nft_objects.destined_to_host, jump=FIRST)],
    _OUTGOING: [
        # The kernel accepts no answer to ::1, so connections to it are left to processes of the host.
        Rule(lambda: nft_objects.destined(_HOST_ITSELF) + nft_objects.verdict(nft_objects.RETURN)),
        Rule(nft_objects.destined_to_host, jump=FIRST),
    ],
    _LAST: [*map(_to_container, (4, 6)), Rule(lambda: _drop(nft_objects.sent_by(loopback.STAND_IN)))],
    GUARD: [
        # The kernel drops packets from outside to 127.0.0.1 only after NAT, which would forward them.
        Rule(lambda: _drop(nft_objects.enters_by_another("lo") + nft_objects.destined(loopback.LOOPBACK))),
        Rule(lambda: _drop(nft_objects.enters_by_another("lo") + nft_objects.sent_by(loopback.LOOPBACK))),
    ],
    **loopback.RULES,
    FIRST: [Rule(jump=CONDITIONAL), *(rule for maps in UNCONDITIONAL for rule in _rules(maps))],
    CONDITIONAL: [],  # and a rule for each text of conditions
}
USES = nft_objects.use_counts(_RULES)


def is_whole(present: "Mapping[str, int]") -> bool:
    """Return True if all chains that ports rely on have their use counts: another program may flush them."""
    return all(
        present.get(chain, 0) == uses or (chain == CONDITIONAL and present.get(chain, 0) > uses)
        for chain, uses in USES.items()
    )


def declaration(present: "Mapping[str, int]") -> "Iterator[Message]":
    """Yield all that ports rely on, and attachments' present chains: an earlier version had other rules."""
    yield nft_objects.table(NAME)
    for maps in UNCONDITIONAL:
        yield from _objects(maps)
        yield nft_objects.verdict_map(NAME, f"ports-to{maps.version}", _ADDRESS[maps.version])
    for chain in (FIRST, CONDITIONAL):
        yield nft_objects.chain(NAME, chain)
    for chain, hook in _HOOKS.items():
        yield nft_objects.chain(NAME, chain, *hook)
    for chain, rules in _RULES.items():
        if chain != CONDITIONAL:  # its rules are those of attachments
            yield from nft_objects.replace_rules(NAME, chain, rules)
    for chain in present:
        if chain.startswith(FROM):
            yield from masquerading(chain)
    for maps in conditional(present):
        yield from nft_objects.replace_rules(NAME, maps.chain, _rules(maps))


def _objects(maps: Maps) -> "Iterator[Message]":
    address, service = _ADDRESS[maps.version], nft_objects.INET_SERVICE
    port = (nft_objects.INET_PROTO, service)
    everywhere, target = nft_objects.concatenated(*port), nft_objects.concatenated(address, service)
    yield nft_objects.value_map(NAME, maps.everywhere, everywhere, target)
    yield nft_objects.value_map(NAME, maps.at, nft_objects.concatenated(address, *port), target)
    yield nft_objects.value_set(NAME, maps.held, everywhere)


# Ports under conditions


def under_conditions(maps: Maps) -> "Iterator[Message]":
    """Yield all but the rule that jumps to it, because the conditions of that rule are text of nft."""
    yield from _objects(maps)
    yield nft_objects.chain(NAME, maps.chain)
    yield from nft_objects.replace_rules(NAME, maps.chain, _rules(maps))


def uses(maps: Maps) -> int:
    """Return the use count of the chain of these conditions: its rules, and the rule that jumps to it."""
    return len(_rules(maps)) + 1


def way_in(maps: Maps) -> str:
    """Return the rule that jumps to the chain of the conditions, for nft.run()."""
    rule = f'meta nfproto ipv{maps.version} {maps.conditions} jump {maps.chain} comment "{maps.chain}"'
    return f"add rule {TABLE} {CONDITIONAL} {rule}"


# Connections to containers


def chain_from(net: IPNet, whose: str) -> str:
    """Return the name of the chain for connections to a container; `net`: its address and subnet."""
    whose = str(net.network()) if whose == SUBNET else whose
    return f"{FROM}{whose}".replace(":", "_")  # no colon in an identifier of nft


def masquerading_rules(chain: str) -> "list[Rule]":
    """Return the rules of such a chain: its name says which connections are masqueraded."""
    whose = chain.removeprefix(FROM).replace("_", ":")
    if whose in (ANY, NONE):
        return [Rule(nft_objects.masquerade)] if whose == ANY else []
    net = IPNet.parse(whose)
    sources = [net, loopback.STAND_IN] if net.address.version == 4 else [net]
    return [_masqueraded(source) for source in sources]


def _masqueraded(source: IPNet) -> Rule:
    return Rule(lambda: nft_objects.sent_by(source) + nft_objects.masquerade())


def masquerading(chain: str) -> "Iterator[Message]":
    yield nft_objects.chain(NAME, chain)
    yield from nft_objects.replace_rules(NAME, chain, masquerading_rules(chain))
