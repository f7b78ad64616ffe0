# SPDX-License-Identifier: Apache-2.0
"""cnihook publish: publish ports of a container that runs."""

from cnihook.cli.shared import changing
from cnihook.cli.shared.arguments import Parser
from cnihook.container.edits import Change
from cnihook.request import values

DESCRIPTION = """\
Publish ports of a container that runs, on ports of the host, as `--publish` does at its start.  Its other
ports, and all its connections, stay as they are.

A port that is published already is left as it is.  PORT alone takes any free port of the host.
"""


def parser() -> Parser:
    parser = Parser("publish", DESCRIPTION, changing.EPILOG)
    parser.add_container()
    parser.add_argument(
        "ports",
        metavar="PORTS",
        nargs="+",
        type=changing.checked_value(values.parse_ports),
        help="[[IP:]PORT:]PORT[/PROTOCOL], such as 8080:80, 127.0.0.1:8443:443, 53:53/udp, 80",
    )
    changing.add_arguments(parser)
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    change = Change()
    change.publish_add = [port for ports in options.ports for port in ports]
    return changing.run("publish", options, change)
