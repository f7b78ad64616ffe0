# SPDX-License-Identifier: Apache-2.0
"""
The effective policy of a container, in one direction.

    deny      what policies of the host deny, before anything else
    layers    lists of what is allowed: one of the host's policies that select the container, and one that
              it was started with.  Each must allow a connection, so the second can only narrow.

Containers with the same effective policy share its rules in the kernel: its digest is their name there.
"""

from cnihook.fast import fastjson
from cnihook.policy import peers
from cnihook.policy.document import Policy
from cnihook.policy.endpoint import Endpoint
from cnihook.policy.peers import PortRange, Rule
from cnihook.types.errors import INVALID_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

DEFAULT_ACTION = {"egress": "reject", "ingress": "drop"}
OWN = "its own list"  # the source of rules that a container was started with


class Layer:
    """Rules, and what happens with a connection that matches none of them (of `deny`: one of them)."""

    __slots__ = ("action", "mode", "rules", "source")

    def __init__(self, rules: "list[Rule]", mode: str, action: str, source: str) -> None:
        self.rules = rules
        self.mode = mode
        self.action = action
        self.source = source

    @property
    def verdict(self) -> str:
        """The action in the kernel: reject, drop or audit."""
        return "audit" if self.mode == "audit" else self.action

    def to_json(self) -> "dict[str, Any]":
        rules = [
            {"peers": list(rule.peers), "ports": list(map(str, rule.ports)), "source": rule.source}
            for rule in self.rules
        ]
        return {"rules": rules, "mode": self.mode, "action": self.action, "source": self.source}

    @classmethod
    def from_json(cls, raw: "dict[str, Any]") -> "Layer":
        rules = [Rule(one["peers"], tuple(map(_port, one["ports"])), one["source"]) for one in raw["rules"]]
        return cls(rules, raw["mode"], raw["action"], raw["source"])


def _port(text: str) -> PortRange:
    return peers.parse_ports(text, "")[0]


class Side:
    """The effective policy in one direction.  `servers`: the addresses that `dns` means."""

    __slots__ = ("deny", "direction", "layers", "servers")

    def __init__(
        self, direction: str, deny: "list[Layer]", layers: "list[Layer]", servers: "list[str]"
    ) -> None:
        self.direction = direction
        self.deny = deny
        self.layers = layers
        is_used = any("dns" in rule.peers for one in (*deny, *layers) for rule in one.rules)
        self.servers = servers if is_used else []

    def to_json(self) -> "dict[str, Any]":
        return {
            "direction": self.direction,
            "deny": [one.to_json() for one in self.deny],
            "layers": [one.to_json() for one in self.layers],
            "servers": self.servers,
        }

    @classmethod
    def from_json(cls, raw: "dict[str, Any]") -> "Side":
        deny, layers = ([Layer.from_json(one) for one in raw[key]] for key in ("deny", "layers"))
        return cls(raw["direction"], deny, layers, raw["servers"])

    @property
    def digest(self) -> str:
        from _blake2 import blake2s

        return blake2s(fastjson.dumps(self.to_json()).encode(), digest_size=8).hexdigest()

    def names(self) -> "list[tuple[str, ...]]":
        """Return the DNS names of each rule that has some, each list once."""
        lists = [names for layer in self.layers for rule in layer.rules if (names := rule.names())]
        return list(dict.fromkeys(lists))

    def selectors(self) -> "set[str]":
        """Return what decides about membership: selectors, and OF_ALL if a rule names `outside`."""
        from cnihook.policy.endpoint import OF_ALL

        rules = [rule for one in (*self.deny, *self.layers) for rule in one.rules]
        chosen = {selector for rule in rules for selector in rule.selectors()}
        return chosen | ({OF_ALL} if any("outside" in rule.peers for rule in rules) else set())


def of(endpoint: Endpoint, policies: "Iterable[Policy]", direction: str) -> "Side | None":
    """Return the effective policy of a container; None if no policy has this direction.

    Raises CniError for a list of the container that is malformed, or names a policy that does not exist.
    """
    policies = list(policies)
    host = [one for one in policies if endpoint.is_selected(one.selection) and one.lists(direction)]
    deny = [
        Layer(lists.deny, one.mode, one.action or DEFAULT_ACTION[direction], one.name)
        for one in host
        if (lists := one.lists(direction)) and lists.deny
    ]
    layers = []
    allowing = [one for one in host if (lists := one.lists(direction)) and lists.allow is not None]
    if allowing:
        layers.append(_merged(allowing, direction))
    own = _own(endpoint, policies, direction)
    if own:
        layers.append(own)
    return Side(direction, deny, layers, endpoint.dns) if deny or layers else None


def strict_sources(endpoint: Endpoint, policies: "Iterable[Policy]") -> "list[str]":
    """Return what limits a container and must hold against CAP_NET_ADMIN: policies, and its own list."""
    requested = endpoint.request.get("policies") or ()
    names = [
        one.name
        for one in policies
        if one.mode == "enforce"
        and not one.is_weak
        and (endpoint.is_selected(one.selection) or one.name in requested)
    ]
    lists = [endpoint.request.get(direction) for direction in ("egress", "ingress")]
    has_own = any(text not in (None, "", "all") for text in lists)
    return [*names, *([OWN] if has_own and not endpoint.request.get("weak") else [])]


def _merged(policies: "list[Policy]", direction: str, more: "list[Rule] | None" = None) -> Layer:
    """Return a layer with what any of these policies allows; `more`: rules that always are in force."""
    rules = [rule for one in policies if (lists := one.lists(direction)) for rule in lists.allow or ()]
    in_force = more is not None or any(one.mode == "enforce" for one in policies)
    actions = {one.action for one in policies}
    action = "drop" if "drop" in actions else "reject" if "reject" in actions else DEFAULT_ACTION[direction]
    source = ", ".join([one.name for one in policies] + ([OWN] if more is not None else []))
    return Layer([*(more or ()), *rules], "enforce" if in_force else "audit", action, source)


def _own(endpoint: Endpoint, policies: "list[Policy]", direction: str) -> "Layer | None":
    by_name = {one.name: one for one in policies}
    requested: list[Policy] = []
    for name in endpoint.request.get("policies") or ():
        if name not in by_name:
            from cnihook.fast import similar  # for this error only

            raise CniError(
                INVALID_CONFIG,
                f"container {endpoint.container_id}: no policy {name!r}",
                similar.hint(name, sorted(by_name)) or "`cnihook policy apply FILE` adds one",
            )
        lists = by_name[name].lists(direction)
        if lists and lists.allow is not None:
            requested.append(by_name[name])
    text = endpoint.request.get(direction)
    rules = None if text in (None, "", "all") else peers.parse_short(text, direction, OWN)
    return _merged(requested, direction, rules) if requested or rules is not None else None
