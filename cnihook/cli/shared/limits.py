# SPDX-License-Identifier: Apache-2.0
"""The limits of attachments, for pictures and `inspect`: policies, quotas, bandwidth, emulation."""

from cnihook.cli.shared.listing import Row
from cnihook.policy import effective, enforcement, store
from cnihook.policy.desired import DIRECTIONS
from cnihook.policy.document import Policy
from cnihook.policy.endpoint import Endpoint
from cnihook.request import emulation, quota, values
from cnihook.runtime.records import Record
from cnihook.types.errors import CniError

POLICY, QUOTA, EMULATION = "policy", "quota", "emulation"


def by_attachment(rows: "list[Row]") -> "dict[tuple[str, str, str], list[str]]":
    """Return which of POLICY, QUOTA and EMULATION each attachment has."""
    limited = _with_policy(rows)
    return {
        one.record.identity: [
            *([POLICY] if one.record.identity in limited else []),
            *([QUOTA] if one.record.capability_args.get("quota") else []),
            *([EMULATION] if one.record.capability_args.get("emulate") else []),
        ]
        for one in rows
    }


def _with_policy(rows: "list[Row]") -> "set[tuple[str, str, str]]":
    if not (enforcement.exists() or any(one.record.extra.get("policy") for one in rows)):
        return set()
    policies = store.load().all
    limited = set()
    for one in rows:
        if one.conf and not one.is_loopback:
            own = Endpoint(one.record, one.conf, [one.name] if one.name else [])
            if any(_is_limited(own, policies, direction) for direction in DIRECTIONS):
                limited.add(one.record.identity)
    return limited


def _is_limited(own: Endpoint, policies: "list[Policy]", direction: str) -> bool:
    try:
        return effective.of(own, policies, direction) is not None
    except CniError:
        return True  # a policy that it names does not exist any more


def of_record(record: Record) -> "list[str]":
    """Return the options that an attachment has now, as text."""
    try:
        return _texts(record)
    except (AttributeError, KeyError, TypeError, ValueError):
        return ["its limits on record cannot be read"]


def _texts(record: Record) -> "list[str]":
    own, args = record.extra.get("policy") or {}, record.capability_args
    lines = [f"{direction} {own[direction]}" for direction in DIRECTIONS if own.get(direction)]
    lines += [f"policy {name}" for name in own.get("policies") or ()]
    if limits := args.get("bandwidth"):
        rates = [("in", limits.get("ingressRate")), ("out", limits.get("egressRate"))]
        texts = [f"{name}={values.number_text(rate)}" for name, rate in rates if rate]
        lines += [f"bandwidth {','.join(texts)}"] if texts else []
    lines += [f"emulation {emulation.to_text(args['emulate'])}"] if args.get("emulate") else []
    lines += [f"quota {quota.to_text(args['quota'])}"] if args.get("quota") else []
    return lines
