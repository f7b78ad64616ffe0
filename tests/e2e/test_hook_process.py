# SPDX-License-Identifier: Apache-2.0
"""The hook as a process: what it is born with, what befalls it on the way, what it finds left behind."""

import json
import stat
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cni import REFERENCE
from tests.support.host import Container, Host
from tests.support.namespace import Process
from tests.support.oci import (
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
    """A program that does to itself what a runtime does to its child, and becomes the hook."""
    program = ["import os, signal, sys", *lines, "os.execv(sys.argv[1], sys.argv[1:])", ""]
    host.write(LAUNCHER, "\n".join(program))
    return ("/usr/bin/python3", "-IS", LAUNCHER)


def slow_network(host: Host, script: str = "if [ $CNI_COMMAND = ADD ]; then sleep 60; fi") -> str:
    """A second network, whose last plugin takes its time; the folder of that plugin."""
    second = bridge("second", "10.23.0.0/24")
    second["plugins"].append({"type": "slow"})
    configure(host, MYNET, second)
    return external(host, "slow", script)


def begun(
    host: Host, container: Container, event: str, *arguments: str, launcher: tuple[str, ...] = ()
) -> Process:
    """The hook, not waited for."""
    process = host.popen(*launcher, *HOOK, event, *arguments, stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.write(json.dumps(state_of(container)))
    process.stdin.close()
    process.stdin = None
    return process


def clean(host: Host) -> bool:
    return not (host.listdir(RESULTS) or leases(host) or leases(host, "second"))


# What it is born with

BLOCKED = "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"
IGNORED = "for n in (1, 2, 13, 15, 17): signal.signal(n, signal.SIG_IGN)"
BIRTHS = {
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
    "output that nobody reads": ["r, w = os.pipe()", "os.dup2(w, 1)", "os.dup2(w, 2)", "os.close(r)"],
    "few descriptors": ["import resource", "resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))"],
    "a session of its own": ["os.setsid()"],
}


@pytest.mark.parametrize("birth", BIRTHS)
def test_hook_works_however_it_is_born(host: Host, birth: str) -> None:
    """With a plugin of each kind, since an executable inherits what the hook does not put right."""
    network = json.loads(MYNET)
    path = external(host, "outer", PASS_ON)
    conf = {"cniVersion": "0.4.0", "name": "mynet", "plugins": [network, {"type": "outer"}]}
    configure(host, conf)
    container = host.container("c1", process=True)
    start = launcher(host, *BIRTHS[birth])

    assert (
        call_hook(host, "createRuntime", state_of(container), "--cni-path", path, launcher=start).returncode
        == 0
    )
    assert container.addresses("eth0") == ["10.22.0.2/16"]
    record = json.loads(host.read(f"{RESULTS}/mynet-c1-eth0"))
    assert record["result"]["ips"][0]["address"] == "10.22.0.2/16"
    for folder in (RESULTS, NETWORKS, "/run/cnihook", "/run/netns"):
        for path_, mode in modes(host, folder):
            assert not mode & 0o022, f"{path_} can be written by anybody: {mode:o}"
            assert mode & 0o400, f"{path_} can be read by nobody: {mode:o}"
    assert (
        call_hook(host, "poststop", state_of(container), "--cni-path", path, launcher=start).returncode == 0
    )
    assert calls(host) == ["outer ADD", "outer DEL"]


def modes(host: Host, folder: str) -> Iterator[tuple[str, int]]:
    place = host.root / folder.lstrip("/")
    for path in [place, *place.rglob("*")]:
        yield str(path), stat.S_IMODE(path.stat().st_mode)


def test_plugins_are_not_born_as_the_hook_was(host: Host) -> None:
    """Blocked signals and umask 0 would be handed down to plugins, and to the helpers that those start."""
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
@pytest.mark.parametrize("becoming", ["", "unshare --map-root-user"], ids=["user", "his root"])
def test_whoever_is_not_root_is_told_so(host: Host, container: Container, event: str, becoming: str) -> None:
    """As under a runtime that runs rootless, in a user namespace or not."""
    host.run("mkdir", "-p", "/run/cnihook", "/var/lib/cni/results")
    nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups".split()
    done = call_hook(host, event, state_of(container), launcher=(*nobody, *becoming.split()))

    assert done.returncode == 1
    assert done.stderr.endswith(": Permission denied; only root can do that\n"), done.stderr


def test_closed_stdin_is_refused(host: Host) -> None:
    done = host.run(*launcher(host, "os.close(0)"), *HOOK, "createRuntime", check=False)

    check_output(done)
    assert done.returncode == 1 and "container state on stdin" in done.stderr


def test_names_that_others_have_taken_are_left_to_them(host: Host, container: Container) -> None:
    """Another's namespace may have the name already; the container is attached all the same."""
    host.run("ip", "netns", "add", "c1")
    inode = (host.root / "run/netns/c1").stat().st_ino

    assert call_hook(host, "createRuntime", state_of(container)).returncode == 0
    assert container.addresses("eth0") == ["10.22.0.2/16"]
    assert call_hook(host, "poststop", state_of(container)).returncode == 0
    assert (host.root / "run/netns/c1").stat().st_ino == inode
    host.run("ip", "netns", "del", "c1")


def test_runtime_may_have_mounts_of_its_own(host: Host, container: Container) -> None:
    """The name that the namespace gets is seen there alone; crun is run so where its cgroups need it."""
    configure(host, MYNET, bridge("second", "10.23.0.0/24"))
    alone = ("unshare", "--mount")

    call_hook(host, "createRuntime", state_of(container), "--network", "mynet", launcher=alone)
    call_hook(host, "createRuntime", state_of(container), "--network", "second")
    assert container.links() == {"lo", "eth0", "eth1"}
    assert call_hook(host, "poststop", state_of(container), launcher=alone).returncode == 0
    assert container.links() == {"lo"}
    assert clean(host)


@pytest.mark.parametrize("free", range(0, 33, 4))
def test_full_disk_is_refused_or_does_no_harm(host: Host, container: Container, free: int) -> None:
    """Wherever on its way the hook meets the end of the disk, it says so and takes back what it did."""
    host.leaves("dir /run/mount")  # of the program mount
    host.run("mount", "-o", "remount,size=256k", "/var/lib/cni")
    host.run("sh", "-c", "cat /dev/zero > /var/lib/cni/filler", check=False)
    host.run("truncate", "-s", f"-{free}k", "/var/lib/cni/filler")

    done = call_hook(host, "createRuntime", state_of(container))
    if done.returncode:
        assert "No space left on device" in done.stderr
        assert "/var/lib/cni/" in done.stderr
        assert leases(host) == host.listdir(RESULTS) == []
        assert host.links() == container.links() == {"lo"}
        host.leaves("file /run/cnihook/log/c1")
    else:
        assert container.addresses("eth0") == ["10.22.0.2/16"]
    assert call_hook(host, "poststop", state_of(container)).returncode == 0
    host.run("rm", "/var/lib/cni/filler")


# What befalls it on the way


def test_sigterm_takes_back_what_was_done(host: Host, container: Container) -> None:
    """Even to a hook that was born with all signals blocked."""
    path = slow_network(host)
    with begun(
        host, container, "createRuntime", "--cni-path", path, launcher=launcher(host, BLOCKED)
    ) as process:
        wait_for(lambda: calls(host) == ["slow ADD"], "the slow plugin")
        process.terminate()
        _, said = process.communicate(timeout=30)

    assert process.returncode == 1
    assert "interrupted by signal 15" in said and said.count("\n") == 1
    assert calls(host) == ["slow ADD", "slow DEL"]
    assert clean(host)
    host.leaves("file /run/cnihook/log/c1")


WAIT = f"while [ $CNI_COMMAND = ADD ] && [ ! -e /run/.host/go ]; do sleep 0.02; done\n{PASS_ON}"


def test_those_who_clear_away_wait_for_those_who_set_up(host: Host, container: Container) -> None:
    """`delete --force` during the start: poststop comes while createRuntime is still at it."""
    path = slow_network(host, WAIT)
    with begun(host, container, "createRuntime", "--cni-path", path) as create:
        wait_for(lambda: calls(host) == ["slow ADD"], "the slow plugin")
        assert host.run(CNIHOOK, "gc").stdout == "", "its process lives"
        with begun(host, container, "poststop") as poststop:
            time.sleep(0.2)  # it stands before the lock by then, which shows nowhere
            assert poststop.poll() is None
            host.write("/run/.host/go", "")
            assert create.communicate(timeout=30) == ("", "")
            assert poststop.communicate(timeout=30) == ("", "")

    assert (create.returncode, poststop.returncode) == (0, 0)
    assert calls(host) == ["slow ADD", "slow DEL"]
    assert clean(host)


def test_end_of_the_runtime_takes_back_what_was_done(host: Host, container: Container) -> None:
    """A runtime that is killed during its hook forgets the container: nobody would ever call poststop."""
    path = slow_network(host, WAIT)
    host.write("/run/.host/state", json.dumps(state_of(container)))
    command = (
        f"{' '.join(HOOK)} createRuntime --cni-path {path} < /run/.host/state 2> /run/.host/said & wait"
    )
    with host.popen("sh", "-c", command) as runtime:
        wait_for(lambda: calls(host) == ["slow ADD"], "the slow plugin")
        runtime.kill()
    host.write("/run/.host/go", "")

    wait_for(lambda: "the container runtime ended" in host.read("/run/.host/said"), "the hook")
    assert clean(host)
    host.leaves("file /run/cnihook/log/c1")


# Without a word


def reboot(host: Host, container: Container) -> None:
    """All that the kernel and /run held is gone, and what is on the disk stays."""
    host.leaves("dir /run/mount")  # of the programs mount and umount
    kill(host, container.pid or 0)
    host.containers.remove(container)
    record = json.loads(host.read(f"{RESULTS}/mynet-c1-eth0"))
    record["cnihook"]["boot"] = "00000000-0000-0000-0000-000000000000"
    host.write(f"{RESULTS}/mynet-c1-eth0", json.dumps(record), 0o600)
    host.run("umount", "/run/netns/c1")
    host.run("rm", "-r", "/run/cnihook", "/run/netns/c1")
    host.run("nft", "flush", "ruleset")
    host.run("ip", "link", "del", "cni0")


def test_first_start_after_a_reboot_releases_what_was_before(host: Host, container: Container) -> None:
    """Leases are on the disk, and their containers are not coming back."""
    call_hook(host, "createRuntime", state_of(container))
    reboot(host, container)
    assert leases(host) == ["10.22.0.2"]
    after = host.container("c2", process=True)

    assert call_hook(host, "createRuntime", state_of(after)).returncode == 0
    assert host.listdir(RESULTS) == ["mynet-c2-eth0"]
    assert leases(host) == [after.addresses("eth0")[0].partition("/")[0]]
    assert call_hook(host, "poststop", state_of(after)).returncode == 0


def test_container_whose_pid_is_somebody_elses_is_gone(host: Host, container: Container) -> None:
    """PIDs come round again; when its process began tells one from the other."""
    call_hook(host, "createRuntime", state_of(container))
    record = json.loads(host.read(f"{RESULTS}/mynet-c1-eth0"))
    record["cnihook"]["start"] -= 2  # a tick less may be the rounding of a time namespace
    host.write(f"{RESULTS}/mynet-c1-eth0", json.dumps(record), 0o600)

    assert host.run(CNIHOOK, "gc").stdout == "released c1: mynet eth0 10.22.0.2/16\n"
    assert clean(host)


@pytest.mark.parametrize("how", ["poststop", "gc"])
def test_whose_plugins_attached_those_detach(host: Host, container: Container, how: str) -> None:
    """Others of the same name know nothing of it; and CNI_PATH may well differ between the two."""
    call_hook(host, "createRuntime", state_of(container))
    if how == "poststop":
        done = call_hook(host, "poststop", state_of(container), "--cni-path", str(REFERENCE))
    else:
        kill(host, container.pid or 0)
        host.containers.remove(container)
        done = host.run(CNIHOOK, "gc", "--cni-path", str(REFERENCE), check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert clean(host)


def test_plugin_that_has_moved_is_found_by_those_who_name_its_folder(
    host: Host, container: Container
) -> None:
    path = external(host, "outer", PASS_ON)
    conf = {"cniVersion": "0.4.0", "name": "mynet", "plugins": [json.loads(MYNET), {"type": "outer"}]}
    configure(host, conf)
    call_hook(host, "createRuntime", state_of(container), "--cni-path", path)
    host.run("mv", f"{path}/outer", "/run/.host/outer")

    assert call_hook(host, "poststop", state_of(container)).returncode == 1
    assert call_hook(host, "poststop", state_of(container), "--cni-path", "/run/.host").returncode == 0
    assert calls(host) == ["outer ADD", "outer DEL"]
    assert clean(host)
    host.leaves("file /run/cnihook/log/c1")  # there was a failure


def test_full_range_is_freed_of_those_that_are_gone(host: Host) -> None:
    """A small network would be used up by containers that crashed."""
    network = bridge("mynet", "10.22.0.0/29")
    configure(host, network)
    for number in range(5):
        crashed = host.container(f"c{number}", process=True)
        assert call_hook(host, "createRuntime", state_of(crashed)).returncode == 0
        crashed.destroy()
        wait_for(lambda pid=crashed.pid: not host.exists(f"/proc/{pid}"), "its end")  # type: ignore[misc]
    last = host.container("last", process=True)

    assert call_hook(host, "createRuntime", state_of(last)).returncode == 0
    assert host.listdir(RESULTS) == ["mynet-last-eth0"]
    assert call_hook(host, "poststop", state_of(last)).returncode == 0


def test_attachments_of_other_runtimes_are_left_alone(host: Host, container: Container) -> None:
    """Podman and Kubernetes keep theirs in the same folder."""
    theirs = {
        "kind": "cniCacheV1",
        "containerId": "p1",
        "config": "e30=",
        "ifName": "eth0",
        "networkName": "theirs",
    }
    host.write(f"{RESULTS}/theirs-p1-eth0", json.dumps(theirs))
    host.write(f"{RESULTS}/damaged-c1-eth0", "")

    call_hook(host, "createRuntime", state_of(container))
    assert call_hook(host, "poststop", state_of(container)).returncode == 0
    assert host.run(CNIHOOK, "gc").stdout == ""
    assert host.listdir(RESULTS) == ["theirs-p1-eth0"], "the empty one may be of cnihook"
    host.leaves(f"file {RESULTS}/*")


def test_folders_may_be_relative_to_where_the_hook_is_called(host: Host) -> None:
    """As when somebody tries it by hand.  The hook itself works in / and nowhere else."""
    host.write("/etc/cni/own/10-mynet.conf", MYNET)
    host.leaves("* /etc/cni/own*")
    container = host.container("c1", process=True)
    launcher = ("sh", "-c", 'cd /etc/cni && exec "$@"', "sh")

    call_hook(host, "createRuntime", state_of(container), "--conf-dir", "own", launcher=launcher)

    assert leases(host) == ["10.22.0.2"]
    call_hook(host, "poststop", state_of(container))
