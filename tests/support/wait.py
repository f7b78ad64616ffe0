# SPDX-License-Identifier: Apache-2.0
"""Timeouts in tests: long for events that must happen, short for those that must not."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

SILENCE = 0.3  # seconds without the event after which it counts as absent
_seconds = [30.0]  # seconds after which an expected event counts as missing


def patience(expected: bool = True) -> float:
    """Return how many seconds to wait for an event that must happen, or must not.

    30 for one that must happen, so that no test fails on a busy machine.
    """
    return _seconds[-1] if expected else SILENCE


@contextmanager
def short_patience() -> Iterator[None]:
    """Wait only 2 s for expected events, in a test that is known to fail: it may fail by waiting."""
    _seconds.append(2.0)
    try:
        yield
    finally:
        _seconds.pop()


def wait_for(condition: Callable[[], T], what: str | Callable[[], str], timeout: float | None = None) -> T:
    """Return the condition's value as soon as it is true; fail and name `what` after the timeout.

    A pause is as long as the condition took, up to 0.1 s.  Some conditions start a program, and would take a
    processor from the event that is awaited.
    """
    timeout = patience() if timeout is None else timeout
    began = time.monotonic()
    deadline = began + timeout
    while not (value := condition()):
        ended = time.monotonic()
        if ended > deadline:
            name = what if isinstance(what, str) else what()
            raise AssertionError(f"{name}: not within {timeout:g} s")
        time.sleep(min(max(0.005, ended - began), 0.1))
        began = time.monotonic()
    return value
