# SPDX-License-Identifier: Apache-2.0
"""
Tables: aligned and coloured on a terminal, and fitted to its width; elsewhere plain, whole and stable.

Elsewhere no cell is empty and none has a space in it, so that awk, cut and grep can count on columns.
"""

from collections.abc import Sequence

from cnihook.cli import terminal
from cnihook.cli.terminal import Style, cut, printable

GAP = "  "


class Column:
    """`low`: to how many characters its cells may be cut; 0 for not at all.  `right`: numbers."""

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
    """The lines.  Too wide a table is cut where it may be; if that does not do, each row becomes a list."""
    wanted = [
        max([len(column.title), *(len(row[number].text) for row in rows)])
        for number, column in enumerate(columns)
    ]
    over = sum(wanted) + len(GAP) * (len(columns) - 1) - width
    for number in sorted(range(len(columns)), key=lambda number: -wanted[number]):
        low = max(columns[number].low, len(columns[number].title))
        if over > 0 and columns[number].low and wanted[number] > low:
            given = min(over, wanted[number] - low)
            wanted[number] -= given
            over -= given
    if over > 0:
        return _as_lists(columns, rows, style, width)
    head = [Cell(column.title, "bold") for column in columns]
    return [_line(columns, row, wanted, style) for row in (head, *rows)]


def _line(columns: "Sequence[Column]", row: Row, widths: "Sequence[int]", style: Style) -> str:
    cells = []
    for column, cell, width in zip(columns, row, widths, strict=True):
        text = cut(cell.text, width)
        padding = " " * (width - len(text))
        shown = style(text, cell.colour)
        cells.append(padding + shown if column.right else shown + padding)
    return GAP.join(cells).rstrip()


def _as_lists(columns: "Sequence[Column]", rows: "Sequence[Row]", style: Style, width: int) -> "list[str]":
    """For a terminal too narrow for the table: the first cell, and below it the others by name."""
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
