# SPDX-License-Identifier: Apache-2.0
"""The hook as a process: what it inherits, what can interrupt it, what it finds left behind."""

import json
import stat
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.host.namespace import Process
from tests.support.plugins.cni import REFERENCE
from tests.support.runtimes.oci import (
    CNIHOOK,
    MYNET,
    NETWORKS,
    PASS_ON,
    RESULTS,
    bridge,
    call_hook,
    calls,
    check_output,
    configure,
    external,
    kill,
    leases,
    wait_for,
)

HOOK = ("/usr/bin/python3", "-IS", CNIHOOK)
LAUNCHER = "/run/.host/launcher.py"


@pytest.fixture
def container(host: Host) -> Iterator[Container]:
    configure(host, MYNET)
    yield host.container("c1", process=True)


def state_of(container: Container) -> dict[str, Any]:
    return {"ociVersion": "1.0", "id": container.name, "pid": container.pid, "bundle": "/nowhere"}


def launcher(host: Host, *lines: str) -> tuple[str, ...]:
    """Return a launcher that runs `lines`, as a runtime does in its child, and then executes the hook."""
    program = ["import os, signal, sys", *lines, "os.execv(sys.argv[1], sys.argv[1:])", ""]
    host.write(LAUNCHER, "\n".join(program))
    return ("/usr/bin/python3", "-IS", LAUNCHER)


def slow_network(host: Host, script: str = "if [ $CNI_COMMAND = ADD ]; then sleep 60; fi") -> str:
    """Configure a second network whose last plugin is slow; return that plugin's folder."""
    second = bridge("second", "10.23.0.0/24")
    second["plugins"].append({"type": "slow"})
    configure(host, MYNET, second)
    return external(host, "slow", script)


