# SPDX-License-Identifier: Apache-2.0
"""cnihook policy diff: show what apply would change."""

import argparse

from cnihook.cli.policies import apply
from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.policy import change
from cnihook.protocol import locks

DESCRIPTION = """\
Print what `cnihook policy apply` with the same SOURCE would change: policies, and then containers for which
the kernel's rules are not those of their policies.
"""
EPILOG = """\
exit codes:
  0  nothing
  1  rejected or failed
  2  wrong usage, or there are differences
"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="a file, a folder, or - for stdin")


def run(options: argparse.Namespace) -> int:
    with locks.policy("policy diff"):
        planned = apply.planned(options.source)
        apply.refuse_broken(planned)
        lines = [*planned.lines(), *change.lines_of(change.differences(planned.after))]
    for line in lines:
        arguments.say(line)
    return 2 if lines else 0
