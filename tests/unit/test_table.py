# SPDX-License-Identifier: Apache-2.0
"""cli.shared.table: no line is longer than the terminal is wide; what is left out, and what is cut."""

import sys

import pytest

from cnihook.cli.shared import table, terminal
from cnihook.cli.shared.table import Cell, Column
from cnihook.cli.shared.terminal import Style
from cnihook.fast.natural import natural

COLUMNS = (
    Column("CONTAINER", low=12, names=True),
    Column("STATE"),
    Column("IFNAME", drop=1),
    Column("PORTS", low=10),
    Column("AGE", right=True, drop=2),
)
ROWS = [
    [
        Cell("a-container-with-a-long-name-1"),
        Cell("attached"),
        Cell("eth0"),
        Cell("80->8080/tcp"),
        Cell("7s"),
    ],
    [Cell("a-container-with-a-long-name-2"), Cell("dead"), Cell("eth0"), Cell(""), Cell("7s")],
]


@pytest.fixture(autouse=True)
def lines_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "draws_lines", lambda: True)


@pytest.mark.parametrize("width", range(24, 80))
def test_no_line_is_longer_than_the_terminal_is_wide(width: int) -> None:
    lines = table.render(COLUMNS, ROWS, Style(False), width)

    assert max(map(len, lines)) <= width
    assert lines[0].startswith("CONTAINER") or lines[0].startswith("a-container-")
    assert "attached" in "\n".join(lines)


@pytest.mark.parametrize(
    ("width", "titles", "container"),
    [
        (sys.maxsize, "CONTAINER STATE IFNAME PORTS AGE", "a-container-with-a-long-name-2"),
        (60, "CONTAINER STATE IFNAME PORTS AGE", "a-container…long-name-2"),
        (48, "CONTAINER STATE IFNAME PORTS AGE", "a-cont…ame-2"),
        (40, "CONTAINER STATE PORTS", "a-contai…-name-2"),
        (34, "CONTAINER STATE PORTS", "a-cont…ame-2"),
    ],
)
def test_columns_are_left_out_before_cells_are_cut_too_short(
    width: int, titles: str, container: str
) -> None:
    """The highest `drop` is the first.  A name keeps its end, by which names of a series differ."""
    head, _, last = table.render(COLUMNS, ROWS, Style(False), width)

    assert (head.split(), last.split()[0]) == (titles.split(), container)


def test_colour_does_not_change_the_width_of_a_cell() -> None:
    rows = [[Cell("web", "red"), *row[1:]] for row in ROWS]
    coloured = table.render(COLUMNS, rows, Style(True), 70)

    assert coloured[1].startswith("\x1b[31mweb\x1b[0m" + " " * 8)


def test_numbers_in_names_are_compared_by_value() -> None:
    names = ["app-10", "app-2", "app", "b", "app-002", "app-1" + "0" * 5000]

    assert sorted(names, key=natural) == ["app", "app-002", "app-2", "app-10", "app-1" + "0" * 5000, "b"]
