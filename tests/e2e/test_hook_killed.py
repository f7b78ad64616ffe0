# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at each step of the hook: the next poststop, gc or createRuntime removes what is left."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.host.leaks import compare
from tests.support.runtimes.oci import CNIHOOK, MYNET, bridge, call_hook, configure, wait_for

HOOK = ("/usr/bin/python3", "-IS", CNIHOOK)

pytestmark = pytest.mark.needs("strace")


@pytest.fixture
def container(host: Host) -> Iterator[Container]:
    configure(host, MYNET)
    yield host.container("c1", process=True)


def state_of(container: Container) -> dict[str, Any]:
    return {"ociVersion": "1.0", "id": container.name, "pid": container.pid, "bundle": "/nowhere"}


RELEASES = ["poststop", "gc", "createRuntime"]


def after(number: int, release: str) -> int:
    """Return the next step to kill at: each of the first eight, then every sixth, offset by `release`."""
    if number < 8:
        return number + 1
    return number + (6 if number > 8 else 2 * (1 + RELEASES.index(release)))


def killed(host: Host, container: Container, event: str, syscall: str, number: int) -> bool:
    """Run the hook and kill it at the `number`th call of `syscall`; return False if it ended before."""
    inject = f"inject={syscall}:signal=KILL:when={number}"
    strace = ("strace", "-qq", "-o", "/dev/null", "-e", f"trace={syscall}", "-e", inject)
    result = host.run(*strace, *HOOK, event, input=json.dumps(state_of(container)), check=False)
    assert result.returncode in (0, -9, 137), result
    return result.returncode != 0


def clear_away(host: Host, container: Container, release: str) -> Container:
    """Release the attachment: by poststop, by gc after the container's end, or by the next container."""
    if release != "poststop":
        container.destroy()
        wait_for(lambda: not host.exists(f"/proc/{container.pid}"), "the end of the container")
        if release == "gc":
            assert host.run(CNIHOOK, "gc").stderr == ""
        container = host.container("c1", process=True)
    if release == "createRuntime":
        assert call_hook(host, "createRuntime", state_of(container)).returncode == 0
        assert container.addresses("eth0")
    if release != "gc":
        assert call_hook(host, "poststop", state_of(container)).returncode == 0
    host.run("rm", "-f", "/run/cnihook/log/c1")
    compare(host.before, host.state, host.stay)
    return container


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("syscall", ["sendto", "rename", "mount", "fsync", "write", "unlink"])
def test_createruntime_killed_anywhere_leaves_nothing(
    host: Host, container: Container, syscall: str, release: str
) -> None:
    """SIGKILL arrives at the first, the second, … the last call that changes something."""
    number = 1
    while killed(host, container, "createRuntime", syscall, number):
        container = clear_away(host, container, release)
        number = after(number, release)
    assert number > 1, "the hook was never killed"
    assert call_hook(host, "poststop", state_of(container)).returncode == 0


def test_isolation_policy_is_removed_after_sigkill(host: Host) -> None:
    """The firewall plugin acts before the first plugin of the chain, and after the last."""
    isolated = bridge("net1", "10.1.0.0/24")
    isolated["plugins"].append({"type": "firewall", "ingressPolicy": "isolated"})
    configure(host, isolated)
    container = host.container("c1", process=True)
    number = 1
    while killed(host, container, "createRuntime", "sendto", number):
        container = clear_away(host, container, "gc")
        number += 9
    assert number > 1 and "isolated" in host.nft()
    assert killed(host, container, "poststop", "sendto", 5)
    clear_away(host, container, "gc")


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("syscall", ["sendto", "unlink", "write"])
def test_poststop_killed_anywhere_is_completed_later(
    host: Host, container: Container, syscall: str, release: str
) -> None:
    """The runtime may not call poststop again, so gc and the next container of that name complete it too."""
    number = 1
    while True:
        assert call_hook(host, "createRuntime", state_of(container)).returncode == 0
        if not killed(host, container, "poststop", syscall, number):
            break
        container = clear_away(host, container, release)
        number = after(number, release)
    assert number > 1, "the hook was never killed"


