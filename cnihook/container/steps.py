# SPDX-License-Identifier: Apache-2.0
"""The differences that a change of a running container makes, each as a sentence."""

from cnihook.container import own_keys
from cnihook.request import emulation, published, quota, values
from cnihook.runtime.pending import Input, network_of
from cnihook.runtime.records import Record
from cnihook.types import Value
from cnihook.types.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cnihook.runtime.update import Edit

PUBLISHED, UNPUBLISHED, LIMITED, UNLIMITED = "published", "unpublished", "limited", "unlimited"
EMULATED, NOT_EMULATED = "emulated", "not emulated"
LISTED = "listed"
QUOTA_SET, QUOTA_REMOVED, QUOTA_RESET = "quota set", "quota removed", "quota reset"
ADDED, REMOVED, SET, SET_DNS = "added", "removed", "set", "name servers set"
_PLANNED = {
    PUBLISHED: "would publish",
    UNPUBLISHED: "would unpublish",
    LIMITED: "would limit",
    UNLIMITED: "would no longer limit",
    EMULATED: "would emulate",
    NOT_EMULATED: "would no longer emulate",
    LISTED: "would limit",
    QUOTA_SET: "would set the quota of",
    QUOTA_REMOVED: "would remove the quota of",
    QUOTA_RESET: "would reset the quota of",
    ADDED: "would add",
    REMOVED: "would remove",
    SET: "would set",
    SET_DNS: "would set",
}
_DONE = {
    PUBLISHED: "published",
    UNPUBLISHED: "unpublished",
    LIMITED: "limited",
    UNLIMITED: "no longer limited:",
    EMULATED: "emulating",
    NOT_EMULATED: "no longer emulating",
    LISTED: "limited",
    QUOTA_SET: "set the quota of",
    QUOTA_REMOVED: "removed the quota of",
    QUOTA_RESET: "reset the quota of",
    ADDED: "added",
    REMOVED: "removed",
    SET: "set",
    SET_DNS: "set",
}


_NOTES = {SET_DNS: "; a program that has read it keeps what it read"}
# What a line of resolv.conf is called, by the key of a result's `dns`.
_DNS = {"nameservers": "nameserver", "search": "search", "options": "options"}


class Step(Value):
    """One difference that a change makes: `published` and `8080/tcp -> 10.22.0.2:80`."""

    __slots__ = ("ifname", "network", "value", "what")

    def __init__(self, record: Record, what: str, value: str) -> None:
        self.network = record.network
        self.ifname = record.ifname
        self.what = what
        self.value = value

    @property
    def done(self) -> str:
        """The step as a sentence about the past."""
        return f"{_DONE[self.what]} {self.value}{_NOTES.get(self.what, '')}"

    @property
    def planned(self) -> str:
        """The same about what would be done."""
        return f"{_PLANNED[self.what]} {self.value}"


def of_edits(edits: "list[tuple[Record, Edit]]") -> "list[Step]":
    steps: list[Step] = []
    of_container: list[Step] = []
    for record, edit in edits:
        old, new = Input.of(record), edit(Input.of(record))
        steps += _port_steps(record, new)
        for capability, step in (
            ("bandwidth", _limit_step),
            ("emulate", _emulation_step),
            ("quota", _quota_step),
        ):
            before, limits = (
                args.get(capability) or {} for args in (old.capability_args, new.capability_args)
            )
            if limits != before:
                steps.append(step(record, before, limits))
        steps += _list_steps(record, old, new)
        steps += _key_steps(record, old, new)
        steps += _alias_steps(record, old, new)
        of_container = of_container or _container_steps(record, old, new)
    return steps + of_container


def _list_steps(record: Record, old: Input, new: Input) -> "list[Step]":
    before, after = (each.own.get("policy") or {} for each in (old, new))
    if before == after:
        return []
    from cnihook.container import own_lists  # most changes are of ports

    present = own_lists.of(before)
    return [
        Step(record, LISTED, f"{direction} on {record.network} to {text}")
        for direction, text in own_lists.of(after).items()
        if present[direction] != text
    ]


