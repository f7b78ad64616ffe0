# SPDX-License-Identifier: Apache-2.0
"""
A policy as it is written: JSON or TOML, with every key checked.

    {"name": "web",
     "select": {"labels": {"app": "web"}, "containers": ["web-*"], "networks": ["front"]},
     "mode": "enforce", "existing": "keep", "deny": "reject", "weak": false,
     "egress":  {"allow": [{"to": ["10.0.0.0/8", "!10.9.0.0/16"], "ports": ["5432/tcp"]}]},
     "ingress": {"deny": [{"from": ["10.9.0.0/16"]}], "allow": [{"from": ["outside"], "ports": ["80"]}]},
     "tests": [{"from": "web-1", "to": "10.1.0.7:5432", "expect": "allow"}]}

A policy selects containers.  One with `egress` decides where they may open connections to, one with
`ingress` which connections they accept.  With `deny` alone, all else is allowed; otherwise only what `allow`
lists is.
"""

from cnihook.fast import fastjson, similar
from cnihook.policy import peers, toml_file
from cnihook.policy.peers import Rule
from cnihook.types.config import NetConf, json_name
from cnihook.types.errors import CniError, invalid_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DIRECTIONS = {"egress": "to", "ingress": "from"}  # and the key of a rule's peers
MODES, EXISTING, ACTIONS = ("enforce", "audit"), ("keep", "cut"), ("reject", "drop")
LONGEST = 1 << 20  # bytes of a file
MOST_RULES, MOST_TESTS = 256, 256

_KEYS = (
    *("name", "description", "select", "mode", "existing", "deny", "egress", "ingress", "tests"),
    "managedBy",
    "weak",
)
_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.")


class Selection:
    """The containers of a policy: those that match all that is given.  Without anything, every container."""

    __slots__ = ("containers", "labels", "networks")

    def __init__(self, labels: "dict[str, str]", containers: "list[str]", networks: "list[str]") -> None:
        self.labels = labels
        self.containers = containers  # patterns of IDs and names
        self.networks = networks

    def __str__(self) -> str:
        parts = [f"label:{key}={value}" for key, value in self.labels.items()]
        if self.containers:
            parts.append("|".join(f"container:{name}" for name in self.containers))
        if self.networks:
            parts.append("|".join(f"network:{name}" for name in self.networks))
        return ",".join(parts) or "all"


class Lists:
    """The rules of one direction of a policy.  `allow` is None if it only denies."""

    __slots__ = ("allow", "deny")

    def __init__(self, allow: "list[Rule] | None", deny: "list[Rule]") -> None:
        self.allow = allow
        self.deny = deny


class Test:
    """A connection, and the verdict that the policies must have on it."""

    __slots__ = ("expect", "source", "to")

    def __init__(self, source: str, to: str, expect: str) -> None:
        self.source = source
        self.to = to
        self.expect = expect


class Policy:
    """One policy.  `raw` is the JSON object that it was read from."""

    __slots__ = (
        "action", "egress", "existing", "ingress", "is_weak", "mode", "name", "raw", "selection", "tests",
    )  # fmt: skip

    def __init__(self, raw: "dict[str, Any]", where: str) -> None:
        """Read the object.  Raises CniError, which names the key, for the first thing that is wrong."""
        conf = NetConf(raw, where)
        check_keys(conf, _KEYS)
        self.raw = raw
        self.name = conf.string("name")
        check_name(self.name, where)
        self.selection = selection_of(conf)
        self.mode = conf.string("mode", default="enforce", choices=MODES)
        self.existing = conf.string("existing", default="keep", choices=EXISTING)
        # Enforced in a namespace where a process has CAP_NET_ADMIN, too.
        self.is_weak = conf.boolean("weak")
        self.action = conf.string("deny", default="", choices=ACTIONS) if conf.has("deny") else ""
        self.egress = _lists(conf, "egress", self.name)
        self.ingress = _lists(conf, "ingress", self.name)
        if self.egress is None and self.ingress is None:
            raise conf.refuse("egress", 'and "ingress" are missing', "without both, it decides nothing")
        self.tests = _tests(conf)

    def lists(self, direction: str) -> "Lists | None":
        return self.egress if direction == "egress" else self.ingress


