# SPDX-License-Identifier: Apache-2.0
"""The time limit of a test: on expiry the test fails, and the processes that it has started are killed."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import psutil
import pytest

# Seconds for each of setup, call and teardown: the longest takes 40 on a free machine.
SECONDS = 900
SECONDS_OF_GUEST = 1500  # its processor is emulated, and the first test waits for its boot


class _Alarm:
    """A handler of SIGALRM that fails the test."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __call__(self, number: int, frame: FrameType | None) -> None:
        pytest.fail(f"not done after {self._seconds:g} s")


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Fail the test at its current line if the body takes longer.  A test that uses SIGALRM has no limit."""
    before = signal.getsignal(signal.SIGALRM)
    is_free = before is signal.SIG_DFL or isinstance(before, _Alarm)
    if not is_free or threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return
    alarm = _Alarm(seconds)
    signal.signal(signal.SIGALRM, alarm)
    outer, _interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, outer)
        if signal.getsignal(signal.SIGALRM) is alarm:  # not the handler of a fixture
            signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def kill_children_of_failure() -> Iterator[None]:
    """Kill the processes that the body has started, if it fails."""
    before = _children()
    try:
        yield
    except BaseException:
        for pid in _children() - before:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                for one in [process, *process.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        one.kill()
        raise


def _children() -> set[int]:
    pids: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has ended
            pids.update(map(int, (task / "children").read_text().split()))
    return pids
