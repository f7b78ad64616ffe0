# SPDX-License-Identifier: Apache-2.0
"""The commands that are keepers: their common options, and their start."""

import argparse
import os
import socket
from collections.abc import Callable

from cnihook.cli.shared.arguments import Parser
from cnihook.fast.errors_text import message_with_notes
from cnihook.keeper import server
from cnihook.keeper.client import is_path
from cnihook.linux.flock import LockBusyError
from cnihook.log import warn


def parser(command: str, description: str, path: str, where: str, idle: str) -> Parser:
    """Return a parser.  `path` is the default of --socket, `where` what sets another; `idle`: no work."""
    parser = Parser(command, description)
    parser.add_argument(
        "--socket",
        metavar="PATH",
        type=_path,
        default=path,
        help=f"socket to listen at{where} (default: {path})",
    )
    parser.add_argument(
        "--linger",
        metavar="SECONDS",
        type=seconds,
        default=server.LINGER,
        help=f"time until it exits if it has no {idle} (default: %(default)g)",
    )
    parser.add_argument(
        "--background", action="store_true", help="run it in the background, and return once it listens"
    )
    return parser


def run(command: str, options: argparse.Namespace, make: "Callable[[socket.socket], server.Daemon]") -> int:
    """Run the keeper that `make` returns for a socket, or return 0 if --background finds another one."""
    listener = server.adopt()
    activated = listener is not None
    if listener is None:
        try:
            listener = server.listen(options.socket)
        except (OSError, LockBusyError) as error:
            warn(f"{command}: listen at {options.socket}: {message_with_notes(error)}")
            return 1
    if listener is None:
        if not options.background:
            warn(f"{command}: another daemon listens at {options.socket} already")
        return 0 if options.background else 1
    if options.background and not server.into_background(listener):
        return 0
    try:
        server.keep(make(listener))
    finally:
        if not activated:
            os.unlink(options.socket)
    return 0


def seconds(text: str) -> float:
    try:
        value = float(text)
        if 0 < value < 1e6:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")


def _path(text: str) -> str:
    path = os.path.abspath(text)
    if not is_path(path):
        raise argparse.ArgumentTypeError(f"{text!r} is too long for a socket's path")
    return path
