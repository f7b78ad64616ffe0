# SPDX-License-Identifier: Apache-2.0
"""
Rules in the `filter` table of iptables that accept a network's traffic, if that table would drop it.

A packet that another program drops is lost, whatever a rule in another table says.  So the rule must be in
that program's table.  The chains have the reference plugin's names, and both plugins may work on one host:

    FORWARD, or DOCKER-USER, which Docker keeps before its own rules
        -j CNI-FORWARD
    CNI-FORWARD
        -j CNI-ADMIN    the administrator's own chain, if there is one
        -i cni0 -j ACCEPT
        -o cni0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT

So containers can open connections to the outside, answers come back, and published ports are open.  The
policy still decides about any other connection from the outside to a container.
"""

from cnihook.fast.address import IPNet
from cnihook.linux import xtables
from cnihook.linux.xtables import Edits, Match

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnihook.linux.xtables import LegacyTable, NftTable

    Filter = LegacyTable | NftTable

CHAIN = "CNI-FORWARD"
RESERVED = (
    "INPUT",
    "FORWARD",
    "OUTPUT",
    "DOCKER-USER",
    CHAIN,
)  # a jump from CHAIN to one of these would be a loop
_PLACES = ("DOCKER-USER", "FORWARD")  # the first that exists gets the jump to CHAIN
_COMMENT, _ADMIN_COMMENT = "CNI firewall plugin rules", "CNI firewall plugin admin overrides"
_DIRECTIONS: "tuple[dict[str, bool], ...]" = ({"incoming": False}, {"incoming": True, "known": True})


def tables_needing_rules(versions: "Iterable[int]", admin: str) -> "list[Filter]":
    """Return the tables that need rules: those with policy drop, or with the administrator's chain."""
    return [
        table
        for version in sorted(set(versions))
        for table in xtables.filters(version)
        if table.policy("FORWARD") == "drop" or table.policy(admin) is not None
    ]


def add(table: "Filter", admin: str, end: "str | IPNet", comment: str) -> None:
    """Accept what `end`, a bridge or a subnet, sends and what it may receive.  Existing rules stay."""
    edits = Edits()
    present = []
    if table.policy(CHAIN) is None:
        edits.add_chain(CHAIN)
    else:
        present = table.rules(CHAIN)
    own = [rule for rule in present if rule.comment == comment]
    if len(own) != len(_DIRECTIONS):
        for rule in own:
            edits.delete_rule(CHAIN, rule)
        for direction in _DIRECTIONS:
            edits.accept(CHAIN, Match(end, **direction), comment)
    if table.policy(admin) is not None and not any(rule.target == admin for rule in present):
        edits.jump(CHAIN, admin, _ADMIN_COMMENT)
    if table.policy("FORWARD") is None:  # only the administrator's chain exists
        table.add_forward()
    places = [place for place in _PLACES if table.policy(place) is not None]
    if not any(rule.target == CHAIN for place in places for rule in table.rules(place)):
        edits.jump(places[0], CHAIN, _COMMENT)
    if edits:
        table.change(edits, f"add rules to {table.name}, chain {CHAIN}")


def is_set(table: "Filter", admin: str, comment: str) -> bool:
    present = table.rules(CHAIN)
    return (
        sum(rule.comment == comment for rule in present) == len(_DIRECTIONS)
        and (table.policy(admin) is None or any(rule.target == admin for rule in present))
        and any(rule.target == CHAIN for place in _PLACES for rule in table.rules(place))
    )


def delete(comment: str) -> None:
    """Remove the rules with this comment, and the chain if it holds no others."""
    for version in (4, 6):
        for table in xtables.filters(version):
            if table.policy(CHAIN) == "":  # a chain with a hook is not the one that add() makes
                _delete(table, comment)


def _delete(table: "Filter", comment: str) -> None:
    edits = Edits()
    others = False
    for rule in table.rules(CHAIN):
        if rule.comment in (comment, _ADMIN_COMMENT):
            edits.delete_rule(CHAIN, rule)
        else:
            others = True
    if others:  # the other networks need the jump to the administrator's chain, too
        edits.old_rules = [(chain, rule) for chain, rule in edits.old_rules if rule.comment == comment]
    else:
        for place in _PLACES:
            for rule in table.rules(place):
                if rule.target == CHAIN:
                    edits.delete_rule(place, rule)
        edits.delete_chain(CHAIN)
    if edits:
        table.change(edits, f"remove rules from {table.name}, chain {CHAIN}")
