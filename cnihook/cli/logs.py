# SPDX-License-Identifier: Apache-2.0
"""cnihook logs: print what happened to a container's network."""

import argparse
import datetime
import json
import sys
import time

from cnihook import log
from cnihook.cli.shared import arguments, containers, spans, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.log import Log
from cnihook.types.errors import UNKNOWN_CONTAINER, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DESCRIPTION = """\
Print what happened to a container's network.  Each event is a line: date and time, time since the hook's
start, what happened.  A container that is attached again keeps its history.

Without CONTAINER, prints the events of all containers by time, each with its container's ID.  The logs of
the last hundred containers that have ended are kept, with the traffic of each interface.  With
CNIHOOK_TIMING=1 in its environment, the hook also logs the time of each step.
"""
EPILOG = """\
TIME is a time ago, such as 90s, 10m, 1h30m or 2d; or a date, such as 2026-11-30 or 2026-11-30T10:00:00.

keys of an event with --json, one object per line:
  container     its ID
  time          date and time, of this machine's time zone
  milliseconds  time since the hook's start
  text          what happened
  fields        values of the event, by name; null for most events
"""

_PAUSE = 0.2  # seconds between two reads of --follow
_LENGTH_OF_TIME = 23  # characters: 2026-11-30T10:00:00.123


class Event:
    """One line of a log.  `time` is the first part of it, so texts are in the order of times."""

    def __init__(self, container: str, line: str) -> None:
        self.container = container
        self.line, _, data = line.partition("\t{")
        self.time = self.line[:_LENGTH_OF_TIME]
        self.fields: dict[str, Any] | None = None
        if data:
            try:
                self.fields = json.loads(f"{{{data}")
            except (ValueError, RecursionError):
                pass  # the disk was full, or another program has written it

    @property
    def is_failure(self) -> bool:
        return self.fields is not None and self.fields.get("event") == log.FAILED

    def text(self, *, with_container: bool) -> str:
        if not with_container:
            return self.line
        stamp, _, event = self.line.partition(" ")
        return f"{stamp} {self.container} {event.strip()}"

    def to_json(self) -> "dict[str, Any]":
        elapsed, _, text = self.line[_LENGTH_OF_TIME:].partition(" ms  ")
        try:
            milliseconds = float(elapsed)
        except ValueError:
            milliseconds, text = None, self.line
        return {
            "container": self.container,
            "time": self.time,
            "milliseconds": milliseconds,
            "text": text,
            "fields": self.fields,
        }


def parser() -> Parser:
    parser = Parser("logs", DESCRIPTION, EPILOG)
    parser.add_container(nargs="?", default="all")
    parser.add_argument("-f", "--follow", action="store_true", help="continue with new events, until Ctrl-C")
    parser.add_argument("-n", "--tail", metavar="N", type=_count, help="print only the last N events")
    parser.add_argument("--since", metavar="TIME", type=_since, help="print no earlier events")
    parser.add_argument("--failed", action="store_true", help="print only failures")
    parser.add_argument("--json", action="store_true", help="print each event as a line of JSON")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of events")
    return int(text)


def _since(text: str) -> str:
    """Return a time as logs have it."""
    age = spans.seconds(text)
    if age is not None:
        moment = datetime.datetime.fromtimestamp(max(time.time() - age, 0))
    else:
        try:
            moment = datetime.datetime.fromisoformat(text).astimezone()
        except (ValueError, OverflowError):
            raise argparse.ArgumentTypeError(f"{text!r} is not a time, such as 10m or 2026-11-30") from None
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:_LENGTH_OF_TIME]


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    if options.id:
        options.id = containers.among(options.id, _all())
    if options.follow:
        _follow(options)
    else:
        texts = {options.id: _read(options.id)} if options.id else {name: _text(name) for name in _all()}
        _print(options, texts)
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


def _print(options: argparse.Namespace, texts: "dict[str, str]") -> None:
    """Print the events that are selected; those of several containers by time."""
    events = [Event(name, line) for name, text in texts.items() for line in text.split("\n") if line]
    if not options.id:
        events.sort(key=lambda event: (event.line, event.container))
    events = [
        event
        for event in events
        if event.time >= (options.since or "") and (event.is_failure or not options.failed)
    ]
    for event in events if options.tail is None else events[max(len(events) - options.tail, 0) :]:
        if options.json:
            print(json.dumps(event.to_json()).replace("\x7f", "\\u007f"))
        else:
            arguments.say(event.text(with_container=not options.id))


def _follow(options: argparse.Namespace) -> None:
    """Print new events until Ctrl-C, also if one log of a container ends and another begins."""
    living = log.names()
    before = {name: _text(name) for name in log.finished() if name not in living and name != options.id}
    while True:
        # Ended ones, too: a container may have started and ended since the last read.
        present = [options.id] if options.id else _all()
        texts = {name: _text(name) for name in present}
        _print(options, {name: _beyond(before.get(name, ""), text) for name, text in texts.items()})
        options.tail = None  # it is about the events so far
        sys.stdout.flush()
        before = texts
        terminal.wait(_PAUSE)


def _beyond(before: str, text: str) -> str:
    """Return the lines of `text` that are not in `before`; all of them if another log has begun."""
    return text.removeprefix(before) if text.startswith(before) else text
