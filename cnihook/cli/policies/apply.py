# SPDX-License-Identifier: Apache-2.0
"""cnihook policy apply: put policies in force."""

import argparse
import os
import sys

from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.log import warn
from cnihook.policy import change, document, enforcement, store
from cnihook.policy.change import Change
from cnihook.policy.endpoint import World
from cnihook.protocol import locks
from cnihook.types.errors import CniError, invalid_config

DESCRIPTION = """\
Put policies in force for all containers, also for those that run, and print a line for each policy that
changes.  Without SOURCE, put the files of /etc/cnihook/policy.d in force as they are.

SOURCE is a file with a policy, or with a list of policies, or `-` for stdin; of cnihook, or NetworkPolicy of
Kubernetes, as JSON.  A file NAME.toml has one policy, as TOML.  If SOURCE is a folder, policies that were
applied from this folder and are not in it any more are removed.

The tests in the policies run first.  If one fails, nothing is changed.
"""
EPILOG = """\
exit codes:
  0  done, or nothing to change
  1  rejected or failed; nothing is changed
  2  wrong usage; with --dry-run: there is something to change
"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="a file, a folder, or - for stdin")
    add_cut(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would change, and change nothing")


def add_cut(parser: Parser) -> None:
    parser.add_argument("--cut", action="store_true", help="end the connections that are denied from now on")


def planned(source: "str | None") -> Change:
    """Return the change that a source makes.  Raises CniError."""
    if source is None:
        return Change([])
    warnings: list[str]
    if source == "-":
        policies, warnings = change.read("stdin", sys.stdin.buffer.read(document.LONGEST + 1))
        removed: set[str] = set()
    elif os.path.isdir(source):
        policies, warnings, removed = change.read_folder(source)
    else:
        policies, warnings = change.read(source, store.content(source))
        removed = set()
    for text in warnings:
        warn(f"policy: {text}")
    return Change(policies, removed)


def run(options: argparse.Namespace) -> int:
    with locks.policy("policy apply"):
        code = carry_out(planned(options.source), cut=options.cut, dry_run=options.dry_run)
    enforcement.sync_late_starts()
    return code


def carry_out(planned: Change, *, cut: bool, dry_run: bool = False) -> int:
    """Make the change, print its lines, and return the exit code.  The caller holds the lock `policy`."""
    lines = planned.lines()
    refuse_broken(planned)
    world = change.world()
    failures = change.failures(planned.after, world)
    if failures:
        for line in failures:
            warn(f"policy: {line}")
        raise invalid_config(f"{len(failures)} tests of policies fail; nothing is changed")
    differences = change.lines_of(change.differences(planned.after))
    new_bridges = planned.new_bridges()
    if not dry_run:
        planned.apply()
    for line in lines or differences:
        arguments.say(line)
    for name in new_bridges:
        arguments.say(
            f"bridge {name}: connections between its containers that the policies do not allow end, because "
            "the host did not see them before"
        )
    denied = change.denied_flows(planned.after, world)
    is_cut = cut or any(one.existing == "cut" for one in planned.new)
    if denied:
        _report(denied, planned, world, is_cut=is_cut, dry_run=dry_run)
        if is_cut and not dry_run:
            change.cut(flow for flow, _connection in denied)
    return 2 if dry_run and (lines or differences) else 0


def refuse_broken(planned: Change) -> None:
    for one in planned.after.broken:
        raise CniError(one.error.code, one.error.msg, one.error.details)


def _report(
    denied: "change.DeniedFlows", planned: Change, world: World, *, is_cut: bool, dry_run: bool
) -> None:
    for _flow, connection in denied:
        arguments.say(f"established: {connection.source} -> {connection}")
    if dry_run:
        arguments.say(f"established connections that are denied then: {len(denied)}")
    else:
        arguments.say(change.denied_text(denied, planned.after, world, is_cut=is_cut))
