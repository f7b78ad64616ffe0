# SPDX-License-Identifier: Apache-2.0
"""The width of --help, and the options as its lines, for programs that do not use argparse.

A width of 0 is that of the terminal; it is 80 for a pipe.
"""

import textwrap
from collections.abc import Iterable

from cnihook.cli.shared import terminal
from cnihook.request import option_table
from cnihook.request.option_table import Entry

_COLUMN = 30
_LEAST = 50  # columns of the text, so that a purpose has 20 of them


def default_width() -> int:
    """Return the columns for the text of --help; argparse leaves two free as well."""
    return terminal.measured()[0] - 2


def filled(text: str, width: int) -> str:
    """Return prose as written, or filled if the terminal is narrower.  Indented lines stay."""
    width = width or default_width()
    paragraphs = []
    for paragraph in text.split("\n\n"):
        prose = paragraph.strip("\n")
        lines = prose.split("\n")
        if max(map(len, lines)) > width and not any(line.startswith(" ") for line in lines):
            paragraph = paragraph.replace(prose, textwrap.fill(prose, width, break_on_hyphens=False))
        paragraphs.append(paragraph)
    return "\n\n".join(paragraphs)


def sections(program: str, width: int) -> str:
    """Return all options of a program, below the headings of their groups."""
    groups: dict[str, list[Entry]] = {}
    for entry in option_table.of(program):
        groups.setdefault(entry.group, []).append(entry)
    return "\n".join(f"{group}:\n{lines(entries, width)}" for group, entries in groups.items())


def lines(entries: Iterable[Entry], width: int) -> str:
    width = max(width or default_width(), _LEAST)
    return "".join(_line(f"{entry.flags}{entry.value}", entry.help, width) for entry in entries)


def _line(form: str, purpose: str, width: int) -> str:
    """Return one option: its form, and its purpose in as many lines as it takes."""
    first = f"  {form}".ljust(_COLUMN)
    text = textwrap.fill(
        purpose,
        width,
        initial_indent=first,
        subsequent_indent=" " * _COLUMN,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return f"{text}\n"
