# SPDX-License-Identifier: Apache-2.0
"""scripts/pages: the generated parts of pages are what their sources say."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import generated_pages
from tests.support.generated_pages import BEGIN, END, MAKERS
from tests.support.plugins.cni import CHECKOUT


def test_every_generated_page_is_up_to_date() -> None:
    argv = [sys.executable, "-m", "tests.support.generated_pages", "--check"]

    process = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=120)

    assert (process.returncode, process.stdout) == (0, ""), process.stdout + process.stderr


def test_old_page_is_reported_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "options.md"
    page.write_text(f"# By hand\n{BEGIN}old\n{END}the end\n")
    monkeypatch.setattr(generated_pages, "PAGES", tmp_path)
    monkeypatch.setattr(generated_pages, "CHECKOUT", tmp_path)
    monkeypatch.setitem(MAKERS, "options", lambda: "| new |\n")

    monkeypatch.setattr(sys, "argv", ["scripts/pages", "--check", "options"])
    assert generated_pages.main() == 1
    assert capsys.readouterr().out == "options.md is old: run scripts/pages options\n"

    monkeypatch.setattr(sys, "argv", ["scripts/pages", "options"])
    assert generated_pages.main() == 0
    assert page.read_text() == f"# By hand\n{BEGIN}\n| new |\n\n{END}the end\n"
