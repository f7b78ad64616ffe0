# SPDX-License-Identifier: Apache-2.0
"""cnihook policy test: run the tests of the policies."""

import argparse

from cnihook.cli.policies import apply
from cnihook.cli.shared import arguments, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.log import warn
from cnihook.policy import change, live
from cnihook.protocol import locks

DESCRIPTION = """\
Run the tests in the policies, with the containers that run now.  With SOURCE, as if that was applied.

With --live, a packet is sent for each TCP test from a container of this host, too.  An answer shows that it
was allowed; a refusal by the destination is an answer.
"""
EPILOG = """\
exit codes:
  0  all tests pass
  1  a test fails
  2  wrong usage
"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="a file, a folder, or - for stdin")
    parser.add_argument("--live", action="store_true", help="also connect, from the containers")


def run(options: argparse.Namespace) -> int:
    with locks.policy("policy test"):
        planned = apply.planned(options.source)
    apply.refuse_broken(planned)
    world = change.world()
    failures = change.failures(planned.after, world)
    if options.live:
        failures += live.failures(planned.after, world)
    for line in failures:
        warn(f"policy test: {line}")
    number = sum(len(one.tests) for one in planned.after.all)
    if not number:
        terminal.remark("no policy has tests")
    elif not failures:
        arguments.say(f"{number} tests pass" if number > 1 else "1 test passes")
    return 1 if failures else 0
