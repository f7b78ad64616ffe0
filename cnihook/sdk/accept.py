# SPDX-License-Identifier: Apache-2.0
"""
A network's traffic let through the `filter` table of iptables, where that would drop it.

What another program drops, no rule of ours in another table can save; so the rule has to be where that
program looks.  The chains have the names that the reference plugin gives them, and both may be at work on
one host:

    FORWARD, or DOCKER-USER, which Docker keeps in front of all that is its own
        -j CNI-FORWARD
    CNI-FORWARD
        -j CNI-ADMIN    the administrator's own chain, if there is one
        -i cni0 -j ACCEPT
        -o cni0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT

So containers reach the world, it answers, and their published ports are open.  Whether the world may begin
a connection with a container itself remains the policy's matter.
"""

from cnihook.lean.address import IPNet
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
)  # where a jump from CHAIN would go in circles
_PLACES = ("DOCKER-USER", "FORWARD")  # the first of them that there is leads to CHAIN
_COMMENT, _ADMIN_COMMENT = "CNI firewall plugin rules", "CNI firewall plugin admin overrides"
_RULES = 2  # of one network


def obstacles(versions: "Iterable[int]", admin: str) -> "list[Filter]":
    """The tables that need rules: the policy is to drop, or the administrator has made a chain for us."""
    return [
        table
        for version in sorted(set(versions))
        for table in xtables.filters(version)
        if table.policy("FORWARD") == "drop" or table.policy(admin) is not None
    ]


def add(table: "Filter", admin: str, end: "str | IPNet", comment: str) -> None:
    """Let through what `end`, a bridge or a subnet, sends, and what it is to get.  What is there stays."""
    edits = Edits()
    present = []
    if table.policy(CHAIN) is None:
        edits.add_chain(CHAIN)
    else:
        present = table.rules(CHAIN)
    own = [rule for rule in present if rule.comment == comment]
    if len(own) != _RULES:
        for rule in own:
            edits.delete_rule(CHAIN, rule)
        edits.accept(CHAIN, Match(end, incoming=False), comment)
        edits.accept(CHAIN, Match(end, incoming=True, known=True), comment)
    if table.policy(admin) is not None and not any(rule.target == admin for rule in present):
        edits.jump(CHAIN, admin, _ADMIN_COMMENT)
    if table.policy("FORWARD") is None:  # the administrator's chain is the first that there is
        table.add_forward()
    places = [place for place in _PLACES if table.policy(place) is not None]
    if not any(rule.target == CHAIN for place in places for rule in table.rules(place)):
        edits.jump(places[0], CHAIN, _COMMENT)
    if edits:
        table.change(edits, f"add rules to {table.name}, chain {CHAIN}")


def is_set(table: "Filter", admin: str, comment: str) -> bool:
    present = table.rules(CHAIN)
    return (
        sum(rule.comment == comment for rule in present) == _RULES
        and (table.policy(admin) is None or any(rule.target == admin for rule in present))
        and any(rule.target == CHAIN for place in _PLACES for rule in table.rules(place))
    )


def delete(comment: str) -> None:
    """Remove the rules with this comment, and the chain if it holds no others."""
    for version in (4, 6):
        for table in xtables.filters(version):
            if table.policy(CHAIN) == "":  # a chain with a hook is not the one that we jump to
                _delete(table, comment)


def _delete(table: "Filter", comment: str) -> None:
    edits = Edits()
    others = False
    for rule in table.rules(CHAIN):
        if rule.comment in (comment, _ADMIN_COMMENT):
            edits.delete_rule(CHAIN, rule)
        else:
            others = True
    if others:  # the way to the administrator's chain is theirs, too
        edits.old_rules = [(chain, rule) for chain, rule in edits.old_rules if rule.comment == comment]
    else:
        for place in _PLACES:
            for rule in table.rules(place):
                if rule.target == CHAIN:
                    edits.delete_rule(place, rule)
        edits.delete_chain(CHAIN)
    if edits:
        table.change(edits, f"remove rules from {table.name}, chain {CHAIN}")
