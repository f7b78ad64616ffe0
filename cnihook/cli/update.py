# SPDX-License-Identifier: Apache-2.0
"""cnihook update: change ports and limits of a container that runs."""

from cnihook.cli.shared import changing
from cnihook.cli.shared.arguments import Parser
from cnihook.container.change import Change
from cnihook.request import values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DESCRIPTION = f"""\
Change the networks of a container that runs, in one step: all that is requested, or nothing.

{changing.LASTS}"""


def parser() -> Parser:
    parser = Parser("update", DESCRIPTION, changing.EPILOG)
    parser.add_container()
    _add_list(
        parser,
        "publish-add",
        values.parse_ports,
        "[[IP:]PORT:]PORT[/PROTOCOL]: publish a port on a port of the host",
    )
    _add_list(
        parser,
        "publish-rm",
        values.parse_host_ports,
        "[IP:]PORT[/PROTOCOL]: take a published port of the host back",
    )
    parser.add_argument(
        "--bandwidth",
        metavar="LIMITS",
        type=changing.checked_value(_limits),
        help="in=RATE,out=RATE: bits per second, instead of all limits that it has; none: no limit",
    )
    changing.add_arguments(parser, cuts=True)
    return parser


def _add_list(parser: Parser, name: str, parse: "Any", purpose: str) -> None:
    parser.add_argument(
        f"--{name}",
        metavar="PORTS",
        action="append",
        default=[],
        type=changing.checked_value(parse),
        help=f"{purpose}, repeatable",
    )


def _limits(text: str) -> "dict[str, int]":
    return {} if text == "none" else values.parse_bandwidth(text)


def main(argv: list[str]) -> int:
    usage = parser()
    options = usage.parse_args(argv)
    change = Change()
    change.publish_add = [port for ports in options.publish_add for port in ports]
    change.publish_rm = [port for ports in options.publish_rm for port in ports]
    change.bandwidth = options.bandwidth
    if change == Change():
        usage.error("nothing to change: give at least one of the options for a change")
    return changing.run("update", options, change)
