# SPDX-License-Identifier: Apache-2.0
"""cnihook ps: which containers are on which networks."""

import argparse
import string

from cnihook.cli import arguments, attached, table
from cnihook.cli.arguments import Parser
from cnihook.cli.attached import Attached
from cnihook.cli.table import Cell, Column
from cnihook.lean.words import printable
from cnihook.spec.names import check_network_name

DESCRIPTION = """\
List what is attached: container, process, network, interface, addresses, published ports, age and state, a
line for each network of a container.  A pod of Kubernetes is listed as NAMESPACE/NAME; -q and --json print
its ID.

{states}"""

EPILOG = """\
--format takes names in braces, as in --format '{{container}} {{addresses}}':
{names}
In it, \\t and \\n are a tab and a new line.  A file among the records that is damaged is told on stderr, and
makes the exit code 1.
"""

_NAMES = (
    "container",
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
    epilog = EPILOG.format(names=", ".join(_NAMES))
    made = Parser("ps", DESCRIPTION.format(states=attached.STATES), epilog)
    made.add_argument(
        "--network",
        metavar="NAME",
        type=arguments.checked(check_network_name),
        help="only what is on this one",
    )
    form = made.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="all of it as JSON")
    form.add_argument("--format", metavar="TEMPLATE", type=_template, help="a line of one's own")
    form.add_argument("-q", "--quiet", action="store_true", help="only the containers' IDs, each once")
    return made


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
    found = parser().parse_args(argv)
    listed = [one for one in attached.load() if found.network in (None, one.network)]
    if found.json:
        arguments.print_json([one.to_json() for one in listed])
    elif found.format is not None:
        for one in listed:
            print(found.format.format_map({name: _word(value) for name, value in one.to_json().items()}))
    elif found.quiet:
        for container in dict.fromkeys(one.container for one in listed):
            arguments.say(container)
    else:
        _show(listed)
    return 1 if attached.complain_of_damaged() else 0


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


def _show(listed: "list[Attached]") -> None:
    rows = [
        [
            Cell(one.shown),
            Cell(one.pid or ""),
            Cell(one.state, attached.COLOURS[one.state]),
            Cell(one.network),
            Cell(one.ifname),
            Cell(",".join(one.addresses)),
            Cell(",".join(one.ports)),
            Cell(attached.span(one.age), "dim"),
        ]
        for one in listed
    ]
    table.show(_COLUMNS, rows)
