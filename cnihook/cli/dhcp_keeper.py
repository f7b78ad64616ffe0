# SPDX-License-Identifier: Apache-2.0
"""cnihook dhcp-keeper: the daemon that renews the leases of the plugin dhcp."""

import argparse
import os

from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.dhcp import daemon, rpc
from cnihook.fast.errors_text import message_with_notes
from cnihook.keeper import server
from cnihook.keeper.client import is_path
from cnihook.linux.flock import LockBusyError
from cnihook.log import warn

DESCRIPTION = """\
Obtain, renew and release the DHCP leases of containers.

The plugin dhcp starts this daemon when it needs it, and the daemon exits by itself; do not start it by hand.
systemd may start it, too (socket activation), and restarts it after a crash.  The leases survive: they are
in a folder beside the socket, and the next daemon continues with them.
"""


def parser() -> Parser:
    parser = arguments.Parser("dhcp-keeper", DESCRIPTION)
    parser.add_argument(
        "--socket",
        metavar="PATH",
        type=_path,
        default=rpc.SOCKET,
        help='socket to listen at, as "daemonSocketPath" in a network\'s ipam (default: %(default)s)',
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=daemon.TIMEOUT,
        help='time to ask for an address, unless a network\'s ipam has "timeout" (default: %(default)g)',
    )
    parser.add_argument(
        "--linger",
        metavar="SECONDS",
        type=_seconds,
        default=daemon.LINGER,
        help="time until it exits if it has no lease (default: %(default)g)",
    )
    parser.add_argument(
        "--background", action="store_true", help="run it in the background, and return once it listens"
    )
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)

    listener = server.adopt()
    activated = listener is not None
    if listener is None:
        try:
            listener = server.listen(options.socket)
        except (OSError, LockBusyError) as error:
            warn(f"dhcp-keeper: listen at {options.socket}: {message_with_notes(error)}")
            return 1
    if listener is None:
        if not options.background:
            warn(f"dhcp-keeper: another daemon listens at {options.socket} already")
        return 0 if options.background else 1
    if options.background and not server.into_background(listener):
        return 0
    try:
        daemon.keep(listener, timeout=options.timeout, linger=options.linger)
    finally:
        if not activated:
            os.unlink(options.socket)
    return 0


def _path(text: str) -> str:
    path = os.path.abspath(text)
    if not is_path(path):
        raise argparse.ArgumentTypeError(f"{text!r} is too long for a socket's path")
    return path


def _seconds(text: str) -> float:
    try:
        value = float(text)
        if 0 < value < 1e6:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
