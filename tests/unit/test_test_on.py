# SPDX-License-Identifier: Apache-2.0
"""scripts/test-on: its table, and how it reads the output of other programs.

The script itself tests what runs in a root file system.
"""

import importlib.machinery
import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPT = CHECKOUT / "scripts" / "test-on"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    loader = importlib.machinery.SourceFileLoader("test_on", str(SCRIPT))
    spec = importlib.util.spec_from_loader("test_on", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nText.\n\n|  | Debian 12 |\n| --- | --- |\n| runc | 1.1.5 |\n\nMore text.\n")
    monkeypatch.setattr(module, "PAGE", page)
    return module


def test_column_is_added_and_the_others_stay(script: Any) -> None:
    script.write_page("Debian 13", {"runc": "1.1.15", "crun": "1.21"})
    script.write_page("Debian 13", {"runc": "1.1.16", "crun": "1.21"})

    assert script.PAGE.read_text() == (
        "# Title\n\nText.\n\n|  | Debian 12 | Debian 13 |\n| --- | --- | --- |\n"
        "| runc | 1.1.5 | 1.1.16 |\n| crun |  | 1.21 |\n\nMore text.\n"
    )


def test_page_has_the_form_that_the_script_writes(script: Any) -> None:
    script.PAGE.write_text(page := (CHECKOUT / "cnihook" / "pages" / "tested-on.md").read_text())
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| ")]
    column = {row[1].strip(): row[3].strip() for row in rows[2:]}

    script.write_page(rows[0][3].strip(), column)

    assert script.PAGE.read_text() == page


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (
            "...\n4102 passed, 31 skipped, 7 xfailed in 433.10s (0:07:13)\n",
            "4102 passed, 31 skipped, 7 xfailed",
        ),
        ("= 1 failed, 2 passed in 3.00s =\n", "1 failed, 2 passed"),
        ("killed\n", "did not end"),
    ],
)
def test_summary_is_pytests_last_line(script: Any, tmp_path: Path, printed: str, expected: str) -> None:
    (tmp_path / "output").write_text(printed)

    assert script.summary(tmp_path / "output") == expected


def test_command_that_takes_too_long_is_killed(script: Any, tmp_path: Path) -> None:
    assert script.run(["sleep", "60"], 0.1, tmp_path / "output") == script.TOO_LATE


def test_bad_suite_is_a_usage_error() -> None:
    process = subprocess.run([SCRIPT, "../x"], capture_output=True, text=True, timeout=60)

    assert (process.returncode, process.stdout) == (2, "") and "SUITE '../x'" in process.stderr
