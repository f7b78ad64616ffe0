# SPDX-License-Identifier: Apache-2.0
"""cnihook dhcp-keeper: the process that has the leases of the plugin dhcp renewed."""

import argparse
import os

from cnihook.cli import arguments
from cnihook.cli.arguments import Parser
from cnihook.dhcp import ask, keeper
from cnihook.lean.words import describe
from cnihook.linux.flock import Busy
from cnihook.log import complain

DESCRIPTION = """\
Keep the DHCP leases of containers: obtain, renew, give back.

The plugin dhcp starts it when it is needed, and it ends by itself; nobody has to run it by hand.  systemd
may start it too (socket activation), and starts it again should it crash.  Leases outlive it: they are in a
folder beside its socket, and the next one goes on with them.
"""


def parser() -> Parser:
    made = arguments.Parser("dhcp-keeper", DESCRIPTION)
    made.add_argument(
        "--socket",
        metavar="PATH",
        type=_path,
        default=ask.SOCKET,
        help='where to listen (default: %(default)s); "daemonSocketPath" of a network\'s ipam says the same',
    )
    made.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=keeper.TIMEOUT,
        help='time to ask for an address (default: %(default)g); "timeout" in a network\'s ipam replaces it',
    )
    made.add_argument(
        "--linger",
        metavar="SECONDS",
        type=_seconds,
        default=keeper.LINGER,
        help="how long to stay with nothing to keep (default: %(default)g)",
    )
    made.add_argument(
        "--background", action="store_true", help="return once it listens, and leave it running"
    )
    return made


def main(argv: list[str]) -> int:
    found = parser().parse_args(argv)

    listener = keeper.adopt()
    activated = listener is not None
    if listener is None:
        try:
            listener = keeper.listen(found.socket)
        except (OSError, Busy) as error:
            complain(f"dhcp-keeper: listen at {found.socket}: {describe(error)}")
            return 1
    if listener is None:
        if not found.background:
            complain(f"dhcp-keeper: another one listens at {found.socket} already")
        return 0 if found.background else 1
    if found.background and not keeper.into_background(listener):
        return 0
    try:
        keeper.keep(listener, timeout=found.timeout, linger=found.linger)
    finally:
        if not activated:
            os.unlink(found.socket)
    return 0


def _path(text: str) -> str:
    path = os.path.abspath(text)
    if not ask.is_path(path):
        raise argparse.ArgumentTypeError(f"{text!r} is too long for a socket's path")
    return path


def _seconds(text: str) -> float:
    try:
        value = float(text)
        if 0 < value < 1e6:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