@pytest.mark.parametrize("syscall", ["write", "fsync", "mkdir"])
def test_gc_of_a_network_removes_files_of_killed_commands(host: Host, syscall: str) -> None:
    """gc removes the lock and the partial record, because the container ID may never be used again."""
    configure(host, MYNET)
    host.container("c1")
    host.leaves("dir /run/cnihook*")
    fault = ("-e", f"trace={syscall}", "-e", f"inject={syscall}:signal=KILL:when=1")
    result = host.run("strace", "-qq", "-o", "/dev/null", *fault, *HOOK, "add", "mynet", "c1", check=False)
    assert result.returncode in (-9, 137), result

    host.run(*HOOK, "gc", "mynet")

    folders = ("/run/cnihook", "/var/lib/cni/results")
    assert host.run("find", *folders, "-type", "f", check=False).stdout == ""


@pytest.mark.parametrize("signature", ["", "process 2147483647 (names of c1)\n"])
@pytest.mark.parametrize("name", ["names", "netns-4026532000"])
def test_poststop_removes_a_lock_that_it_does_not_take(
    host: Host, container: Container, name: str, signature: str
) -> None:
    """The hook before it was killed with it: /etc/hosts of containers, routing tables of a namespace."""
    assert call_hook(host, "createRuntime", state_of(container)).returncode == 0
    host.write(f"/run/cnihook/lock/{name}.lock", signature)

    assert call_hook(host, "poststop", state_of(container)).returncode == 0
    assert host.run("find", "/run/cnihook", "-type", "f").stdout == ""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/run/cnihook/lock/bridge-cni0.lock", "fifo"),
        *(
            (path, kind)
            for path in ("/run/cnihook/log/c1", "/run/cnihook/c1.ns", "/run/cnihook/names/mynet/c1")
            for kind in ("fifo", "loop", "folder")
        ),
    ],
)
def test_state_that_is_not_a_regular_file_stops_no_operation(
    host: Host, container: Container, path: str, kind: str
) -> None:
    """An open would wait at a FIFO.  What can be done is done, in bounded time."""
    assert call_hook(host, "createRuntime", state_of(container)).returncode == 0
    make = {"fifo": "mkfifo {0}", "loop": "ln -s {0} {0}", "folder": "mkdir {0}"}[kind].format(path)
    host.run("sh", "-c", f"mkdir -p $(dirname {path}); rm -f {path}; {make}")

    host.run(CNIHOOK, "logs", "c1", check=False, timeout=20)
    host.run(CNIHOOK, "gc", check=False, timeout=20)
    host.run(*HOOK, "poststop", input=json.dumps(state_of(container)), check=False, timeout=20)
    host.run(CNIHOOK, "gc", check=False, timeout=20)
    assert not host.exists("/sys/class/net/cni0")

    host.run("rm", "-rf", "/run/cnihook", "/var/lib/cni", "/run/netns/c1", check=False)
    container = host.container("c2", process=True)
    assert call_hook(host, "createRuntime", state_of(container)).returncode == 0
    assert call_hook(host, "poststop", state_of(container)).returncode == 0


def test_record_of_an_ended_process_does_not_keep_its_successor_from_starting(
    host: Host, container: Container
) -> None:
    """The kernel may give the inode of the ended namespace to the new one; here the namespace lives on."""
    assert call_hook(host, "createRuntime", state_of(container)).returncode == 0
    sleep = f"nsenter --net=/proc/{container.pid}/ns/net sleep 2147483647 > /dev/null 2>&1 & echo $!"
    successor = int(host.run("sh", "-c", sleep).stdout)
    wait_for(lambda: host.run("cat", f"/proc/{successor}/comm").stdout == "sleep\n", "nsenter's program")
    host.run("kill", "-9", str(container.pid))
    wait_for(lambda: not host.exists(f"/proc/{container.pid}"), "the end of the container")
    container.pid = successor

    answer = call_hook(host, "createRuntime", state_of(container))
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "10.22." in host.run("ip", "netns", "exec", "c1", "ip", "-4", "address").stdout
    assert call_hook(host, "poststop", state_of(container)).returncode == 0
    host.run("kill", "-9", str(successor))
    host.containers.remove(container)


@pytest.mark.parametrize("make", ["mkfifo {0}", "ln -s {0} {0}", "mkdir {0}"])
def test_start_replaces_what_has_the_name_of_its_partial_record(
    host: Host, container: Container, make: str
) -> None:
    """The folder /run/cnihook exists, or the start would collect garbage first."""
    path = "/var/lib/cni/results/.c1.new"
    host.run("sh", "-c", f"mkdir -p /run/cnihook $(dirname {path}); {make.format(path)}")

    answer = host.run(*HOOK, "createRuntime", input=json.dumps(state_of(container)), timeout=20)
    assert answer.stderr == ""
    assert not host.exists(path)
    assert call_hook(host, "poststop", state_of(container)).returncode == 0
