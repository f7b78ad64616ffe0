# SPDX-License-Identifier: Apache-2.0
"""cnihook sticky rm: release what is kept for sticky names."""

import argparse

from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.fast.errors_text import message_with_hint
from cnihook.ipam import sticky
from cnihook.log import warn
from cnihook.protocol import locks
from cnihook.types.errors import INVALID_CONFIG, CniError
from cnihook.types.names import check_sticky_name

DESCRIPTION = """\
Release what is kept for sticky names, and print the names.  A container that has the addresses now keeps
them until it ends.
"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+", help="a sticky name")


def run(options: argparse.Namespace) -> int:
    code = 0
    for name in options.names:
        try:
            _remove(name)
        except (CniError, OSError) as error:
            code = 1
            warn(f"sticky rm: {message_with_hint(error)}")
    return code


def _remove(name: str) -> None:
    check_sticky_name(name)
    with locks.sticky(name, "sticky rm"):
        if not sticky.remove(name):
            raise CniError(
                INVALID_CONFIG, f"nothing is kept for {name}", "`cnihook sticky ls` lists the names"
            )
    arguments.say(name)
