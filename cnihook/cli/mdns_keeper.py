# SPDX-License-Identifier: Apache-2.0
"""cnihook mdns-keeper: the daemon that sends multicast DNS on between containers and the LAN."""

from cnihook.cli.shared import keeper
from cnihook.cli.shared.arguments import Parser
from cnihook.mdns import daemon, service

DESCRIPTION = """\
Send multicast DNS on between the networks of containers that request it (--mdns) and the LAN.

A query of such a container reaches the LAN, and the answers reach the container, and the other way round.
Nothing passes from one network of containers to another one.

The first container with this request starts this daemon, and it exits by itself; do not start it by hand.
systemd may start it, too (socket activation), and restarts it after a crash.  Without it, containers find
nothing on the LAN; `cnihook repair --all` starts it again.
"""


def parser() -> Parser:
    return keeper.parser("mdns-keeper", DESCRIPTION, service.SOCKET, "", "container")


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    return keeper.run(
        "mdns-keeper", options, lambda listener: daemon.Daemon(listener, linger=options.linger)
    )
