# SPDX-License-Identifier: Apache-2.0
"""A file of another program at /run/netns/ID stays, and the container starts without a name."""

import os

import pytest

from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import CNIHOOK, MYNET, call_hook, configure, leases

PRIV_NET_RUN = str(CHECKOUT / "scripts" / "priv-net-run")
NAME = "/run/netns/c1"


def make(host: Host, kind: str) -> None:
    host.run("mkdir", "-p", "/run/netns")
    path = f"{host.root}{NAME}"
    if kind == "text":
        host.write(NAME, "text\n")
    elif kind == "empty file":
        host.write(NAME, "")
    elif kind == "folder":
        os.mkdir(path)
    elif kind == "link":
        os.symlink("/proc/self/ns/net", path)
    else:
        os.mkfifo(path)


@pytest.mark.parametrize("kind", ["text", "empty file", "folder", "link", "FIFO"])
def test_file_of_another_program_stays(host: Host, kind: str) -> None:
    configure(host, MYNET)
    make(host, kind)
    before = os.lstat(f"{host.root}{NAME}")
    container = host.container(process=True)
    state = {"id": "c1", "pid": container.pid, "bundle": "/nowhere"}

    assert call_hook(host, "createRuntime", state).returncode == 0
    assert container.links() == {"lo", "eth0"}
    assert "the namespace gets no name in /run/netns: " in host.read("/run/cnihook/log/c1")
    host.run(CNIHOOK, "repair", "c1")
    host.run(CNIHOOK, "doctor", "--fix", check=False)
    assert call_hook(host, "poststop", state | {"pid": container.pid}).returncode == 0

    after = os.lstat(f"{host.root}{NAME}")
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)
    assert leases(host) == host.listdir("/var/lib/cni/results") == []
    (os.rmdir if kind == "folder" else os.unlink)(f"{host.root}{NAME}")
    host.leaves("file /run/cnihook/log/c1")


def test_name_given_by_the_operator_stays(host: Host) -> None:
    """The operator has used `ip netns attach`, so the name is not cnihook's to remove."""
    configure(host, MYNET)
    container = host.container(process=True)
    host.run("ip", "netns", "attach", "c1", str(container.pid))
    state = {"id": "c1", "pid": container.pid, "bundle": "/nowhere"}

    assert call_hook(host, "createRuntime", state).returncode == 0
    assert "the namespace gets no name" in host.read("/run/cnihook/log/c1")
    host.run(CNIHOOK, "repair", "c1")
    assert call_hook(host, "poststop", state).returncode == 0
    assert host.run("ip", "netns", "pids", "c1").stdout.split() == [str(container.pid)]
    assert container.links() == {"lo"}
    host.run("ip", "netns", "del", "c1")


@pytest.mark.parametrize("kind", ["text", "empty file", "folder", "FIFO"])
def test_priv_net_run_refuses_a_name_that_is_a_file(host: Host, kind: str) -> None:
    configure(host, MYNET)
    make(host, kind)
    command = host.run(PRIV_NET_RUN, "--netns", "c1", "true", check=False)

    assert command.returncode != 0 and "namespace" in command.stderr
    (os.rmdir if kind == "folder" else os.unlink)(f"{host.root}{NAME}")
