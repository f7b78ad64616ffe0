# SPDX-License-Identifier: Apache-2.0
"""A small sample of scripts/soak, different in each run: system calls of the hook that fail."""

import platform
import random
import subprocess
import sys

import pytest

from tests.support.skip import CHECKOUT, need_root, skip_or_fail

POINTS = 5  # per operation; each takes 0.2 s on an idle machine
SAMPLE = f"""\
import sys
from tests.support.soak import crew, matrix, report
operation, seed = sys.argv[1], int(sys.argv[2])
jobs = [job for job in matrix.jobs("error", seed, {POINTS}) if job.name == f"error/{{operation}}/0"]
results = {{}}
crew.work_off(jobs, 1, results, report.Progress(quiet=False).take)
sys.exit(report.finish(results, seed, 0, as_json=False) or results["error"].points < {POINTS})
"""


@pytest.mark.parametrize("operation", ["create", "poststop", "rollback"])
def test_failing_system_call_leaves_nothing(operation: str) -> None:
    """The hook succeeds completely, or exits with 1 and one line that names an object; nothing is left."""
    need_root()
    if platform.machine() != "x86_64":
        skip_or_fail("the tracer knows the registers of x86_64 only")
    seed = random.SystemRandom().randrange(1 << 32)

    command = [sys.executable, "-c", SAMPLE, operation, str(seed)]
    process = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120)

    assert process.returncode == 0, f"seed {seed}\n{process.stdout}{process.stderr}"
