# SPDX-License-Identifier: Apache-2.0
"""cli.shared.table: no line is longer than the terminal is wide, with rich and without."""

import pytest

from cnihook.cli.shared import table, terminal
from cnihook.cli.shared.table import Cell, Column
from cnihook.cli.shared.terminal import Style

COLUMNS = (Column("CONTAINER", low=12), Column("STATE"), Column("AGE", right=True))
ROWS = [[Cell("a-container-with-a-long-name"), Cell("attached"), Cell("7s")]]


@pytest.mark.parametrize("drawn", [True, False], ids=["rich", "plain"])
@pytest.mark.parametrize("width", [24, 30, 36, 43, 80])
def test_no_line_is_longer_than_the_terminal_is_wide(
    monkeypatch: pytest.MonkeyPatch, width: int, drawn: bool
) -> None:
    if not drawn:
        monkeypatch.setattr(terminal, "has_rich", lambda: False)

    lines = table.render(COLUMNS, ROWS, Style(False), width)

    assert max(map(len, lines)) <= width
    assert lines[0].startswith("CONTAINER") or lines[0].startswith("a-container-")
    assert "attached" in "\n".join(lines)