def _key_steps(record: Record, old: Input, new: Input) -> "list[Step]":
    """Return the steps of what a container has for itself in its network's configuration."""
    if old.config == new.config:
        return []
    steps = []
    before, after = (network_of(each, record).plugins for each in (old, new))
    mtu = after[0].get("mtu")
    if mtu != before[0].get("mtu"):
        steps.append(Step(record, SET, f"MTU {mtu} of {_where(record)}"))
    routes = [list(map(_route_text, own_keys.routes_of(plugins[0]))) for plugins in (before, after)]
    for what, here, there in ((REMOVED, routes[0], routes[1]), (ADDED, routes[1], routes[0])):
        steps += [Step(record, what, f"{text} of {_where(record)}") for text in here if text not in there]
    for one, other in zip(before, after, strict=True):
        settings, wanted = (each.get("sysctl") or {} for each in (one, other))
        steps += [Step(record, REMOVED, f"sysctl {key}") for key in settings if key not in wanted]
        steps += [
            Step(record, SET, f"sysctl {key}={value}")
            for key, value in wanted.items()
            if settings.get(key) != value
        ]
    return steps


def _route_text(route: "dict[str, Any]") -> str:
    return f"route {route['dst']} via {route['gw']}" if "gw" in route else f"route {route['dst']}"


def _alias_steps(record: Record, old: Input, new: Input) -> "list[Step]":
    before, after = (_names(each).get("aliases") or [] for each in (old, new))
    return [
        *(
            Step(record, REMOVED, f"alias {name} on {record.network}")
            for name in before
            if name not in after
        ),
        *(Step(record, ADDED, f"alias {name} on {record.network}") for name in after if name not in before),
    ]


def _container_steps(record: Record, old: Input, new: Input) -> "list[Step]":
    """Return the steps that are about no network."""
    before, after = _names(old), _names(new)
    lines = [list(names.get("hosts") or []) for names in (before, after)]
    steps = [
        Step(record, what, f"host {line}")
        for what, here, there in ((REMOVED, lines[0], lines[1]), (ADDED, lines[1], lines[0]))
        for line in here
        if line not in there
    ]
    for key, word in _DNS.items():
        settings = [(names.get("dns") or {}).get(key) or [] for names in (before, after)]
        if settings[0] != settings[1]:
            value = " ".join(settings[1]) or "as its networks or the host have it"
            steps.append(Step(record, SET_DNS, f"{word} {value}"))
    return steps


def _names(given: Input) -> "dict[str, Any]":
    names = given.own.get("names")
    return names if isinstance(names, dict) else {}


def _port_steps(record: Record, new: Input) -> "list[Step]":
    before, after = (published.mappings(args) for args in (record.capability_args, new.capability_args))
    steps = [
        Step(record, UNPUBLISHED, f"{published.host_end(one)}/{published.protocol_of(one)}")
        for one in before
        if one not in after
    ]
    for one in after:
        if one not in before:
            end = f"{published.host_end(one)}/{published.protocol_of(one)}"
            steps.append(Step(record, PUBLISHED, f"{end} -> {_target(record, one)}"))
    return steps


def _target(record: Record, mapping: "dict[str, Any]") -> str:
    """Return the address and the port of the container to which a port leads."""
    addresses = [str(ip.net.address) for ip in _result(record).ips]
    is_six = ":" in str(mapping.get("hostIP") or "")
    chosen = next((each for each in addresses if (":" in each) == is_six), "".join(addresses[:1]))
    return (
        f"[{chosen}]:{mapping['containerPort']}" if ":" in chosen else f"{chosen}:{mapping['containerPort']}"
    )


def _result(record: Record) -> Result:
    network = network_of(Input.of(record), record)
    return Result.from_json(record.result, network.version)


def _limit_step(record: Record, _old: "dict[str, int]", limits: "dict[str, int]") -> Step:
    texts = [
        f"{name}={values.number_text(limits[key])}"
        for name, key in (("in", "ingressRate"), ("out", "egressRate"))
        if limits.get(key)
    ]
    if not texts:
        return Step(record, UNLIMITED, _where(record))
    return Step(record, LIMITED, f"{_where(record)} to {','.join(texts)}")


def _emulation_step(record: Record, _old: "dict[str, Any]", effects: "dict[str, Any]") -> Step:
    if not effects:
        return Step(record, NOT_EMULATED, f"a network for {_where(record)}")
    return Step(record, EMULATED, f"{emulation.to_text(effects)} for {_where(record)}")


def _quota_step(record: Record, old: "dict[str, int]", limits: "dict[str, int]") -> Step:
    if not limits:
        return Step(record, QUOTA_REMOVED, _where(record))
    if {**limits, "since": 0} == {**old, "since": 0}:
        return Step(record, QUOTA_RESET, _where(record))
    return Step(record, QUOTA_SET, f"{_where(record)} to {quota.to_text(limits)}")


def _where(record: Record) -> str:
    return f"{record.ifname} on {record.network}"