def check_name(name: str, where: str = "") -> None:
    if not (name and name[0] not in "-." and _NAME.issuperset(name) and len(name) <= 63):
        prefix = f"{where}: " if where else ""
        raise invalid_config(
            f'{prefix}"name" is not the name of a policy: {name[:70]!r}',
            "it has a-z, 0-9, - and . in it, 63 at most, and begins with a letter or a digit",
        )


def check_keys(conf: NetConf, keys: "tuple[str, ...]") -> None:
    for key in fastjson.repeated(conf.raw):
        raise conf.refuse_repeated(key)
    for key in conf.raw:
        if key not in keys:
            raise conf.refuse(key, "is not a key of a policy", similar.hint(key, keys))


def selection_of(conf: NetConf) -> Selection:
    if not conf.has("select"):
        raise conf.refuse("select", "is missing", '"select": {} selects every container')
    select = conf.object("select")
    check_keys(select, ("labels", "containers", "networks"))
    labels = {}
    for key, value in select.object("labels").raw.items():
        if not isinstance(value, str):
            raise select.refuse(f"labels.{key}", f"must be a string, not {json_name(value)}")
        peers.parse_label(f"{key}={value}", f"{select.where}: label {key}={value}")
        labels[key] = value
    patterns, networks = select.strings("containers"), select.strings("networks")
    for name in patterns:
        peers.check_pattern(name, f"{select.where}: container {name!r}")
    for name in networks:
        peers.parse_peer(f"network:{name}", select.where)
    if len(labels) + len(patterns) + len(networks) > peers.MOST_PEERS:
        raise conf.refuse("select", f"has more than {peers.MOST_PEERS} items")
    return Selection(labels, patterns, networks)


def _lists(conf: NetConf, direction: str, source: str) -> "Lists | None":
    if not conf.has(direction):
        return None
    part = conf.object(direction)
    check_keys(part, ("allow", "deny"))
    allow, deny = (_rules(part, key, direction, source) for key in ("allow", "deny"))
    return Lists(allow if part.has("allow") or not deny else None, deny)


def _rules(part: NetConf, key: str, direction: str, source: str) -> "list[Rule]":
    rules = []
    items = part.objects(key)
    if len(items) > MOST_RULES:
        raise part.refuse(key, f"has {len(items)} rules; {MOST_RULES} is the most")
    for item in items:
        check_keys(item, (DIRECTIONS[direction], "ports"))
        try:
            rules.append(
                peers.make_rule(
                    item.strings(DIRECTIONS[direction]), item.strings("ports"), direction, source
                )
            )
        except CniError as error:
            raise error if error.msg.startswith(item.where) else error.wrapped(item.where) from None
        if key == "deny" and rules[-1].names():
            raise item.refuse(DIRECTIONS[direction], "has a DNS name: its other addresses would stay open")
    return rules


def _tests(conf: NetConf) -> "list[Test]":
    items = conf.objects("tests")
    if len(items) > MOST_TESTS:
        raise conf.refuse("tests", f"has {len(items)} tests; {MOST_TESTS} is the most")
    tests = []
    for item in items:
        check_keys(item, ("from", "to", "expect"))
        for key in ("from", "to", "expect"):
            if not item.string(key):
                raise item.refuse(key, "is missing")
        expect = item.string("expect", choices=("allow", "deny"))
        tests.append(Test(item.string("from"), item.string("to"), expect))
    return tests


def is_policy(raw: "dict[str, Any]") -> bool:
    """Return True if an object is meant to be a policy, not a network."""
    return "select" in raw and not raw.keys() & {"type", "plugins"}


def decode(text: bytes, where: str) -> "Any":
    """Return the value in a file of policies, JSON or by its name TOML.  Raises CniError."""
    if len(text) > LONGEST:
        raise invalid_config(f"{where}: is longer than {LONGEST >> 20} MiB")
    if where.endswith(toml_file.ENDING):
        return toml_file.decode(text, where)
    try:
        return fastjson.loads(text.decode(), marks=True)
    except ValueError as error:
        raise invalid_config(f"{where}: is not JSON: {error}") from None


def parse(text: bytes, where: str) -> Policy:
    """Return the policy in a file.  Raises CniError."""
    raw = decode(text, where)
    if not isinstance(raw, dict):
        raise invalid_config(f"{where}: a policy is an object, not {json_name(raw)}")
    return Policy(raw, where)
