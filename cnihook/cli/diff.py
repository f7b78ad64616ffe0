# SPDX-License-Identifier: Apache-2.0
"""cnihook diff: show how edited network files differ from what their containers have."""

import argparse

from cnihook.cli.shared import arguments, behind, table, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.behind import Behind
from cnihook.cli.shared.table import Cell, Column
from cnihook.container import repair
from cnihook.container.edited import Difference
from cnihook.linux.flock import LockBusyError
from cnihook.log import warn
from cnihook.protocol import locks
from cnihook.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DESCRIPTION = f"""\
Show how the files of networks differ from what their containers were attached with.  Editing a file changes
nothing by itself: new containers get the new file, and those that run keep what they have until `cnihook
apply`.  Each key that differs has a line for each container.  A key without a value is shown as -.

{behind.CHANGES}
The containers are compared with the kernel, too.  What differs there is reported on stderr.
"""
EPILOG = """\
keys of an attachment with --json:
  container, name, network, ifname, file, revision
  differences  plugin (its place in the network, null for a key of the network
               itself), type, key, record, file, change
  kernel       what a plugin finds missing, as text

exit codes:
  0  no difference
  1  rejected or failed
  2  something differs, or wrong usage
"""
_COLUMNS = (
    Column("NETWORK", low=8, names=True),
    Column("CONTAINER", low=9, names=True),
    Column("KEY", low=12, names=True),
    Column("RECORD", low=8),
    Column("FILE", low=8),
    Column("CHANGE"),
)


def parser() -> Parser:
    parser = Parser("diff", DESCRIPTION, EPILOG)
    behind.add_network(parser)
    parser.add_argument(
        "--json", action="store_true", help="print the attachments that differ as a list of JSON objects"
    )
    parser.add_conf_dir()
    parser.add_plugin_dirs()
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    differing: list[Behind] = []

    def work() -> None:
        differing.extend(behind.load(options))
        kernel = [_kernel(one, options) for one in differing]
        if options.json:
            arguments.print_json(
                [each.to_json() | {"kernel": texts} for each, texts in zip(differing, kernel, strict=True)]
            )
            return
        if differing:
            table.show(_COLUMNS, [_cells(one, each) for one in differing for each in one.differences])
        else:
            terminal.remark("no container differs from the file of its network")
        for one, texts in zip(differing, kernel, strict=True):
            for text in texts:
                hint = f"`cnihook repair {one.row.shown}` restores it"
                warn(f"diff: {one.row.shown}, {one.row.network} {one.row.ifname}: {text}; {hint}")

    return arguments.work("diff", work) or (2 if differing else 0)


def _cells(one: Behind, difference: Difference) -> "list[Cell]":
    values = (difference.record, difference.file)
    return [
        Cell(one.row.network),
        Cell(one.row.shown),
        Cell(difference.key),
        *(Cell("" if value is None else _text(value)) for value in values),
        Cell(difference.change, behind.COLOURS[difference.change]),
    ]


def _text(value: "Any") -> str:
    """Return a value as JSON, but a string as it is.  Spaces are replaced, except on a terminal."""
    text = value if isinstance(value, str) else arguments.as_json(value, None)
    return text if terminal.is_terminal() else text.replace(" ", "_" if isinstance(value, str) else "")


def _kernel(one: Behind, options: argparse.Namespace) -> "list[str]":
    """Return what the kernel lacks of what is on record; nothing if that cannot be examined now."""
    try:
        with locks.container(one.row.container, "diff", timeout=0):
            return repair.find_problems(one.row.record, arguments.settings_of(options).plugin_dirs)
    except (LockBusyError, CniError, OSError):
        return []
