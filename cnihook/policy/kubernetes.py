# SPDX-License-Identifier: Apache-2.0
"""
NetworkPolicy of Kubernetes (networking.k8s.io/v1), read as a policy of cnihook.

Labels of pods are those of containers here.  There are no namespaces: `namespaceSelector` and the namespace
of the object are ignored, with a warning.  What cannot be translated is an error, because a policy that
allows more than its author thinks is worse than none.
"""

from cnihook.types.config import NetConf
from cnihook.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def is_one(raw: "dict[str, Any]") -> bool:
    return raw.get("kind") == "NetworkPolicy" or str(raw.get("apiVersion", "")).startswith(
        "networking.k8s.io"
    )


def translated(raw: "dict[str, Any]", where: str, warnings: "list[str]") -> "dict[str, Any]":
    """Return the object of a policy of cnihook.  Raises CniError for what has no equivalent."""
    conf = NetConf(raw, where)
    if conf.string("apiVersion") != "networking.k8s.io/v1" or conf.string("kind") != "NetworkPolicy":
        raise conf.refuse("apiVersion", 'and "kind" are not networking.k8s.io/v1 and NetworkPolicy')
    metadata, spec = conf.object("metadata"), conf.object("spec")
    if metadata.has("namespace"):
        warnings.append(f"{where}: the namespace {metadata.string('namespace')} is ignored")
    policy: dict[str, Any] = {
        "name": metadata.string("name"),
        "select": {"labels": _labels(spec.object("podSelector"))},
    }
    types = spec.strings("policyTypes") or ["Ingress", *(["Egress"] if spec.has("egress") else [])]
    for kind, direction, key in (("Ingress", "ingress", "from"), ("Egress", "egress", "to")):
        if kind in types:
            rules = [_rule(item, key, warnings) for item in spec.objects(direction)]
            policy[direction] = {"allow": [rule for rule in rules if rule]}
    return policy


def _labels(selector: NetConf) -> "dict[str, Any]":
    if selector.has("matchExpressions"):
        raise selector.refuse("matchExpressions", "cannot be translated", "use matchLabels")
    return dict(selector.object("matchLabels").raw)


def _rule(item: NetConf, key: str, warnings: "list[str]") -> "dict[str, Any] | None":
    peers: list[str] = []
    for peer in item.objects(key):
        if peer.has("ipBlock"):
            block = peer.object("ipBlock")
            peers += [block.string("cidr"), *(f"!{net}" for net in block.strings("except"))]
            continue
        if peer.has("namespaceSelector"):
            warnings.append(f"{peer.where}: namespaceSelector is ignored: every namespace is meant")
        labels = _labels(peer.object("podSelector"))
        if len(labels) > 1:
            raise peer.refuse("podSelector", "has several labels, and a rule here selects by one")
        peers += [f"label:{name}={value}" for name, value in labels.items()] or ["network:*"]
    if "network:*" in peers:
        raise item.refuse(key, "selects every pod", "name a label, or an ipBlock with the networks' subnets")
    rule: dict[str, Any] = {key: peers or ["all"]}
    if item.has("ports"):
        rule["ports"] = [_port(port) for port in item.objects("ports")]
    return rule


def _port(conf: NetConf) -> str:
    protocol = conf.string("protocol", default="TCP", choices=("TCP", "UDP", "SCTP")).lower()
    if not conf.has("port"):
        return f"1-65535/{protocol}"
    try:
        first = conf.integer("port", default=0, low=1, high=65535)
    except CniError:
        raise conf.refuse("port", "is not a number", "ports have no names here") from None
    last = conf.integer("endPort", default=first, low=first, high=65535)
    return f"{first}-{last}/{protocol}"
