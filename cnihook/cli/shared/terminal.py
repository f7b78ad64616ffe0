# SPDX-License-Identifier: Apache-2.0
"""
The properties of stdout: a terminal with colours and a width, or a file or pipe for plain text.
"""

import os
import select
import sys

from cnihook.fast import errors_text

# parameters of SGR, ECMA-48
_COLOURS = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}


class Style:
    """Colours, if they are enabled: on a terminal, unless NO_COLOR (https://no-color.org) is set."""

    def __init__(self, colours: bool) -> None:
        self.colours = colours

    def __call__(self, text: str, *names: str) -> str:
        if not (self.colours and text and any(names)):
            return text
        return f"\x1b[{';'.join(str(_COLOURS[name]) for name in names if name)}m{text}\x1b[0m"


def is_terminal() -> bool:
    return sys.stdout.isatty()


def style() -> Style:
    return Style(is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")


def size() -> "tuple[int, int]":
    """Return (columns, rows) of the terminal.  COLUMNS and LINES override its own values."""
    columns, rows = measured()
    return max(columns, 20), max(rows, 5)


def measured() -> "tuple[int, int]":
    """Return the same as shutil.get_terminal_size(), which takes 5 ms to import.  The default: (80, 24)."""
    variables = []
    for variable in ("COLUMNS", "LINES"):
        try:
            variables.append(max(int(os.environ.get(variable, "")), 0))
        except ValueError:
            variables.append(0)
    try:
        terminal = os.get_terminal_size(1)
    except OSError:
        terminal = os.terminal_size((0, 0))
    return variables[0] or terminal.columns or 80, variables[1] or terminal.lines or 24


def width() -> int:
    """Return the columns of the terminal; no limit if stdout is not a terminal."""
    return size()[0] if is_terminal() else sys.maxsize


def draws_lines() -> bool:
    """Return True if stdout takes more than ASCII."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def wait(seconds: float) -> None:
    """Wait for a time.  Raises BrokenPipeError as soon as the reader of stdout has closed it."""
    poll = select.poll()
    poll.register(1, 0)
    if poll.poll(seconds * 1000):
        raise BrokenPipeError("stdout is closed")


def read_no_more() -> None:
    """Discard all further output, by Python's last flush, too, because the reader has closed stdout."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def printable(text: object) -> str:
    """Return text with escapes for what would move the cursor or break a line, as names of files may."""
    return errors_text.printable(str(text))


def remark(text: str) -> None:
    """Print a line for a person, on a terminal only: programs count on the silence of a command."""
    if is_terminal():
        print(printable(text))


def cut(text: str, columns: int) -> str:
    if len(text) <= columns:
        return text
    return text[: max(columns - 1, 0)] + _ellipsis()


def cut_middle(text: str, columns: int) -> str:
    """Cut a name, and keep both ends: names in a series differ at the end."""
    if len(text) <= columns:
        return text
    end = max(columns - 1, 0) // 2
    return text[: max(columns - 1 - end, 0)] + _ellipsis() + text[len(text) - end :]


def _ellipsis() -> str:
    return "…" if draws_lines() else "~"
