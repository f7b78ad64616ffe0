# SPDX-License-Identifier: Apache-2.0
"""The tracer of scripts/soak: the calls that it counts, and the faults that it injects."""

import errno
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.support.plugins.cni import CHECKOUT
from tests.support.soak.tracer import Fault

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the tracer knows the registers of x86_64"),
]

# Counting begins with the read of stdin: the folder is created at the second call.
PROGRAM = (
    "import os, sys; os.read(0, 9); os.mkdir(sys.argv[1]); os.rmdir(sys.argv[1]); os.mkdir(sys.argv[1])"
)
FOREVER = "import os, sys; os.read(0, 9); os.stat('/')\nwhile True: pass"
CHILD = "import os, sys; os.read(0, 9)\nif os.fork(): os.wait()\nelse: os.mkdir(sys.argv[1])"


def trace(tmp_path: Path, program: str, fault: Fault | None = None, **options: Any) -> Any:
    """Return the outcome as a dictionary.

    The tracer reaps all children, so it runs in a process of its own.
    """
    argv = ["/usr/bin/python3", "-IS", "-c", program, str(tmp_path / "made")]
    code = """if True:
        import json, sys
        from dataclasses import asdict
        from tests.support.soak import tracer
        argv, fault, options = json.loads(sys.argv[1])
        outcome = tracer.run(argv, "x", {}, tracer.Fault(**fault) if fault else None, **options)
        names = [str(call) for call in outcome.trace]
        print(json.dumps({**asdict(outcome), "trace": names, "hit": str(outcome.hit)}))
    """
    order = json.dumps([argv, asdict(fault) if fault else None, options])
    process = subprocess.run(
        [sys.executable, "-c", code, order], cwd=CHECKOUT, capture_output=True, text=True, timeout=30
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_all_kinds_of_calls_are_counted_from_stdin_on(tmp_path: Path) -> None:
    outcome = trace(tmp_path, PROGRAM, record=True)

    folder = tmp_path / "made"
    expected = ["read(/memfd:stdin (deleted))", f"mkdir({folder})", f"rmdir({folder})", f"mkdir({folder})"]
    assert outcome["trace"] == expected
    assert (outcome["status"], outcome["calls"]) == (0, 4)


@pytest.mark.parametrize(("after", "is_made"), [(False, False), (True, True)])
def test_kill_comes_before_or_after_the_call(tmp_path: Path, after: bool, is_made: bool) -> None:
    outcome = trace(tmp_path, PROGRAM, Fault(2, after=after))

    assert (outcome["status"], outcome["hit"]) == (-9, f"mkdir({tmp_path / 'made'})")
    assert os.path.isdir(tmp_path / "made") == is_made


@pytest.mark.parametrize("scope", ["once", "object", "kind"])
def test_error_replaces_the_call(tmp_path: Path, scope: str) -> None:
    """The second mkdir() fails as well, unless the error comes once."""
    program = """if True:
        import os, sys
        def tried():
            try:
                os.mkdir(sys.argv[1])
            except OSError as error:
                print(error.errno)
        os.read(0, 9); tried(); os.stat("/"); tried()
    """
    outcome = trace(tmp_path, program, Fault(2, errno.ENOSPC, scope=scope))

    lines = outcome["stdout"].split()
    assert lines == [str(errno.ENOSPC)] * (1 if scope == "once" else 2)
    assert os.path.isdir(tmp_path / "made") == (scope == "once")


def test_calls_of_a_child_count_too(tmp_path: Path) -> None:
    """Since Python 3.12, the parent reads /proc after a fork, before or after the child's call."""
    outcome = trace(tmp_path, CHILD, record=True)

    assert f"mkdir({tmp_path / 'made'})" in outcome["trace"]


def test_program_without_end_is_ended(tmp_path: Path) -> None:
    outcome = trace(tmp_path, FOREVER, Fault(2, errno.EIO, scope="once"), timeout=1)
    slow = trace(tmp_path, FOREVER, record=True, timeout=1)

    assert (outcome["status"], outcome["hung"]) == (1, False)  # os.stat() fails, so the loop is not reached
    assert slow["hung"] and slow["status"] == -9
