# SPDX-License-Identifier: Apache-2.0
"""cnihook network ls: list the networks."""

import argparse

from cnihook.cli.networks.filters import Filters
from cnihook.cli.networks.view import View
from cnihook.cli.shared import arguments, listing, table, template
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.table import Cell, Column
from cnihook.log import warn
from cnihook.runtime import networks
from cnihook.runtime.networks import Network
from cnihook.runtime.settings import Settings
from cnihook.types.errors import CniError

DESCRIPTION = """\
List the networks, with their drivers, their subnets and the number of their containers.
"""
EPILOG = """\
TEMPLATE is a template of Go, as docker takes it: '{{.Name}} {{.Driver}}'; with a heading it is
'table {{.Name}}\\t{{.Subnets}}'.  There are .ID, .Name, .Driver, .Subnets, .Containers, .Internal, .IPv6,
.Labels, .CreatedAt and .Scope.

exit codes:
  0  every file is a network
  1  a file is not a network; it is reported on stderr
  2  wrong usage
"""
_KEYS = ("name", "id", "driver", "label", "label!", "dangling")
_COLUMNS = (
    Column("NETWORK ID"),
    Column("NAME", low=8),
    Column("DRIVER"),
    Column("SUBNETS", low=18),
    Column("CONTAINERS", right=True),
)


def add_arguments(parser: Parser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--format", metavar="json|TEMPLATE", help="print a line of JSON, or of a template, for each network"
    )
    form.add_argument("-q", "--quiet", action="store_true", help="print only the IDs")
    parser.add_argument("--no-trunc", action="store_true", help="print whole IDs")
    parser.add_argument(
        "-f",
        "--filter",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="only networks with: name, id, driver, label=KEY[=VALUE], label!=KEY[=VALUE],"
        " dangling=true|false, repeatable",
    )
    parser.add_conf_dir()
    parser.add_plugin_dirs()


def load(settings: Settings) -> "tuple[list[Network], list[CniError]]":
    """Return the networks, or the built-in one if none is configured, and the files that are not used."""
    present, problems = networks.load_folder(settings.conf_dir)
    return present if present or problems else [networks.built_in()], problems


def views(present: "list[Network]") -> "list[View]":
    rows = listing.load()
    return [View(network, [row for row in rows if row.network == network.name]) for network in present]


def run(options: argparse.Namespace) -> int:
    filters = Filters(options.filter, _KEYS)
    present, problems = load(arguments.settings_of(options))
    listed = [view for view in views(present) if filters.match(view)]
    lines = [view.summary() | ({"ID": view.id} if options.no_trunc else {}) for view in listed]
    if options.quiet:
        for line in lines:
            print(line["ID"])
    elif options.format == "json":
        for line in lines:
            print(arguments.as_json(line, None))
    elif options.format is not None:
        template.show(options.format, lines)
    else:
        _show(listed, lines)
    for problem in problems:
        warn(f"network ls: {problem}")
    return 1 if problems else 0


def _show(listed: "list[View]", lines: "list[dict[str, str]]") -> None:
    rows = [
        [
            Cell(line["ID"]),
            Cell(view.name),
            Cell(view.driver),
            Cell(line["Subnets"]),
            Cell(str(len(view.containers))),
        ]
        for view, line in zip(listed, lines, strict=True)
    ]
    table.show(_COLUMNS, rows)
