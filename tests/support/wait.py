# SPDX-License-Identifier: Apache-2.0
"""Limits of waiting in tests: generous for what must come, short for what must not."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LIMIT = 30.0  # seconds until what must come counts as missing
SILENCE = 0.3  # seconds after which what must not come counts as absent


def wait_for(condition: Callable[[], T], what: str | Callable[[], str], timeout: float = LIMIT) -> T:
    """Return what the condition returns as soon as it is true; fail and name `what` after the timeout."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            name = what if isinstance(what, str) else what()
            raise AssertionError(f"{name}: not within {timeout:g} s")
        time.sleep(0.005)
    return value
