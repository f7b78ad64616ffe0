# SPDX-License-Identifier: Apache-2.0
"""cnihook update: change ports and limits of a container that runs."""

from cnihook.cli.shared import changing
from cnihook.cli.shared.arguments import Parser
from cnihook.container.change import Change
from cnihook.request import emulation, quota, values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_NONE, _RESET = "none", "reset"  # values of options

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
    for name, metavar, parse, purpose in (
        (
            "bandwidth",
            "LIMITS",
            values.parse_bandwidth,
            "in=RATE,out=RATE: bits per second, instead of all limits that it has; none: no limit",
        ),
        (
            "emulate",
            "EFFECTS",
            emulation.parse,
            "delay=TIME,loss=SHARE,...: a bad network, instead of the one that is emulated; none: none",
        ),
        (
            "quota",
            "LIMITS",
            _parse_quota,
            "out=BYTES,in=BYTES,total=BYTES instead of its quota, and the count continues; reset: the count "
            "begins with 0; none: no quota",
        ),
    ):
        parser.add_argument(
            f"--{name}", metavar=metavar, type=changing.checked_value(_or_none(parse)), help=purpose
        )
    for name, purpose in (("egress", "may open"), ("ingress", "may accept")):
        parser.add_argument(
            f"--{name}",
            metavar="LIST",
            help=f"the connections that it {purpose}, such as dns,10.0.0.0/8:5432/tcp; none: no connection; "
            "all: no limit.  Without --network, on all its networks",
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


def _or_none(parse: "Callable[[str], Any]") -> "Callable[[str], Any]":
    return lambda text: {} if text == _NONE else parse(text)


def _parse_quota(text: str) -> "dict[str, int] | str":
    return text if text == _RESET else quota.parse(text)


def main(argv: list[str]) -> int:
    usage = parser()
    options = usage.parse_args(argv)
    change = Change()
    change.publish_add = [port for ports in options.publish_add for port in ports]
    change.publish_rm = [port for ports in options.publish_rm for port in ports]
    change.resets_quota = options.quota == _RESET
    limits = {name: getattr(options, name) for name in ("bandwidth", "emulate", "quota")}
    change.limits = {name: value for name, value in limits.items() if value not in (None, _RESET)}
    lists = {name: getattr(options, name) for name in ("egress", "ingress")}
    change.lists = {name: text for name, text in lists.items() if text is not None}
    if change.lists and options.seconds:
        usage.error("--egress and --ingress cannot be limited in time: give --for with other changes")
    if change == Change():
        usage.error("nothing to change: give at least one of the options for a change")
    return changing.run("update", options, change)
