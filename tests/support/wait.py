# SPDX-License-Identifier: Apache-2.0
"""Limits of waiting in tests: generous for what must come, short for what must not."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

SILENCE = 0.3  # seconds after which what must not come counts as absent
_seconds = [30.0]  # seconds until what must come counts as missing


def patience(expected: bool = True) -> float:
    """Return how many seconds to wait for what must come, or must not.

    30 for what must come, so that a busy machine fails no test.
    """
    return _seconds[-1] if expected else SILENCE


@contextmanager
def short_patience() -> Iterator[None]:
    """Wait 2 s for what must come, in a test that is known to fail: it may fail by waiting."""
    _seconds.append(2.0)
    try:
        yield
    finally:
        _seconds.pop()


def wait_for(condition: Callable[[], T], what: str | Callable[[], str], timeout: float | None = None) -> T:
    """Return what the condition returns as soon as it is true; fail and name `what` after the timeout."""
    timeout = patience() if timeout is None else timeout
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            name = what if isinstance(what, str) else what()
            raise AssertionError(f"{name}: not within {timeout:g} s")
        time.sleep(0.005)
    return value
