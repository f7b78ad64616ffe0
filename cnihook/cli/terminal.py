# SPDX-License-Identifier: Apache-2.0
"""
What stdout is: a terminal with colours and a width, or something that reads plain text.

What is drawn on a terminal rich draws.  A checkout with nothing installed does without, in plain text.
"""

import os
import select
import sys

from cnihook.lean import words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rich.console import Console


class Style:
    """Colours, where they are wanted: on a terminal, unless NO_COLOR (https://no-color.org) is set."""

    def __init__(self, colours: bool) -> None:
        self.colours = colours

    def __call__(self, text: str, *names: str) -> str:
        if not (self.colours and text and any(names)):
            return text
        from rich.color import ColorSystem
        from rich.style import Style as Drawn

        return Drawn.parse(" ".join(names)).render(text, color_system=ColorSystem.STANDARD)


def is_terminal() -> bool:
    return sys.stdout.isatty()


def has_rich() -> bool:
    try:
        import rich  # noqa: F401
    except ImportError:
        return False
    return True


def style() -> Style:
    wanted = is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Style(wanted and has_rich())


def console(columns: int, colours: bool) -> "Console":
    """Rich's, of that width.  What it says of the terminal is what is said here."""
    from rich.console import Console

    return Console(
        width=columns,
        color_system="standard" if colours else None,
        force_terminal=True,
        highlight=False,
        markup=False,
        emoji=False,
    )


def size() -> "tuple[int, int]":
    """(columns, rows) of the terminal; COLUMNS and LINES go before what it says itself."""
    columns, rows = measured()
    return max(columns, 20), max(rows, 5)


def measured() -> "tuple[int, int]":
    """As shutil.get_terminal_size(), which takes 5 ms to import: 80 and 24 where nothing is known."""
    asked = []
    for variable in ("COLUMNS", "LINES"):
        try:
            asked.append(max(int(os.environ.get(variable, "")), 0))
        except ValueError:
            asked.append(0)
    try:
        found = os.get_terminal_size(1)
    except OSError:
        found = os.terminal_size((0, 0))
    return asked[0] or found.columns or 80, asked[1] or found.lines or 24


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


def read_no_more() -> None:
    """Whoever read stdout has enough of it.  What is still printed, by Python's last flush too, is lost."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def printable(text: object) -> str:
    """With an escape for what would move the cursor or break a line: anybody may name a file."""
    return words.printable(str(text))


def cut(text: str, columns: int) -> str:
    if len(text) <= columns:
        return text
    return text[: max(columns - 1, 0)] + ("…" if draws_lines() else "~")
