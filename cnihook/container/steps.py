# SPDX-License-Identifier: Apache-2.0
"""The differences that a change of a running container makes, each as a sentence."""

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
}


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
        return f"{_DONE[self.what]} {self.value}"

    @property
    def planned(self) -> str:
        """The same about what would be done."""
        return f"{_PLANNED[self.what]} {self.value}"


def of_edits(edits: "list[tuple[Record, Edit]]") -> "list[Step]":
    steps = []
    for record, edit in edits:
        new = edit(Input.of(record))
        steps += _port_steps(record, new)
        for capability, step in (
            ("bandwidth", _limit_step),
            ("emulate", _emulation_step),
            ("quota", _quota_step),
        ):
            old, limits = (
                args.get(capability) or {} for args in (record.capability_args, new.capability_args)
            )
            if limits != old:
                steps.append(step(record, old, limits))
    return steps


def of_lists(attachments: "list[Record]", lists: "dict[str, str]") -> "list[Step]":
    if not lists:
        return []
    from cnihook.container import own_lists

    return [
        Step(record, LISTED, f"{direction} on {record.network} to {text}")
        for record, direction, text in own_lists.differing(attachments, lists)
    ]


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
