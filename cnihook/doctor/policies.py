# SPDX-License-Identifier: Apache-2.0
"""Checks of policies: malformed files, and rules that another program has removed."""

from collections.abc import Iterator

from cnihook.doctor.finding import Finding, Host
from cnihook.policy import change, enforcement, store
from cnihook.protocol import locks


def check(_host: Host) -> Iterator[Finding]:
    """Find files that are not policies, and containers whose policies are not in force."""
    if not enforcement.exists():
        return
    policies = store.load()
    for broken in policies.broken:
        yield Finding(
            "policy-malformed",
            str(broken.error),
            "containers that it may select do not start",
            f"correct {broken.path}, then `cnihook policy apply`",
        )
    if policies.broken:
        return
    with locks.policy("doctor"):
        differences = change.differences(policies)
    for line in change.lines_of(differences):
        yield Finding(
            "policy-not-in-force",
            line,
            "connections that the policies deny are possible, or others are denied",
            "cnihook policy apply",
            fix=_apply,
            subject=line,
            for_all="cnihook policy apply",
        )


def _apply() -> None:
    with locks.policy("doctor"):
        enforcement.sync_all()
