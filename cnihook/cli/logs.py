# SPDX-License-Identifier: Apache-2.0
"""cnihook logs: what happened to a container's network."""

from cnihook import log
from cnihook.cli import arguments
from cnihook.cli.arguments import Parser
from cnihook.log import Log
from cnihook.spec.errors import UNKNOWN_CONTAINER, CniError
from cnihook.spec.names import check_container_id

DESCRIPTION = """\
Print what happened to a container's network, a line per event: when, how long after the hook's start, what.

Without ID, the events of all containers, in the order of time, each with its container's ID.  Of containers
that are gone there is only what failed.
"""


def parser() -> Parser:
    made = Parser("logs", DESCRIPTION)
    made.add_argument("id", metavar="ID", nargs="?", type=arguments.checked(check_container_id))
    return made


def main(argv: list[str]) -> int:
    found = parser().parse_args(argv)
    if found.id:
        print(_read(found.id), end="")
        return 0
    lines = []
    for name in log.names():
        try:
            lines += [(line, name) for line in Log(name).read().splitlines()]
        except FileNotFoundError:
            pass  # its container ended just now
    for line, name in sorted(lines):  # each begins with its time
        stamp, _, event = line.partition(" ")
        print(stamp, name, event.strip())
    return 0


def _read(name: str) -> str:
    try:
        return Log(name).read()
    except FileNotFoundError:
        others = ", ".join(log.names())
        raise CniError(
            UNKNOWN_CONTAINER,
            f"nothing is on record of container {name}",
            f"there is something of {others}" if others else "",
        ) from None
