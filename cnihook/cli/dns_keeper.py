# SPDX-License-Identifier: Apache-2.0
"""cnihook dns-keeper: the daemon that resolves the names in the policies of containers."""

from cnihook.cli.shared import keeper
from cnihook.cli.shared.arguments import Parser
from cnihook.resolver import daemon, service

DESCRIPTION = """\
Answer the DNS queries of containers with names in their policy.

A listed name is resolved by the host's servers.  Its addresses are open to the container before it gets the
answer.  For another name the answer is REFUSED, and `cnihook denied` shows it.

The first container with such a policy starts this daemon, and it exits by itself; do not start it by hand.
systemd may start it, too (socket activation), and restarts it after a crash.  Without it, names cannot be
resolved, and nothing else is open; `cnihook repair --all` starts it again.
"""


def parser() -> Parser:
    return keeper.parser("dns-keeper", DESCRIPTION, service.SOCKET, "", "container")


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    return keeper.run("dns-keeper", options, lambda listener: daemon.Daemon(listener, linger=options.linger))
