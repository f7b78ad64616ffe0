# SPDX-License-Identifier: Apache-2.0
"""cnihook logs: what happened to a container's network."""

import sys

from cnihook import log
from cnihook.cli import arguments, terminal
from cnihook.cli.arguments import Parser
from cnihook.log import Log
from cnihook.spec.errors import UNKNOWN_CONTAINER, CniError
from cnihook.spec.names import check_container_id

DESCRIPTION = """\
Print what happened to a container's network, a line per event: when, how long after the hook's start, what.

Without ID, the events of all containers, in the order of time, each with its container's ID.  The logs of
the last hundred that have ended are kept, with what went through each interface.
"""

_PAUSE = 0.2  # seconds between two looks of --follow


def parser() -> Parser:
    made = Parser("logs", DESCRIPTION)
    made.add_argument(
        "id",
        metavar="ID",
        nargs="?",
        type=arguments.checked(check_container_id),
        help="the container's (default: all)",
    )
    made.add_argument(
        "-f", "--follow", action="store_true", help="go on with what happens from now on, until Ctrl-C"
    )
    return made


def main(argv: list[str]) -> int:
    found = parser().parse_args(argv)
    if found.follow:
        _follow(found.id)
    elif found.id:
        arguments.say(_read(found.id).removesuffix("\n"))
    else:
        for line in _in_order({name: _text(name) for name in _all()}):
            arguments.say(line)
    return 0


def _read(name: str) -> str:
    try:
        return Log(name).read()
    except FileNotFoundError:
        others = ", ".join(_all())
        raise CniError(
            UNKNOWN_CONTAINER,
            f"nothing is on record of container {name}",
            f"there is something of {others}" if others else "",
        ) from None


def _all() -> "list[str]":
    return sorted({*log.names(), *log.finished()})


def _text(name: str) -> str:
    try:
        return Log(name).read()
    except FileNotFoundError:
        return ""  # its container ended just now


def _in_order(texts: "dict[str, str]") -> "list[str]":
    """The lines of all, each with its container's ID."""
    lines = [(line, name) for name, text in texts.items() for line in text.split("\n") if line]
    told = []
    for line, name in sorted(lines):  # each begins with its time
        stamp, _, event = line.partition(" ")
        told.append(f"{stamp} {name} {event.strip()}")
    return told


def _follow(only: "str | None") -> None:
    """Until Ctrl-C, through the end of a log and the beginning of another of the same container."""
    living = log.names()
    told = {name: _text(name) for name in log.finished() if name not in living and name != only}
    while True:
        # Those that have ended, too: one may have come and gone since the last look.
        present = [only] if only else _all()
        texts = {name: _text(name) for name in present}
        fresh = {name: _beyond(told.get(name, ""), text) for name, text in texts.items()}
        lines = list(filter(None, fresh[only].split("\n"))) if only else _in_order(fresh)
        for line in lines:
            arguments.say(line)
        sys.stdout.flush()
        told = texts
        terminal.wait(_PAUSE)


def _beyond(told: str, text: str) -> str:
    """What of a log's text has not been told, in whole lines; all of it if the log is a new one."""
    return text.removeprefix(told) if text.startswith(told) else text
