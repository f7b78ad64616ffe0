# SPDX-License-Identifier: Apache-2.0
"""Names in /run/netns: each is removed before the last record, and an operator's own stays."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.host.faults import fault
from tests.support.host.host import Container, Host
from tests.support.host.leaks import compare
from tests.support.runtimes.oci import CNIHOOK, RESULTS, bridge, call_hook, configure, wait_for

pytestmark = pytest.mark.needs("strace")
FAILING = {"type": "tuning", "sysctl": {"net.core.nonsense": "1"}}
KILL = "error=EIO:signal=KILL:when=1"


@pytest.fixture
def container(host: Host) -> Iterator[Container]:
    good, bad = bridge("good", "10.4.0.0/24"), bridge("bad", "10.5.0.0/24")
    bad["plugins"].append(FAILING)
    configure(host, good, bad)
    host.leaves("file /run/cnihook/log/*", "dir /run/cni*", "sysctl *")
    yield host.container("f", process=True)


def hook(
    host: Host,
    event: str,
    container: Container,
    *launcher: str,
    networks: str = "good,bad",
    wait: bool = False,
) -> Any:
    state = {
        "ociVersion": "1.0",
        "id": "f",
        "pid": container.pid if event == "createRuntime" else 0,
        "bundle": "/nowhere",
        "annotations": {"cnihook.networks": networks},
    }
    if launcher:  # strace ends with the status of its program
        argv = (*launcher, "/usr/bin/python3", "-IS", CNIHOOK, event, *(["--wait"] if wait else []))
        return host.run(*argv, input=json.dumps(state), check=False)
    return call_hook(host, event, state)


def end(host: Host, container: Container) -> None:
    container.destroy()
    wait_for(lambda: not host.exists(f"/proc/{container.pid}"), "the end of the container")


@pytest.mark.parametrize("release", ["poststop", "gc", "createRuntime"])
@pytest.mark.parametrize("syscall", ["umount2", "unlink"])
@pytest.mark.parametrize("what", [KILL, "error=EIO"], ids=["killed", "failing"])
def test_name_of_a_failed_start_is_removed_before_the_last_record(
    host: Host, container: Container, what: str, syscall: str, release: str
) -> None:
    path = "/run/netns/f" if syscall == "unlink" else ""
    outcome = hook(host, "createRuntime", container, *fault(syscall, what, path))
    assert outcome.returncode != 0
    assert host.listdir(RESULTS), "the name still exists, so its record must"
    end(host, container)
    if release == "createRuntime":
        container = host.container("f", process=True)
        assert hook(host, "createRuntime", container, networks="good").returncode == 0
        assert container.addresses("eth0")
        assert host.run("ip", "netns", "exec", "f", "ip", "link", "show", "eth0").returncode == 0
        end(host, container)
    outcome = host.run(CNIHOOK, "gc", check=False) if release == "gc" else hook(host, "poststop", container)
    assert outcome.returncode == 0, outcome
    compare(host.before, host.state, host.stay)


@pytest.mark.parametrize("command", ["poststop", "gc"])
@pytest.mark.parametrize("syscall", ["umount2", "unlink"])
def test_name_that_cannot_be_removed_keeps_the_record(
    host: Host, container: Container, syscall: str, command: str
) -> None:
    assert hook(host, "createRuntime", container, networks="good").returncode == 0
    end(host, container)

    failing = fault(syscall, "error=EIO", "/run/netns/f" if syscall == "unlink" else "")
    if command == "gc":
        outcome = host.run(*failing, CNIHOOK, "gc", check=False)
    else:
        outcome = hook(host, "poststop", container, *failing, wait=True)
    assert outcome.returncode == 1 and host.listdir(RESULTS) == ["good-f-eth0"], outcome
    assert hook(host, "poststop", container).returncode == 0
    compare(host.before, host.state, host.stay)


def test_name_without_record_and_log_is_found(host: Host, container: Container) -> None:
    """Another program has removed the record, and the log has been rotated away."""
    assert hook(host, "createRuntime", container, networks="good").returncode == 0
    host.run("cp", f"{RESULTS}/good-f-eth0", "/run/.host/record")
    end(host, container)
    assert host.run(*fault("umount2", KILL), CNIHOOK, "gc", check=False).returncode != 0
    host.run("sh", "-c", f"rm -f {RESULTS}/* /run/cnihook/log/*")

    findings = host.run(CNIHOOK, "doctor", check=False).stdout
    assert "name-left-over: /run/netns/f " in findings
    host.run(CNIHOOK, "doctor", "--fix", check=False)
    compare(host.before, host.state, host.stay)


def test_operators_own_name_stays(host: Host, container: Container) -> None:
    """`ip netns add` made the name: it has neither a process nor a record."""
    host.run("ip", "netns", "add", "f")
    for words in (("gc",), ("doctor", "--fix")):
        host.run(CNIHOOK, *words, check=False)
        assert host.listdir("/run/netns") == ["f"]
    assert hook(host, "createRuntime", container, networks="good").returncode == 0
    end(host, container)
    assert hook(host, "poststop", container).returncode == 0
    assert host.listdir("/run/netns") == ["f"]
    host.run("ip", "netns", "del", "f")


@pytest.mark.parametrize("syscall", ["openat", "mount", "rename"])
def test_gc_removes_the_name_of_a_killed_priv_net_run(
    host: Host, container: Container, syscall: str
) -> None:
    """A namespace of --netns gets its name before it has a record."""
    run = f"{CNIHOOK.rpartition('/')[0]}/priv-net-run"
    words = ("--netns", "kept", "--network", "good", "--", "true")
    host.run(
        *fault(syscall, KILL, "/run/netns/kept" if syscall == "openat" else ""), run, *words, check=False
    )
    wait_for(lambda: host.run(CNIHOOK, "gc", check=False) and not host.exists("/run/netns/kept"), "gc")
    assert not host.exists("/run/cnihook/kept.ns") and host.listdir(RESULTS) == []
