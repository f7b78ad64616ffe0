# SPDX-License-Identifier: Apache-2.0
"""The process of docker-run's pause container, as docker's inspection names it."""

import subprocess
from collections.abc import Iterator

import pytest

from cnihook.cli.docker.pause import Pause
from tests.support.host.namespace import end


def pause_of(pid: int) -> Pause:
    return Pause(
        {
            "Name": "/cnihook-pause-1",
            "Id": "1",
            "State": {"Pid": pid},
            "Config": {"Hostname": "web", "Domainname": ""},
            "HostsPath": "/nowhere",
            "ResolvConfPath": "/nowhere",
        }
    )


@pytest.fixture
def late() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that executes its program later, as runc does on a busy machine."""
    process = subprocess.Popen(
        ["sh", "-c", "sleep 0.3; exec env CNIHOOK_PAUSE=cnihook-pause-1 sleep 60"], start_new_session=True
    )
    yield process
    end(process)


def test_program_may_start_after_docker_has_reported_it(late: "subprocess.Popen[bytes]") -> None:
    pause = pause_of(late.pid)

    assert not pause.is_alive
    assert pause.wait_until_alive()


def test_process_that_is_not_here_is_not_waited_for(late: "subprocess.Popen[bytes]") -> None:
    end(late)

    assert not pause_of(late.pid).wait_until_alive()
