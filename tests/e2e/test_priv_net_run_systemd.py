# SPDX-License-Identifier: Apache-2.0
"""priv-net-run in units of systemd: variables for one process have to reach the command."""

import os
import socket

import pytest

from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import LOOPBACK, MYNET, configure
from tests.support.skip import need

RUN = str(CHECKOUT / "scripts" / "priv-net-run")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture
def mynet(host: Host) -> Host:
    configure(host, **{"10-mynet.conf": MYNET, "99-loopback.conf": LOOPBACK})
    return host


def test_socket_activation_reaches_the_command(mynet: Host) -> None:
    """A daemon accepts the sockets only if LISTEN_PID is its own PID."""
    need("systemd-socket-activate")
    script = "echo $LISTEN_PID $$ $LISTEN_FDS; readlink /proc/self/fd/3"
    activate = ("systemd-socket-activate", "-l", "/run/.host/socket", "-E", f"PATH={PATH}")
    with mynet.popen(*activate, RUN, "sh", "-c", script) as running:
        assert running.stderr and "Listening" in running.stderr.readline()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{mynet.root}/run/.host/socket")
            stdout, _ = running.communicate(timeout=30)
    numbers, descriptor = stdout.splitlines()
    listen_pid, pid, listen_fds = numbers.split()
    assert listen_pid == pid and listen_fds == "1" and descriptor.startswith("socket:")


NAMES = ("LISTEN_PID", "WATCHDOG_PID", "SYSTEMD_EXEC_PID")


@pytest.mark.parametrize("name", NAMES)
def test_variable_that_names_the_wrapper_names_the_command(mynet: Host, name: str) -> None:
    wrapped = f"exec env {name}=$$ LISTEN_PIDFDID=9 {RUN} sh -c 'echo ${name} $$ $LISTEN_PIDFDID'"
    words = mynet.run("sh", "-c", wrapped).stdout.split()
    # The second variable for the process of LISTEN_PID would contradict it.
    assert words[0] == words[1] and words[2:] == ([] if name == "LISTEN_PID" else ["9"])


@pytest.mark.parametrize("name", NAMES)
def test_variable_that_names_another_process_stays(mynet: Host, name: str) -> None:
    """A shell that was socket-activated may run priv-net-run for something else."""
    environment = {"PATH": PATH, name: str(os.getpid()), "LISTEN_PIDFDID": "9", "MAINPID": "7"}
    inside = mynet.run(RUN, "env", env=environment).stdout.splitlines()
    assert set(inside) == {f"{key}={value}" for key, value in environment.items()}
