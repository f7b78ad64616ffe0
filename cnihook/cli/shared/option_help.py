# SPDX-License-Identifier: Apache-2.0
"""The options of a program as lines of its --help, for programs that do not use argparse."""

import textwrap
from collections.abc import Iterable

from cnihook.request import option_table
from cnihook.request.option_table import Entry

_COLUMN, _WIDTH = 30, 109


def sections(program: str) -> str:
    """Return all options of a program, below the headings of their groups."""
    groups: dict[str, list[Entry]] = {}
    for entry in option_table.of(program):
        groups.setdefault(entry.group, []).append(entry)
    return "\n".join(f"{group}:\n{lines(entries)}" for group, entries in groups.items())


def lines(entries: Iterable[Entry]) -> str:
    return "".join(line(f"{entry.flags} {entry.metavar}".rstrip(), entry.help) for entry in entries)


def line(form: str, purpose: str) -> str:
    """Return one option: its form, and its purpose in as many lines as it takes."""
    first = f"  {form}".ljust(_COLUMN)
    text = textwrap.fill(
        purpose,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=" " * _COLUMN,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return f"{text}\n"
