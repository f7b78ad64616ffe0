# SPDX-License-Identifier: Apache-2.0
"""cnihook ps: list which containers are on which networks."""

import argparse
import os
import sys
import textwrap
from collections.abc import Iterator

from cnihook.cli.shared import arguments, containers, listing, live, selection, table, template, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.listing import Row
from cnihook.cli.shared.table import Cell, Column
from cnihook.cli.shared.template import Template
from cnihook.runtime.network_map import Networks
from cnihook.runtime.settings import Settings
from cnihook.types.names import check_network_name

DESCRIPTION = """\
List the attachments: container, process, network, interface, addresses, published ports, age and state.
Each network of a container has a line.  A container is listed by its name in docker, podman or nerdctl, a
pod of Kubernetes as NAMESPACE/NAME, else by its ID; -q and --json print the ID.  On a narrow terminal,
IFNAME, PID and AGE are left out first.  A network that is the loopback link, such as containerd's
cni-loopback, is listed only if --network or --filter selects it, or if the container has no other.

A state with a * marks an attachment that lacks what the network's file has now, because the file was edited
since.  `cnihook diff` shows the differences, `cnihook apply` makes them.

{states}"""

EPILOG = """\
{template}
{selection}
The names for --format, --filter and --sort are:

{names}

With --watch on a terminal, the list is refreshed until q or Ctrl-C.  Elsewhere, it is printed again after
each change.

exit codes:
  0  all records could be read
  1  a record is damaged; it is reported on stderr; or no such container or
     network
  2  wrong usage
"""

NAMES = (
    "container",
    "name",
    "pod",
    "pid",
    "alive",
    "network",
    "ifname",
    "addresses",
    "ports",
    "since",
    "age",
    "state",
    "behind",
    "netns",
)


def parser() -> Parser:
    epilog = EPILOG.format(
        template=template.HELP,
        selection=selection.HELP,
        names=textwrap.fill(", ".join(NAMES), 76, initial_indent="  ", subsequent_indent="  "),
    )
    parser = Parser("ps", DESCRIPTION.format(states=listing.STATES), epilog)
    parser.add_argument(
        "ids",
        metavar="CONTAINER",
        nargs="*",
        type=arguments.checked(containers.check_name),
        help="list only these containers",
    )
    parser.add_argument(
        "--network",
        metavar="NAME",
        type=arguments.checked(check_network_name),
        help="list only this network",
    )
    selection.add_arguments(parser, NAMES)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print all of it as JSON")
    form.add_argument(
        "--format", metavar="TEMPLATE", type=_template, help="print each line by this template"
    )
    form.add_argument("-q", "--quiet", action="store_true", help="print only the containers' IDs, each once")
    parser.add_argument("--no-trunc", action="store_true", help="leave out and cut nothing on a terminal")
    parser.add_argument("-w", "--watch", action="store_true", help="continue until Ctrl-C")
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=arguments.interval,
        default=1.0,
        help="time between two looks of --watch (default: 1)",
    )
    return parser


def _template(text: str) -> Template:
    try:
        return Template(text, NAMES)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    listed = _listed(options)
    if options.watch and terminal.is_terminal():
        live.show(_screens(options), options.interval)
    else:
        _print(options, listed)
        while options.watch:
            sys.stdout.flush()
            terminal.wait(options.interval)
            before, listed = listed, _listed(options)
            if list(map(_without_age, listed)) != list(map(_without_age, before)):
                _print(options, listed)
    return 1 if listing.complain_of_damaged() else 0


def _listed(options: argparse.Namespace) -> "list[Row]":
    """Return what is to be listed.  Raises CniError if a container or the network does not exist."""
    if options.ids:
        listed = [one for container_id in options.ids for one in listing.of_container(container_id)]
    else:
        listed = listing.load()
    if options.network and all(one.network != options.network for one in listed):
        Networks(Settings.from_environment(os.environ).conf_dir)[options.network]
    selected = selection.select(options, [one for one in listed if options.network in (None, one.network)])
    return listing.without_loopback(selected)


def _without_age(one: Row) -> "dict[str, object]":
    return {**one.to_json(), "age": None}


def _screens(options: argparse.Namespace) -> "Iterator[list[str]]":
    while True:
        yield table.render(_COLUMNS, _rows(_listed(options)), terminal.style(), terminal.width())


def _print(options: argparse.Namespace, listed: "list[Row]") -> None:
    if options.json:
        arguments.print_json([one.to_json() for one in listed])
    elif options.format:
        options.format.print([one.to_json() for one in listed])
    elif options.quiet:
        for container in dict.fromkeys(one.container for one in listed):
            arguments.say(container)
    else:
        table.show(_COLUMNS, _rows(listed), sys.maxsize if options.no_trunc else 0)


_COLUMNS = (
    Column("CONTAINER", low=16, names=True),
    Column("PID", right=True, drop=2),
    Column("STATE"),
    Column("NETWORK", low=8, names=True),
    Column("IFNAME", drop=3),
    Column("ADDRESSES", low=18),
    Column("PORTS", low=14),
    Column("AGE", right=True, drop=1),
)


def _rows(listed: "list[Row]") -> "list[list[Cell]]":
    return [
        [
            Cell(one.shown),
            Cell(one.pid or ""),
            Cell(f"{one.state}{'*' if one.is_behind else ''}", listing.COLOURS[one.state]),
            Cell(one.network),
            Cell(one.ifname),
            Cell(",".join(one.addresses)),
            Cell(",".join(one.ports)),
            Cell(listing.span(one.age), "dim"),
        ]
        for one in listed
    ]
