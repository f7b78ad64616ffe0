# SPDX-License-Identifier: Apache-2.0
"""runtime.identity: a process is distinguished from any other, and an unreadable value is an error."""

import os
import subprocess

import pytest

from cnihook.linux.netns import NetNS
from cnihook.runtime import identity
from cnihook.runtime.identity import ProcessIdentity
from cnihook.types.errors import CniError


def test_process_is_alive_until_it_ends() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        captured = ProcessIdentity.capture(process.pid, NetNS.current())
        assert captured.is_alive() and captured.owns(NetNS.current())
        assert ProcessIdentity.from_json(captured.to_json()).is_alive()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not captured.is_alive(), "a zombie has ended"
    assert not captured.is_alive()


def test_another_process_boot_or_start_is_another_identity() -> None:
    captured = ProcessIdentity.capture(os.getpid(), NetNS.current())
    for changed in ({"boot": "another"}, {"start": captured.start - 2}, {"pid": 0}):
        other = ProcessIdentity.from_json(captured.to_json() | changed)
        assert not other.is_alive()
    assert not ProcessIdentity.from_json(captured.to_json() | {"boot": "another"}).owns(NetNS.current())


def test_process_that_has_ended_is_not_captured() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    with pytest.raises(CniError, match=f"process {process.pid} has ended"):
        ProcessIdentity.capture(process.pid, NetNS.current())


def test_identity_without_a_process_is_that_of_the_namespace() -> None:
    captured = ProcessIdentity.capture(0, NetNS.current())
    assert captured.owns(NetNS.current()) and not captured.is_alive()


@pytest.mark.parametrize(
    "changed",
    [
        *({"pid": "x"}, {"pid": True}, {"pid": -1}, {"start": None}, {"boot": 5}, {"netns": [1]}),
        *({"netns": ["a", 1]}, {"pidNamespace": "x"}),
    ],
)
def test_wrong_value_is_an_error(changed: dict[str, object]) -> None:
    captured = ProcessIdentity.capture(os.getpid(), NetNS.current())
    with pytest.raises(ValueError):
        ProcessIdentity.from_json(captured.to_json() | changed)


def test_start_is_counted_in_the_initial_time_namespace() -> None:
    assert identity.process_start(os.getpid()) == _start(os.getpid())


def _start(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[19])
