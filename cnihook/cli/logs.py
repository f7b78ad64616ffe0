# SPDX-License-Identifier: Apache-2.0
"""cnihook logs: print what happened to a container's network."""

import sys

from cnihook import log
from cnihook.cli.shared import arguments, containers, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.log import Log
from cnihook.types.errors import UNKNOWN_CONTAINER, CniError

DESCRIPTION = """\
Print what happened to a container's network.  Each event is a line: date and time, time since the hook's
start, what happened.

Without CONTAINER, prints the events of all containers by time, each with its container's ID.  The logs of
the last hundred containers that have ended are kept, with the traffic of each interface.  With
CNIHOOK_TIMING=1 in its environment, the hook also logs the time of each step.
"""

_PAUSE = 0.2  # seconds between two reads of --follow


def parser() -> Parser:
    parser = Parser("logs", DESCRIPTION)
    parser.add_container(nargs="?", default="all")
    parser.add_argument("-f", "--follow", action="store_true", help="continue with new events, until Ctrl-C")
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    only = containers.among(options.id, _all()) if options.id else None
    if options.follow:
        _follow(only)
    elif only:
        arguments.say(_read(only).removesuffix("\n"))
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
            f"there is no log of container {name}",
            f"there are logs of {others}" if others else "",
        ) from None


def _all() -> "list[str]":
    return sorted({*log.names(), *log.finished()})


def _text(name: str) -> str:
    try:
        return Log(name).read()
    except FileNotFoundError:
        return ""  # its container ended just now


def _in_order(texts: "dict[str, str]") -> "list[str]":
    """Return the lines of all logs by time, each with its container's ID."""
    lines = [(line, name) for name, text in texts.items() for line in text.split("\n") if line]
    events = []
    for line, name in sorted(lines):  # each begins with its time
        stamp, _, event = line.partition(" ")
        events.append(f"{stamp} {name} {event.strip()}")
    return events


def _follow(only: "str | None") -> None:
    """Print new events until Ctrl-C, also if one log of a container ends and another begins."""
    living = log.names()
    before = {name: _text(name) for name in log.finished() if name not in living and name != only}
    while True:
        # Ended ones, too: a container may have started and ended since the last read.
        present = [only] if only else _all()
        texts = {name: _text(name) for name in present}
        fresh = {name: _beyond(before.get(name, ""), text) for name, text in texts.items()}
        lines = list(filter(None, fresh[only].split("\n"))) if only else _in_order(fresh)
        for line in lines:
            arguments.say(line)
        sys.stdout.flush()
        before = texts
        terminal.wait(_PAUSE)


def _beyond(before: str, text: str) -> str:
    """Return the lines of `text` that are not in `before`; all of them if another log has begun."""
    return text.removeprefix(before) if text.startswith(before) else text
