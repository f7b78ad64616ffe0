# SPDX-License-Identifier: Apache-2.0
"""Checks of policies: malformed files, and rules that another program has removed."""

from collections.abc import Iterator

from cnihook.doctor.finding import Finding, Host
from cnihook.policy import bridges, change, enforcement, kernel, store
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
    for bridge, port in bridges.other_ports(kernel.STATE):
        yield Finding(
            "policy-bridge-port",
            f"bridge {bridge} of containers with policies has the port {port}, which is not of a container",
            "the host answers there for all addresses of that network, too; the next `policy apply` fails",
            f"ip link set {port} nomaster",
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
