# SPDX-License-Identifier: Apache-2.0
"""cnihook sticky ls: list what is kept for sticky names."""

import argparse

from cnihook.cli.shared import arguments, table, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.table import Cell, Column
from cnihook.container.sticky import users
from cnihook.fast.errors_text import message_with_hint
from cnihook.ipam import sticky
from cnihook.ipam.sticky import StickyName
from cnihook.log import warn
from cnihook.runtime import attachment
from cnihook.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DESCRIPTION = """\
List what is kept for each sticky name on each network, and the container that has it now.
"""
EPILOG = """\
exit codes:
  0  all are listed
  1  one cannot be read; it is reported on stderr
  2  wrong usage
"""
_COLUMNS = (
    Column("NAME", low=8),
    Column("NETWORK", low=8),
    Column("ADDRESSES", low=12),
    Column("MAC", drop=1),
    Column("CONTAINER", low=12),
)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print a list of JSON objects")


def run(options: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = []
    errors: list[Exception] = []
    for name in sticky.names():
        try:
            if kept := sticky.find(name):
                rows += _rows(kept)
        except (CniError, OSError) as error:
            errors.append(error)
    if options.json:
        arguments.print_json(rows)
    elif rows:
        table.show(_COLUMNS, [_cells(row) for row in rows])
    elif not errors:
        terminal.remark("no sticky name has been used")
    for problem in errors:
        warn(f"sticky ls: {message_with_hint(problem)}")
    return 1 if errors else 0


def _rows(kept: StickyName) -> "list[dict[str, Any]]":
    on = {record.network for record in users(kept) if not attachment.is_gone(record)}
    return [
        {
            "name": kept.name,
            "network": network,
            "ips": one.ips,
            "mac": one.mac,
            "container": kept.container if network in on else "",
        }
        for network, one in sorted(kept.networks.items())
    ]


def _cells(row: "dict[str, Any]") -> "list[Cell]":
    texts = row["name"], row["network"], " ".join(row["ips"]), row["mac"], row["container"]
    return [Cell(text) for text in texts]
