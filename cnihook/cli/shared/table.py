# SPDX-License-Identifier: Apache-2.0
"""
Tables: drawn by rich on a terminal, fitted to its width; elsewhere plain, complete and stable.

Elsewhere, no cell is empty and none contains a space, so that awk, cut and grep can count on columns.
"""

import sys
from collections.abc import Sequence

from cnihook.cli.shared import terminal
from cnihook.cli.shared.terminal import Style, cut, printable

GAP = "  "


class Column:
    """A column.  `low`: the length to which a cell may be cut; 0 if it may not be cut.  `right`: numbers."""

    def __init__(self, title: str, *, low: int = 0, right: bool = False) -> None:
        self.title = title
        self.low = low
        self.right = right


class Cell:
    def __init__(self, text: object, colour: str = "") -> None:
        self.text = printable(text) or "-"
        self.colour = colour


Row = Sequence[Cell]


def render(columns: "Sequence[Column]", rows: "Sequence[Row]", style: Style, width: int) -> "list[str]":
    """Return the lines.  Too wide a table is cut if it may be; otherwise each row becomes a list."""
    widths = [
        max([len(column.title), *(len(row[number].text) for row in rows)])
        for number, column in enumerate(columns)
    ]
    least = [
        min(wanted, max(column.low, len(column.title))) if column.low else wanted
        for column, wanted in zip(columns, widths, strict=True)
    ]
    drawn = width < sys.maxsize and terminal.has_rich()
    if sum(least if drawn else widths) + len(GAP) * (len(columns) - 1) > width:
        return _as_lists(columns, rows, style, width)
    if not drawn:
        head = [Cell(column.title) for column in columns]
        return [_line(columns, row, widths) for row in (head, *rows)]
    return _drawn(columns, rows, least, style, width)


def _line(columns: "Sequence[Column]", row: Row, widths: "Sequence[int]") -> str:
    cells = [
        cell.text.rjust(width) if column.right else cell.text.ljust(width)
        for column, cell, width in zip(columns, row, widths, strict=True)
    ]
    return GAP.join(cells).rstrip()


def _drawn(
    columns: "Sequence[Column]", rows: "Sequence[Row]", least: "Sequence[int]", style: Style, width: int
) -> "list[str]":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, len(GAP), 0, 0), pad_edge=False, header_style="bold")
    for column, narrowest in zip(columns, least, strict=True):
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            min_width=narrowest,
            # A cell that may be cut has one word, which is cut.  The others keep their width.
            no_wrap=not column.low,
            overflow="ellipsis",
        )
    for row in rows:
        table.add_row(*(Text(cell.text, style=cell.colour) for cell in row))
    console = terminal.console(width, style.colours)
    with console.capture() as captured:
        console.print(table)
    text = captured.get() if terminal.draws_lines() else captured.get().replace("…", "~")
    return [line.rstrip() for line in text.splitlines()]


def _as_lists(columns: "Sequence[Column]", rows: "Sequence[Row]", style: Style, width: int) -> "list[str]":
    """Return lists, for a terminal too narrow for the table: the first cell, below it the others by name."""
    lines = []
    label = max(len(column.title) for column in columns) + len(GAP)
    for row in rows:
        lines.append(style(cut(row[0].text, width), "bold"))
        for column, cell in zip(columns[1:], row[1:], strict=True):
            if cell.text == "-":
                continue
            text = cut(cell.text, max(width - label - len(GAP), 8))
            lines.append(f"{GAP}{column.title.lower():<{label}}{style(text, cell.colour)}")
    return lines


def show(columns: "Sequence[Column]", rows: "Sequence[Row]") -> None:
    for line in render(columns, rows, terminal.style(), terminal.width()):
        print(line)
