# SPDX-License-Identifier: Apache-2.0
"""cnihook unpublish: take published ports of a container that runs back."""

from cnihook.cli.shared import changing
from cnihook.cli.shared.arguments import Parser
from cnihook.container.edits import Change
from cnihook.request import values

DESCRIPTION = f"""\
Take published ports of a container that runs back.  PORT is a port of the host, as `cnihook ps` shows it.

{changing.LASTS}
A port that is not published is not an error.
"""


def parser() -> Parser:
    parser = Parser("unpublish", DESCRIPTION, changing.EPILOG)
    parser.add_container()
    parser.add_argument(
        "ports",
        metavar="PORTS",
        nargs="+",
        type=changing.checked_value(values.parse_host_ports),
        help="[IP:]PORT[/PROTOCOL], such as 8080, 8000-8010, 127.0.0.1:8443, 53/udp",
    )
    changing.add_arguments(parser, cuts=True)
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    change = Change()
    change.publish_rm = [port for ports in options.ports for port in ports]
    return changing.run("unpublish", options, change)
