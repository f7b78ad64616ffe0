# SPDX-License-Identifier: Apache-2.0
"""This tests the tests: a command that is a fork of another process does what its executable does."""

import os
import signal

import pytest

from tests.support.commands import forked
from tests.support.host.host import Host
from tests.support.runtimes.oci import CNIHOOK, MYNET, configure
from tests.support.wait import wait_for


@pytest.mark.parametrize("words", ["version", "", "ps --json", "ps --nosuch", "list", "add mynt x", "port"])
def test_fork_behaves_as_the_executable(host: Host, words: str) -> None:
    configure(host, MYNET)
    outcomes = [host.run(CNIHOOK, *words.split(), check=False, fork=fork) for fork in (True, False)]

    first, second = [(one.returncode, one.stdout, one.stderr) for one in outcomes]
    assert first == second and any(first[1:])


def test_fork_has_arguments_environment_folder_and_input_of_its_call(host: Host) -> None:
    host.write("/run/.host/conf/net.conflist", MYNET)

    listed = host.run(CNIHOOK, "list", "--json", env={**os.environ, "NETCONFPATH": "/run/.host/conf"}).stdout
    refused = host.run(CNIHOOK, "new-plugin", "--dir", "plugin", "own-é", check=False)
    host.run(CNIHOOK, "new-plugin", "--dir", "plugin", "own", cwd="/run/.host")
    state = host.run(CNIHOOK, "poststop", input="no state", check=False)

    assert '"mynet"' in listed
    assert refused.returncode != 0 and "own-é" in refused.stderr
    assert host.listdir("/run/.host/plugin")
    assert state.returncode == 1 and "no state" not in state.stdout and "state" in state.stderr


def test_process_that_was_killed_is_started_again(host: Host) -> None:
    """A test that fails kills the processes that began in it, and this may be one of them."""
    assert host.run(CNIHOOK, "version").stdout
    process = forked.forks(CNIHOOK)

    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: process.has_ended, "the end of the process")

    assert host.run(CNIHOOK, "version").stdout and forked.forks(CNIHOOK) is not process
