# SPDX-License-Identifier: Apache-2.0
"""cnihook policy delete: remove policies."""

import argparse

from cnihook.cli.policies import apply
from cnihook.cli.shared.arguments import Parser
from cnihook.fast import similar
from cnihook.policy import enforcement, store
from cnihook.policy.change import Change
from cnihook.protocol import locks
from cnihook.types.errors import UNKNOWN_CONTAINER, CniError

DESCRIPTION = """\
Remove policies.  The containers that they selected have the others only.
"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+", help="the name of a policy")
    apply.add_cut(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would change, and change nothing")


def run(options: argparse.Namespace) -> int:
    with locks.policy("policy delete"):
        present = names()
        for name in options.names:
            if name not in present:
                raise missing(name, present)
        code = apply.carry_out(Change([], options.names), cut=options.cut, dry_run=options.dry_run)
    enforcement.sync_late_starts()
    return code


def names() -> "list[str]":
    """Return the names of the policies; a malformed file counts with the name of the file."""
    policies = store.load()
    broken = [one.path.rpartition("/")[2].removesuffix(".json") for one in policies.broken]
    return [*(one.name for one in policies.all), *broken]


def missing(name: str, present: "list[str]") -> CniError:
    hint = similar.hint(name, present) or "`cnihook policy apply FILE` adds one"
    return CniError(UNKNOWN_CONTAINER, f"no policy {name!r}", hint)
