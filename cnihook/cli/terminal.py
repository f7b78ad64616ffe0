# SPDX-License-Identifier: Apache-2.0
"""What stdout is: a terminal with colours and a width, or something that reads plain text."""

import os
import select
import shutil
import sys

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}


class Style:
    """Colours, where they are wanted: on a terminal, unless NO_COLOR (https://no-color.org) is set."""

    def __init__(self, colours: bool) -> None:
        self.colours = colours

    def __call__(self, text: str, *names: str) -> str:
        if not (self.colours and text and any(names)):
            return text
        return f"\033[{';'.join(_CODES[name] for name in names if name)}m{text}\033[0m"


def is_terminal() -> bool:
    return sys.stdout.isatty()


def style() -> Style:
    return Style(is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")


def size() -> "tuple[int, int]":
    """(columns, rows) of the terminal; COLUMNS and LINES go before what it says itself."""
    found = shutil.get_terminal_size()
    return max(found.columns, 20), max(found.lines, 5)


def width() -> int:
    """The columns of the terminal; no limit where stdout is none."""
    return size()[0] if is_terminal() else sys.maxsize


def draws_lines() -> bool:
    """Whether stdout takes more than ASCII."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def wait(seconds: float) -> None:
    """Let time pass; BrokenPipeError as soon as nobody reads stdout any more."""
    poll = select.poll()
    poll.register(1, 0)
    if poll.poll(seconds * 1000):
        raise BrokenPipeError("stdout is closed")


def printable(text: object) -> str:
    """Without what would move the cursor or break a line: names come out of files that anybody may write."""
    return "".join(each if each.isprintable() else "?" for each in str(text))


def cut(text: str, columns: int) -> str:
    if len(text) <= columns:
        return text
    return text[: max(columns - 1, 0)] + ("…" if draws_lines() else "~")
