# SPDX-License-Identifier: Apache-2.0
"""cnihook ps: list which containers are on which networks."""

import argparse
import string
import textwrap

from cnihook.cli.shared import arguments, listing, table
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.listing import Row
from cnihook.cli.shared.table import Cell, Column
from cnihook.fast.errors_text import printable
from cnihook.types.names import check_network_name

DESCRIPTION = """\
List the attachments: container, process, network, interface, addresses, published ports, age and state.
Each network of a container has a line.  A container is listed by its name in docker, podman or nerdctl, a
pod of Kubernetes as NAMESPACE/NAME, else by its ID; -q and --json print the ID.

{states}"""

EPILOG = """\
TEMPLATE contains names in braces, as in --format '{{container}} {{addresses}}'.  \\t and \\n are a tab and a
new line.  The names are:

{names}

exit codes:
  0  all records could be read
  1  a record is damaged; it is reported on stderr
  2  wrong usage
"""

_NAMES = (
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
    "netns",
)


def parser() -> Parser:
    epilog = EPILOG.format(
        names=textwrap.fill(", ".join(_NAMES), 76, initial_indent="  ", subsequent_indent="  ")
    )
    parser = Parser("ps", DESCRIPTION.format(states=listing.STATES), epilog)
    parser.add_argument(
        "--network",
        metavar="NAME",
        type=arguments.checked(check_network_name),
        help="list only this network",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print all of it as JSON")
    form.add_argument(
        "--format", metavar="TEMPLATE", type=_template, help="print each line by this template"
    )
    form.add_argument("-q", "--quiet", action="store_true", help="print only the containers' IDs, each once")
    return parser


def _template(text: str) -> str:
    try:
        for _, name, spec, _ in string.Formatter().parse(text):
            if name is not None and name not in _NAMES:
                raise ValueError(f"no {{{name}}}; there are: {', '.join(_NAMES)}")
            format("", spec or "")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text.replace("\\t", "\t").replace("\\n", "\n")


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    listed = [one for one in listing.load() if options.network in (None, one.network)]
    if options.json:
        arguments.print_json([one.to_json() for one in listed])
    elif options.format is not None:
        for one in listed:
            print(options.format.format_map({name: _word(value) for name, value in one.to_json().items()}))
    elif options.quiet:
        for container in dict.fromkeys(one.container for one in listed):
            arguments.say(container)
    else:
        _show(listed)
    return 1 if listing.complain_of_damaged() else 0


def _word(value: object) -> str:
    if isinstance(value, list):
        return printable(",".join(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else printable(str(value))


_COLUMNS = (
    Column("CONTAINER", low=12),
    Column("PID", right=True),
    Column("STATE"),
    Column("NETWORK", low=8),
    Column("IFNAME"),
    Column("ADDRESSES", low=18),
    Column("PORTS", low=14),
    Column("AGE", right=True),
)


def _show(listed: "list[Row]") -> None:
    rows = [
        [
            Cell(one.shown),
            Cell(one.pid or ""),
            Cell(one.state, listing.COLOURS[one.state]),
            Cell(one.network),
            Cell(one.ifname),
            Cell(",".join(one.addresses)),
            Cell(",".join(one.ports)),
            Cell(listing.span(one.age), "dim"),
        ]
        for one in listed
    ]
    table.show(_COLUMNS, rows)
