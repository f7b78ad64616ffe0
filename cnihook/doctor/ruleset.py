# SPDX-License-Identifier: Apache-2.0
"""
Checks of the administrator's own nftables chains, which may drop what containers send.

The kernel runs all chains of a hook in turn, and a packet passes only if every one of them accepts it.  A
chain of iptables or cnihook that accepts it does not overrule these.
"""

import json
from collections.abc import Iterator

from cnihook.doctor.finding import Finding, Host, has_version, plugins_of, printed
from cnihook.linux import xtables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_VERSIONS = {"inet": (4, 6), "ip": (4,), "ip6": (6,)}


def check_forward_chains(host: Host) -> Iterator[Finding]:
    """Find a chain at the hook `forward` with policy drop, without a rule that could let a network out."""
    for chain in _list("chains", "chain"):
        family, table, name = chain["family"], chain["table"], chain["name"]
        if chain.get("hook") != "forward" or chain.get("policy") != "drop" or family not in _VERSIONS:
            continue
        if (table, name) == (xtables.TABLE, "FORWARD") and family != "inet":
            continue  # a chain of iptables; traffic.check_policies() checks it
        rules = [rule["expr"] for rule in _list(f"table {family} {table}", "rule")]
        for network in host.networks:
            plugin = plugins_of(network)[0]
            if not (plugin.bridge and plugin.routes):
                continue
            if not any(has_version(network, version) for version in _VERSIONS[family]):
                continue
            if any(_may_accept(rule, plugin.bridge) for rule in rules):
                continue
            where = f"insert rule {family} {table} {name}"
            yield Finding(
                "forward-chain",
                f"chain {name} of nftables' table {family} {table} has policy drop, "
                f"and no rule that lets network {network.name} out",
                "its containers reach the host, but no other machine; the plugin firewall cannot help",
                f'nft \'{where} oifname "{plugin.bridge}" ct status dnat accept;'
                f' {where} iifname "{plugin.bridge}" accept; {where} ct state established,related accept\','
                " and the same in the file that this chain comes from",
            )


def _list(what: str, kind: str) -> "list[dict[str, Any]]":
    """Return the objects of one kind as in libnftables-json(5); none if nft is not installed."""
    text = printed("nft", "-j", "list", *what.split())
    return [each[kind] for each in json.loads(text)["nftables"] if kind in each] if text else []


def _may_accept(rule: "list[dict[str, Any]]", bridge: str) -> bool:
    """Return True if a rule may accept the first packet of a connection from a bridge; in doubt, True.

    A jump does not count: the rules of the other chain are examined separately.
    """
    for expression in rule:
        match = expression.get("match")
        if match and not _may_match(match["left"], match["op"], match["right"], bridge):
            return False
    return any("accept" in each or _map_accepts(each, bridge) for each in rule)


def _map_accepts(expression: "dict[str, Any]", bridge: str) -> bool:
    verdicts = expression.get("vmap")
    if not verdicts:
        return False
    if not isinstance(verdicts["data"], dict):  # a named map, whose elements are not in this list
        return True
    return any(
        "accept" in verdict and _may_match(verdicts["key"], "==", key, bridge)
        for key, verdict in verdicts["data"]["set"]
    )


def _may_match(left: "Any", op: str, right: "Any", bridge: str) -> bool:
    values = right["set"] if isinstance(right, dict) and "set" in right else right
    values = values if isinstance(values, list) else [values]
    if not isinstance(left, dict) or any(str(value).startswith("@") for value in values):
        return True
    if left.get("meta", {}).get("key") in ("iif", "iifname"):
        return (op == "!=") != any(_names(value, bridge) for value in values)
    if left.get("ct", {}).get("key") == "state":
        return (op == "!=") != ("new" in values)
    return True


def _names(value: "Any", bridge: str) -> bool:
    text = str(value)
    return bridge.startswith(text[:-1]) if text.endswith("*") else text == bridge
