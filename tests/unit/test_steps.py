# SPDX-License-Identifier: Apache-2.0
"""process.steps: the age of a process, and the sum of its steps."""

import builtins
import subprocess
import sys
import time
from typing import Any

import pytest

from cnihook.process import steps
from tests.support.plugins.cni import CHECKOUT

AGE = "import time; time.sleep(0.1); from cnihook.process import steps; print(steps.age())"


def test_age_includes_waits() -> None:
    """The time on a processor alone would leave the sleep out; the tick of /proc/self/stat is 10 ms."""
    process = subprocess.run(
        [sys.executable, "-c", AGE], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )

    assert float(process.stdout) >= 0.09


def test_age_without_proc_is_the_time_on_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start with CNIHOOK_TIMING must not fail where /proc is not mounted, or hides these files."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError

    before = time.process_time()
    monkeypatch.setattr(builtins, "open", refuse)
    age = steps.age()
    monkeypatch.undo()

    assert before <= age <= time.process_time()


def test_steps_of_one_name_are_added() -> None:
    measured = steps.Steps(time.monotonic())
    for name in ("record", "ADD bridge", "record"):
        measured.end(name)

    assert list(measured.seconds) == ["Python", "modules", "record", "ADD bridge"]
    assert measured.total == sum(measured.seconds.values()) and min(measured.seconds.values()) >= 0


def test_no_step_is_negative() -> None:
    """The age that the kernel reports may be less than the time that the process itself has measured."""
    assert steps.Steps(time.monotonic() - 2 * steps.age()).seconds["Python"] == 0.0
