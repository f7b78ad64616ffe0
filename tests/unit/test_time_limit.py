# SPDX-License-Identifier: Apache-2.0
"""The time limit of each test, which ends every kind of wait."""

import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from tests.support.host.namespace import Process
from tests.support.time_limit import kill_children_of_failure, limit


def read() -> None:
    with Process(["sleep", "60"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()


def wait_for_process() -> None:
    with Process(["sleep", "60"]):
        pass


def join() -> None:
    thread = threading.Thread(target=time.sleep, args=[60], daemon=True)
    thread.start()
    thread.join()


@pytest.mark.parametrize("wait", [read, wait_for_process, join])
def test_wait_that_does_not_end_fails(wait: Callable[[], None]) -> None:
    with pytest.raises(pytest.fail.Exception, match="not done after 0.1 s"), kill_children_of_failure():
        with limit(0.1):
            wait()


def test_processes_of_a_failed_test_are_killed() -> None:
    """A process that existed before the test stays, and so does one of a test that passes."""
    with kill_children_of_failure():
        earlier = subprocess.Popen(["sleep", "60"])
    with pytest.raises(ValueError, match="failed"), kill_children_of_failure():
        process = subprocess.Popen(
            ["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        process.stdout.readline()
        raise ValueError("failed")

    rest, _ = process.communicate(timeout=10)
    assert (process.returncode, rest) == (-9, ""), "no other process has the pipe"
    assert earlier.poll() is None
    earlier.kill()
    earlier.wait(10)
