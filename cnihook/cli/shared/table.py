# SPDX-License-Identifier: Apache-2.0
"""
Tables: fitted to the width of a terminal; elsewhere complete and stable.

Elsewhere, no cell is empty and none contains a space, so that awk, cut and grep can count on columns.
"""

import sys
from collections.abc import Sequence

from cnihook.cli.shared import terminal
from cnihook.cli.shared.terminal import Style, cut, cut_middle, printable

GAP = "  "


class Column:
    """A column.

    `low`: the length to which a cell may be cut; 0 if it may not be cut.  `names`: it is cut in the middle.
    `right`: numbers.  `drop`: if the table is too wide, the columns with the highest number are left out
    first; 0 for a column that stays.
    """

    def __init__(
        self, title: str, *, low: int = 0, names: bool = False, right: bool = False, drop: int = 0
    ) -> None:
        self.title = title
        self.low = low
        self.names = names
        self.right = right
        self.drop = drop


class Cell:
    def __init__(self, text: object, colour: str = "") -> None:
        self.text = printable(text) or "-"
        self.colour = colour


Row = Sequence[Cell]


def render(columns: "Sequence[Column]", rows: "Sequence[Row]", style: Style, width: int) -> "list[str]":
    """Return the lines.

    In too wide a table, columns are left out and cells are cut if they may be; otherwise each row becomes a
    list.
    """
    widths = [
        max([len(column.title), *(len(row[number].text) for row in rows)])
        for number, column in enumerate(columns)
    ]
    least = [
        min(length, max(column.low, len(column.title))) if column.low else length
        for column, length in zip(columns, widths, strict=True)
    ]
    shown = list(range(len(columns)))

    def fits(lengths: "Sequence[int]") -> bool:
        return sum(lengths[number] for number in shown) + len(GAP) * (len(shown) - 1) <= width

    while not fits(least):
        drop = max(columns[number].drop for number in shown)
        if not drop:
            return _as_lists(columns, rows, style, width)
        shown = [number for number in shown if columns[number].drop != drop]
    while not fits(widths):
        longest = max((number for number in shown if widths[number] > least[number]), key=widths.__getitem__)
        widths[longest] -= 1
    head = [Cell(column.title, "bold" if width < sys.maxsize else "") for column in columns]
    return [_line(columns, row, shown, widths, style) for row in (head, *rows)]


def _line(
    columns: "Sequence[Column]", row: Row, shown: "Sequence[int]", widths: "Sequence[int]", style: Style
) -> str:
    texts = []
    for number in shown:
        shorten = cut_middle if columns[number].names else cut
        text = shorten(row[number].text, widths[number])
        margin = " " * (widths[number] - len(text))
        drawn = style(text, row[number].colour)
        texts.append(margin + drawn if columns[number].right else drawn + margin)
    return GAP.join(texts).rstrip()


def _as_lists(columns: "Sequence[Column]", rows: "Sequence[Row]", style: Style, width: int) -> "list[str]":
    """Return lists, for a terminal too narrow for the table: the first cell, below it the others by name."""
    lines = []
    label = max(len(column.title) for column in columns) + len(GAP)
    for row in rows:
        lines.append(style(cut_middle(row[0].text, width), "bold"))
        for column, cell in zip(columns[1:], row[1:], strict=True):
            if cell.text == "-":
                continue
            text = cut(cell.text, max(width - label - len(GAP), 8))
            lines.append(f"{GAP}{column.title.lower():<{label}}{style(text, cell.colour)}")
    return lines


def show(columns: "Sequence[Column]", rows: "Sequence[Row]", width: int = 0) -> None:
    """Print a table.  `width`: 0 for that of the terminal."""
    for line in render(columns, rows, terminal.style(), width or terminal.width()):
        print(line)
