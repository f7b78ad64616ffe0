# SPDX-License-Identifier: Apache-2.0
"""cnihook policy list: list the policies."""

import argparse

from cnihook.cli.shared import arguments, table
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.table import Cell, Column
from cnihook.log import warn
from cnihook.policy import change, store

DESCRIPTION = """\
List the policies of the host, what they select, and how many containers that is now.
"""
EPILOG = """\
exit codes:
  0  every file is a policy
  1  a file is not a policy; it is reported on stderr
  2  wrong usage
"""
_COLUMNS = (
    Column("NAME", low=8),
    Column("SELECTS", low=12),
    Column("DIRECTIONS"),
    Column("MODE"),
    Column("CONTAINERS", right=True),
)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print a list of JSON objects")


def run(options: argparse.Namespace) -> int:
    policies = store.load()
    world = change.world()
    rows = []
    for one in policies.all:
        selected = {each.container_id for each in world.endpoints if each.is_selected(one.selection)}
        directions = [way for way in ("egress", "ingress") if one.lists(way)]
        rows.append((one, directions, sorted(selected)))
    if options.json:
        arguments.print_json(
            [
                {
                    "name": one.name,
                    "selects": str(one.selection),
                    "directions": directions,
                    "mode": one.mode,
                    "containers": selected,
                }
                for one, directions, selected in rows
            ]
        )
    else:
        table.show(
            _COLUMNS,
            [
                [
                    Cell(one.name),
                    Cell(str(one.selection)),
                    Cell(",".join(directions)),
                    Cell(one.mode),
                    Cell(str(len(selected))),
                ]
                for one, directions, selected in rows
            ],
        )
    for broken in policies.broken:
        warn(f"policy list: {broken.error}")
    return 1 if policies.broken else 0