def start_hook(
    host: Host, container: Container, event: str, *arguments: str, launcher: tuple[str, ...] = ()
) -> Process:
    """Start the hook without waiting for it."""
    process = host.popen(*launcher, *HOOK, event, *arguments, stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.write(json.dumps(state_of(container)))
    process.stdin.close()
    process.stdin = None
    return process


def clean(host: Host) -> bool:
    host.wait_for_endings()
    return not (host.listdir(RESULTS) or leases(host) or leases(host, "second"))


# What the hook inherits

BLOCKED = "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"
IGNORED = "for n in (1, 2, 13, 15, 17): signal.signal(n, signal.SIG_IGN)"
INHERITED = {
    "all signals blocked": [BLOCKED],
    "signals ignored": [IGNORED],
    "umask 0": ["os.umask(0)"],
    "umask 077": ["os.umask(0o777)"],
    "a working folder that is gone": [
        "os.mkdir('/run/.host/x')",
        "os.chdir('/run/.host/x')",
        "os.rmdir('/run/.host/x')",
    ],
    "no output": ["os.close(1)", "os.close(2)"],
    "output that is full": ["f = os.open('/dev/full', os.O_WRONLY)", "os.dup2(f, 1)", "os.dup2(f, 2)"],
    "output without a reader": ["r, w = os.pipe()", "os.dup2(w, 1)", "os.dup2(w, 2)", "os.close(r)"],
    "few descriptors": ["import resource", "resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))"],
    "a session of its own": ["os.setsid()"],
}


@pytest.mark.parametrize("state", INHERITED)
def test_hook_works_with_any_inherited_state(host: Host, state: str) -> None:
    """The chain has a plugin of each kind, because an executable inherits what the hook does not reset."""
    network = json.loads(MYNET)
    path = external(host, "outer", PASS_ON)
    conf = {"cniVersion": "0.4.0", "name": "mynet", "plugins": [network, {"type": "outer"}]}
    configure(host, conf)
    container = host.container("c1", process=True)
    start = launcher(host, *INHERITED[state])

    assert (
        call_hook(host, "createRuntime", state_of(container), "--cni-path", path, launcher=start).returncode
        == 0
    )
    assert container.addresses("eth0") == ["10.22.0.2/16"]
    record = json.loads(host.read(f"{RESULTS}/mynet-c1-eth0"))
    assert record["result"]["ips"][0]["address"] == "10.22.0.2/16"
    for folder in (RESULTS, NETWORKS, "/run/cnihook", "/run/netns"):
        for path_, mode in modes(host, folder):
            assert not mode & 0o022, f"{path_} can be written by other users: {mode:o}"
            assert mode & 0o400, f"{path_} cannot be read by its owner: {mode:o}"
    assert (
        call_hook(host, "poststop", state_of(container), "--cni-path", path, launcher=start).returncode == 0
    )
    assert calls(host) == ["outer ADD", "outer DEL"]


def modes(host: Host, folder: str) -> Iterator[tuple[str, int]]:
    place = host.root / folder.lstrip("/")
    for path in [place, *place.rglob("*")]:
        yield str(path), stat.S_IMODE(path.stat().st_mode)


def test_plugins_do_not_inherit_signals_and_umask(host: Host) -> None:
    """Otherwise plugins, and the helpers that they start, would inherit blocked signals and umask 0."""
    path = external(
        host, "witness", f"umask > /run/.host/umask; grep Sig /proc/self/status > /run/.host/sig; {PASS_ON}"
    )
    conf = {"cniVersion": "0.4.0", "name": "mynet", "plugins": [json.loads(MYNET), {"type": "witness"}]}
    configure(host, conf)
    container = host.container("c1", process=True)
    start = launcher(host, BLOCKED, IGNORED, "os.umask(0)")

    call_hook(host, "createRuntime", state_of(container), "--cni-path", path, launcher=start)
    call_hook(host, "poststop", state_of(container), "--cni-path", path, launcher=start)

    assert host.read("/run/.host/umask") == "0022\n"
    masks = dict(line.split(":\t") for line in host.read("/run/.host/sig").splitlines())
    assert int(masks["SigBlk"], 16) == 0
    sigpipe, sigterm = 1 << 12, 1 << 14
    assert int(masks["SigIgn"], 16) & (sigpipe | sigterm) == 0


@pytest.mark.parametrize("event", ["createRuntime", "poststop"])
@pytest.mark.parametrize(
    "becoming", ["", "unshare --map-root-user"], ids=["user", "root of a user namespace"]
)
def test_hook_without_root_gets_a_hint(host: Host, container: Container, event: str, becoming: str) -> None:
    """A rootless runtime starts the hook so, in a user namespace or not."""
    host.run("mkdir", "-p", "/run/cnihook", "/var/lib/cni/results")
    as_user = "setpriv --reuid=65534 --regid=65534 --clear-groups".split()
    result = call_hook(host, event, state_of(container), launcher=(*as_user, *becoming.split()))

    assert result.returncode == 1
    assert result.stderr.endswith(": Permission denied; only root can do that\n"), result.stderr


def test_closed_stdin_is_refused(host: Host) -> None:
    result = host.run(*launcher(host, "os.close(0)"), *HOOK, "createRuntime", check=False)

    check_output(result)
    assert result.returncode == 1 and "container state on stdin" in result.stderr


def test_namespace_name_in_use_is_left_alone(host: Host, container: Container) -> None:
    """Another namespace may have the name already.  The container is attached nevertheless."""
    host.run("ip", "netns", "add", "c1")
    inode = (host.root / "run/netns/c1").stat().st_ino

    assert call_hook(host, "createRuntime", state_of(container)).returncode == 0
    assert container.addresses("eth0") == ["10.22.0.2/16"]
    assert call_hook(host, "poststop", state_of(container)).returncode == 0
    assert (host.root / "run/netns/c1").stat().st_ino == inode
    host.run("ip", "netns", "del", "c1")


def test_hook_works_in_another_mount_namespace(host: Host, container: Container) -> None:
    """The namespace's name is visible there only.  crun runs so on hosts where its cgroups need it."""
    configure(host, MYNET, bridge("second", "10.23.0.0/24"))
    alone = ("unshare", "--mount")

    call_hook(host, "createRuntime", state_of(container), "--network", "mynet", launcher=alone)
    call_hook(host, "createRuntime", state_of(container), "--network", "second")
    assert container.links() == {"lo", "eth0", "eth1"}
    assert call_hook(host, "poststop", state_of(container), launcher=alone).returncode == 0
    assert container.links() == {"lo"}
    assert clean(host)


@pytest.mark.parametrize("free", range(0, 33, 4))
def test_full_disk_is_an_error_that_leaves_nothing(host: Host, container: Container, free: int) -> None:
    """At whatever step the disk is full, the hook reports it and rolls back."""
    host.leaves("dir /run/mount")  # created by mount(8)
    host.run("mount", "-o", "remount,size=256k", "/var/lib/cni")
    host.run("sh", "-c", "cat /dev/zero > /var/lib/cni/filler", check=False)
    host.run("truncate", "-s", f"-{free}k", "/var/lib/cni/filler")

    result = call_hook(host, "createRuntime", state_of(container))
    if result.returncode:
        assert "No space left on device" in result.stderr
        assert "/var/lib/cni/" in result.stderr
        assert leases(host) == host.listdir(RESULTS) == []
        assert host.links() == container.links() == {"lo"}
        host.leaves("file /run/cnihook/log/c1")
    else:
        assert container.addresses("eth0") == ["10.22.0.2/16"]
    assert call_hook(host, "poststop", state_of(container)).returncode == 0
    host.run("rm", "/var/lib/cni/filler")


# Interruptions


def test_sigterm_rolls_back_createruntime(host: Host, container: Container) -> None:
    """This works even if the hook inherited blocked signals."""
    path = slow_network(host)
    with start_hook(
        host, container, "createRuntime", "--cni-path", path, launcher=launcher(host, BLOCKED)
    ) as process:
        wait_for(lambda: calls(host) == ["slow ADD"], "the slow plugin")
        process.terminate()
        _, stderr = process.communicate(timeout=30)

    assert process.returncode == 1
    assert "interrupted by signal 15" in stderr and stderr.count("\n") == 1
    assert calls(host) == ["slow ADD", "slow DEL"]
    assert clean(host)
    host.leaves("file /run/cnihook/log/c1")


WAIT = f"while [ $CNI_COMMAND = ADD ] && [ ! -e /run/.host/go ]; do sleep 0.02; done\n{PASS_ON}"


def test_poststop_and_gc_wait_for_createruntime(host: Host, container: Container) -> None:
    """`delete --force` during the start calls poststop while createRuntime still runs."""
    path = slow_network(host, WAIT)
    with start_hook(host, container, "createRuntime", "--cni-path", path) as create:
        wait_for(lambda: calls(host) == ["slow ADD"], "the slow plugin")
        assert host.run(CNIHOOK, "gc").stdout == "", "its process lives"
        with start_hook(host, container, "poststop") as poststop:
            time.sleep(0.2)  # it waits for the lock by then; nothing shows that it does
            assert poststop.poll() is None
            host.write("/run/.host/go", "")
            assert create.communicate(timeout=30) == ("", "")
            assert poststop.communicate(timeout=30) == ("", "")

    assert (create.returncode, poststop.returncode) == (0, 0)
    assert calls(host) == ["slow ADD", "slow DEL"]
    assert clean(host)


def test_end_of_the_runtime_rolls_back_createruntime(host: Host, container: Container) -> None:
    """A runtime killed during its hook forgets the container, so it would never call poststop."""
    path = slow_network(host, WAIT)
    host.write("/run/.host/state", json.dumps(state_of(container)))
    command = (
        f"{' '.join(HOOK)} createRuntime --cni-path {path} < /run/.host/state 2> /run/.host/stderr & wait"
    )
    with host.popen("sh", "-c", command) as runtime:
        wait_for(lambda: calls(host) == ["slow ADD"], "the slow plugin")
        runtime.kill()
    host.write("/run/.host/go", "")

    wait_for(lambda: "the container runtime ended" in host.read("/run/.host/stderr"), "the hook")
    assert clean(host)
    host.leaves("file /run/cnihook/log/c1")


# Containers that end without poststop


def reboot(host: Host, container: Container) -> None:
    """Remove what the kernel and /run hold, as a reboot does; keep what is on the disk."""
    host.leaves("dir /run/mount")  # created by mount(8) and umount(8)
    kill(host, container.pid or 0)
    host.containers.remove(container)
    record = json.loads(host.read(f"{RESULTS}/mynet-c1-eth0"))
    record["cnihook"]["boot"] = "00000000-0000-0000-0000-000000000000"
    host.write(f"{RESULTS}/mynet-c1-eth0", json.dumps(record), 0o600)
    host.run("umount", "/run/netns/c1")
    host.run("rm", "-r", "/run/cnihook", "/run/netns/c1")
    host.run("nft", "flush", "ruleset")
    host.run("ip", "link", "del", "cni0")


def test_first_start_after_reboot_releases_old_attachments(host: Host, container: Container) -> None:
    """Leases are on the disk, but their containers are gone."""
    call_hook(host, "createRuntime", state_of(container))
    reboot(host, container)
    assert leases(host) == ["10.22.0.2"]
    after = host.container("c2", process=True)

    assert call_hook(host, "createRuntime", state_of(after)).returncode == 0
    assert host.listdir(RESULTS) == ["mynet-c2-eth0"]
    assert leases(host) == [after.addresses("eth0")[0].partition("/")[0]]
    assert call_hook(host, "poststop", state_of(after)).returncode == 0


def test_container_with_reused_pid_counts_as_dead(host: Host, container: Container) -> None:
    """The kernel reuses PIDs; the start time distinguishes the two processes."""
    call_hook(host, "createRuntime", state_of(container))
    record = json.loads(host.read(f"{RESULTS}/mynet-c1-eth0"))
    record["cnihook"]["start"] -= 2  # one tick less can be the rounding of a time namespace
    host.write(f"{RESULTS}/mynet-c1-eth0", json.dumps(record), 0o600)

    assert host.run(CNIHOOK, "gc").stdout == "released c1: mynet eth0 10.22.0.2/16\n"
    assert clean(host)


@pytest.mark.parametrize("how", ["poststop", "gc"])
def test_recorded_plugins_are_used_for_del(host: Host, container: Container, how: str) -> None:
    """Other plugins of the same name cannot undo it, and CNI_PATH may differ between ADD and DEL."""
    call_hook(host, "createRuntime", state_of(container))
    if how == "poststop":
        result = call_hook(host, "poststop", state_of(container), "--cni-path", str(REFERENCE))
    else:
        kill(host, container.pid or 0)
        host.containers.remove(container)
        result = host.run(CNIHOOK, "gc", "--cni-path", str(REFERENCE), check=False)

    assert (result.returncode, result.stderr) == (0, "")
    assert clean(host)


def test_moved_plugin_is_found_in_given_folder(host: Host, container: Container) -> None:
    path = external(host, "outer", PASS_ON)
    conf = {"cniVersion": "0.4.0", "name": "mynet", "plugins": [json.loads(MYNET), {"type": "outer"}]}
    configure(host, conf)
    call_hook(host, "createRuntime", state_of(container), "--cni-path", path)
    host.run("mv", f"{path}/outer", "/run/.host/outer")

    assert call_hook(host, "poststop", state_of(container)).returncode == 1
    assert call_hook(host, "poststop", state_of(container), "--cni-path", "/run/.host").returncode == 0
    assert calls(host) == ["outer ADD", "outer DEL"]
    assert clean(host)
    host.leaves("file /run/cnihook/log/c1")  # the log of a failure is kept


def test_full_range_is_freed_of_dead_containers(host: Host) -> None:
    """Otherwise crashed containers would use up a small network."""
    network = bridge("mynet", "10.22.0.0/29")
    configure(host, network)
    for number in range(5):
        crashed = host.container(f"c{number}", process=True)
        assert call_hook(host, "createRuntime", state_of(crashed)).returncode == 0
        crashed.destroy()
        wait_for(lambda pid=crashed.pid: not host.exists(f"/proc/{pid}"), "the container's end")  # type: ignore[misc]
    last = host.container("last", process=True)

    assert call_hook(host, "createRuntime", state_of(last)).returncode == 0
    assert host.listdir(RESULTS) == ["mynet-last-eth0"]
    assert call_hook(host, "poststop", state_of(last)).returncode == 0


def test_attachments_of_other_runtimes_are_left_alone(host: Host, container: Container) -> None:
    """Podman and Kubernetes keep their records in the same folder."""
    foreign = {
        "kind": "cniCacheV1",
        "containerId": "p1",
        "config": "e30=",
        "ifName": "eth0",
        "networkName": "foreign",
    }
    host.write(f"{RESULTS}/foreign-p1-eth0", json.dumps(foreign))
    host.write(f"{RESULTS}/damaged-c1-eth0", "")

    call_hook(host, "createRuntime", state_of(container))
    assert call_hook(host, "poststop", state_of(container)).returncode == 0
    assert host.run(CNIHOOK, "gc").stdout == ""
    assert host.listdir(RESULTS) == ["foreign-p1-eth0"], "the empty one may be cnihook's"
    host.leaves(f"file {RESULTS}/*")


def test_relative_folders_start_at_the_working_folder(host: Host) -> None:
    """Users call the hook so by hand.  The hook itself changes its working folder to /."""
    host.write("/etc/cni/own/10-mynet.conf", MYNET)
    host.leaves("* /etc/cni/own*")
    container = host.container("c1", process=True)
    launcher = ("sh", "-c", 'cd /etc/cni && exec "$@"', "sh")

    call_hook(host, "createRuntime", state_of(container), "--conf-dir", "own", launcher=launcher)

    assert leases(host) == ["10.22.0.2"]
    call_hook(host, "poststop", state_of(container))
