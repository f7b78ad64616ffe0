# SPDX-License-Identifier: Apache-2.0
"""A sample of scripts/soak, different in each run: what a fault leaves can be released."""

import platform
import random
import subprocess
import sys

import pytest

from tests.support.plugins.cni import CHECKOUT
from tests.support.soak.__main__ import PARTS

pytestmark = [
    pytest.mark.root,
    pytest.mark.long,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="faults are injected on x86_64 only"),
]


@pytest.mark.parametrize("part", PARTS)
def test_sample_leaves_nothing(part: str) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    argv = [sys.executable, "-m", "tests.support.soak", "--quick", "--only", part, "--seed", str(seed)]
    process = subprocess.run(
        [*argv, "--jobs", "1"], cwd=CHECKOUT, capture_output=True, text=True, timeout=290
    )
    if process.returncode != 0:
        pytest.fail(f"{process.stdout}{process.stderr}", pytrace=False)
