# SPDX-License-Identifier: Apache-2.0
"""cnihook dhcp-keeper: the daemon that renews the leases of the plugin dhcp."""

from cnihook.cli.shared import keeper
from cnihook.cli.shared.arguments import Parser
from cnihook.dhcp import daemon, rpc

DESCRIPTION = """\
Obtain, renew and release the DHCP leases of containers.

The plugin dhcp starts this daemon when it needs it, and the daemon exits by itself; do not start it by hand.
systemd may start it, too (socket activation), and restarts it after a crash.  The leases survive: they are
in a folder beside the socket, and the next daemon continues with them.
"""


def parser() -> Parser:
    where = ', as "daemonSocketPath" in a network\'s ipam'
    parser = keeper.parser("dhcp-keeper", DESCRIPTION, rpc.SOCKET, where, "lease")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=keeper.seconds,
        default=daemon.TIMEOUT,
        help='time to ask for an address, unless a network\'s ipam has "timeout" (default: %(default)g)',
    )
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    return keeper.run(
        "dhcp-keeper",
        options,
        lambda listener: daemon.Daemon(listener, timeout=options.timeout, linger=options.linger),
    )
