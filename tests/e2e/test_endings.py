# SPDX-License-Identifier: Apache-2.0
"""The end of a container's networks: what its poststop does at once, and what a process does after it."""

import fcntl
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cnihook.linux import netns
from tests.support.host.host import Container, Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import CNIHOOK, NETWORKS, RESULTS, bridge, call_hook, configure, leases

HOOK = ("/usr/bin/python3", "-IS", CNIHOOK)
PORTS: dict[str, Any] = {"type": "portmap", "capabilities": {"portMappings": True}}
NET = bridge("mynet", "10.22.0.0/30", ipMasq=True)
NET["plugins"] += [PORTS, {"type": "bandwidth", "ingressRate": 8000000, "ingressBurst": 8000000}]
IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.22.0.0/24"}], [{"subnet": "fd22::/64"}]]}
ENDINGS = "/run/cnihook/ending"


def plugin(kind: str, **keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": "mynet", "plugins": [{"type": kind, "ipam": IPAM, **keys}]}


def state_of(container: Container) -> dict[str, Any]:
    return {"ociVersion": "1.0", "id": container.name, "pid": container.pid, "bundle": "/nowhere"}


def start(host: Host, name: str = "c1", *arguments: str) -> Container:
    container = host.container(name, process=True)
    state = state_of(container)
    assert call_hook(host, "createRuntime", state, *arguments).returncode == 0
    return container


def stop(host: Host, container: Container) -> None:
    assert call_hook(host, "poststop", state_of(container)).returncode == 0


@contextmanager
def nobody_finishes(host: Host) -> Iterator[None]:
    """Hold the lock of the process that finishes, so that each poststop leaves that to a later one."""
    inode = host.inside(netns.inode_of_host)
    path = host.root / f"run/cnihook/lock/ending-{inode}.lock"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        host.waits_for_endings = False
        yield
        path.unlink()
    host.waits_for_endings = True


def end_of(host: Host, network: dict[str, Any], *, is_kept: bool) -> Container:
    """Start and end a container; `is_kept`: a process of its namespace lives on."""
    host.run("ip", *"link add dev0 type veth peer name dev1".split())
    host.run("ip", "link", "set", "dev1", "up")
    host.run("ip", "link", "set", "dev0", "up")
    host.save_state()
    configure(host, network)
    container = start(host)
    if not is_kept:
        container.destroy()
    stop(host, container)
    return container


def ports_of(host: Host, name: str) -> list[Any]:
    return [link for link in host.ip("-d", "link") if link.get("master") == name]


def test_poststop_silences_and_releases_at_once(host: Host) -> None:
    """Links, records and the namespace's name go later, but the container is cut off."""
    configure(host, NET)
    container = start(host, "c1", "--publish", "8080:80")
    with nobody_finishes(host):
        stop(host, container)

        assert leases(host) == [] and host.nft() == ""
        links = [link for link in host.ip("-d", "link") if link["ifname"] not in ("lo", "br-mynet")]
        assert {link["operstate"] for link in links} == {"DOWN"}, links
        assert host.listdir(RESULTS) == ["mynet-c1-eth0"] and host.listdir(ENDINGS) == ["c1"]
        assert host.listdir("/run/netns").count("c1") == 1
        assert "c1" not in host.run(CNIHOOK, "ps").stdout
    host.run(CNIHOOK, "gc")

    assert host.listdir(RESULTS) == host.listdir(ENDINGS) == []


def test_end_does_not_keep_the_runtime_waiting(host: Host) -> None:
    """A runtime waits until all pipes of its hook are closed, also by processes that the hook starts."""
    configure(host, NET)
    container = start(host)
    lock_path = host.root / "run/cnihook/lock/bridge-br-mynet.lock"
    with open(lock_path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the last step of the end waits for it
        process = host.popen(*HOOK, "poststop", stdin=subprocess.PIPE)
        with process:
            assert process.communicate(json.dumps(state_of(container)), timeout=20) == ("", "")
        assert host.listdir(ENDINGS) == ["c1"]
        lock_path.unlink()
    host.wait_for_endings()

    assert host.listdir(ENDINGS) == host.listdir(RESULTS) == []


# Print the child's sockets as soon as it has closed what is not its own, and the socket that it has to keep.
KEPT_SOCKET = """\
import os, time
from cnihook.linux import netlink
from cnihook.runtime import ending
own = os.readlink(f"/proc/self/fd/{netlink.netfilter().fileno()}")
other = netlink.Netlink()
ending.start()
(child,) = open(f"/proc/self/task/{os.getpid()}/children").read().split()
for _attempt in range(500):
    files = [os.readlink(f"/proc/{child}/fd/{fd}") for fd in os.listdir(f"/proc/{child}/fd")]
    if files.count("/dev/null") == 3 and len([each for each in files if "socket:" in each]) == 1:
        break
    time.sleep(0.01)
print(own in files, open(f"/proc/{child}/stat").read().split()[2] != "Z")
"""


def test_last_close_of_a_netfilter_socket_is_not_the_callers(host: Host) -> None:
    """After a transaction that removes something, the last close waits for a grace period of the kernel."""
    with nobody_finishes(host):  # so the process in the background has nothing to do but to live longer
        outcome = host.run("/usr/bin/python3", "-c", KEPT_SOCKET, env={"PYTHONPATH": str(CHECKOUT)})
    assert outcome.stdout == "True True\n"


def test_id_can_start_again_at_once(host: Host) -> None:
    configure(host, NET)
    old = start(host)
    with nobody_finishes(host):
        stop(host, old)
        old.destroy()
        new = start(host)
    host.run(CNIHOOK, "gc")

    assert new.addresses("eth0") == ["10.22.0.2/30"]
    assert new.run("ping", "-c1", "-W5", "10.22.0.1").returncode == 0
    stop(host, new)


def test_same_container_can_be_attached_again_at_once(host: Host) -> None:
    configure(host, NET)
    container = start(host)
    with nobody_finishes(host):
        stop(host, container)
        assert call_hook(host, "createRuntime", state_of(container)).returncode == 0
    assert container.run("ping", "-c1", "-W5", "10.22.0.1").returncode == 0
    stop(host, container)


def test_address_is_answered_by_its_new_owner_only(host: Host) -> None:
    """The network has one address, and a process keeps the namespace of the container that had it."""
    configure(host, NET)
    old = start(host)
    with nobody_finishes(host):
        stop(host, old)
        new = start(host, "c2")

        assert new.addresses("eth0") == old.addresses("eth0") == ["10.22.0.2/30"]
        assert host.run("ping", "-c3", "-i0.2", "-W5", "10.22.0.2").stdout.count(" bytes from ") == 3
        assert [n["lladdr"] for n in host.ip("neigh", "show", "10.22.0.2")] == [new.link("eth0")["address"]]
    host.run(CNIHOOK, "gc")
    assert old.links() == {"lo"}
    stop(host, new)


def test_bridge_of_the_last_container_stays_for_the_next(host: Host) -> None:
    configure(host, NET)
    old = start(host)
    with nobody_finishes(host):
        stop(host, old)
        new = start(host, "c2")
    host.run(CNIHOOK, "gc")

    assert len(ports_of(host, "br-mynet")) == 1
    assert new.run("ping", "-c1", "-W5", "10.22.0.1").returncode == 0
    stop(host, new)
    assert "br-mynet" not in host.links()


# In the guest: tests/vm/guest/test_endings.py has those that this machine's kernel may lack.
CHAINS: dict[str, dict[str, Any]] = {
    "bridge": NET,
    "ptp": plugin("ptp", ipMasq=True),
    "macvlan": plugin("macvlan", master="dev0"),
    "tap": plugin("tap"),
    "host-device": plugin("host-device", device="dev0"),
}


@pytest.mark.parametrize("kind", CHAINS)
@pytest.mark.parametrize("is_kept", [False, True], ids=["", "namespace is kept"])
def test_end_leaves_nothing(host: Host, kind: str, is_kept: bool) -> None:
    container = end_of(host, CHAINS[kind], is_kept=is_kept)

    assert host.listdir(RESULTS) == host.listdir(ENDINGS) == []
    if is_kept:
        assert container.links() == {"lo"}


@pytest.mark.needs("strace")
def test_many_ends_wait_once(host: Host, tmp_path: Path) -> None:
    """GC deletes the links of all containers that have ended with one request, and the bridge with one."""
    configure(host, bridge("mynet", "10.22.0.0/24"))
    for number in range(5):
        start(host, f"c{number}").destroy()
    log = tmp_path / "strace"

    released = host.run("strace", "-qq", "-e", "trace=sendto", "-o", str(log), *HOOK, "gc").stdout

    assert released.count("released") == 5
    assert len(re.findall("RTM_DELLINK", log.read_text())) <= 2
    assert leases(host) == host.listdir(RESULTS) == []


@pytest.mark.needs("strace")
@pytest.mark.parametrize("release", ["poststop", "gc", "createRuntime"])
@pytest.mark.parametrize("syscall", ["setsid", "dup2", "umount2"])
def test_killed_end_is_completed_later(host: Host, syscall: str, release: str) -> None:
    """The process after the poststop is killed; poststop itself makes none of these calls."""
    configure(host, NET)
    container = start(host)
    inject = ("-e", f"trace={syscall}", "-e", f"inject={syscall}:signal=KILL:when=1")
    state = json.dumps(state_of(container))
    outcome = host.run("strace", "-fqq", "-o", "/dev/null", *inject, *HOOK, "poststop", input=state)
    assert outcome.stderr == ""

    container.destroy()
    if release == "gc":
        assert host.run(CNIHOOK, "gc").stderr == ""
    else:
        container = start(host) if release == "createRuntime" else container
        stop(host, container)
    assert host.listdir(RESULTS) == host.listdir(ENDINGS) == leases(host) == []


@pytest.mark.needs("strace")
def test_failed_end_is_tried_again(host: Host) -> None:
    """The caller has returned, so no other process would notice the error."""
    configure(host, NET)
    container = start(host)
    inject = ("-e", "trace=umount2", "-e", "inject=umount2:error=EIO:when=1")
    state = json.dumps(state_of(container))
    host.run("strace", "-fqq", "-o", "/dev/null", *inject, *HOOK, "poststop", input=state)

    assert host.listdir(RESULTS) == host.listdir(ENDINGS) == []


@pytest.mark.needs("strace")
def test_poststop_that_cannot_fork_waits_itself(host: Host) -> None:
    configure(host, NET)
    container = start(host)
    inject = ("-e", "trace=clone,fork,vfork", "-e", "inject=clone,fork,vfork:error=EAGAIN")
    state = json.dumps(state_of(container))

    host.run("strace", "-qq", "-o", "/dev/null", *inject, *HOOK, "poststop", input=state)

    assert host.listdir(RESULTS) == host.listdir(ENDINGS) == []


def test_another_record_of_the_container_keeps_the_name(host: Host) -> None:
    """A container on two networks, one of which cannot be released now."""
    configure(host, NET, bridge("second", "10.23.0.0/24"))
    container = start(host)
    lock = f"{NETWORKS}/second/lock"
    host.run("rm", lock)
    host.run("mkdir", lock)  # a lease cannot be released

    assert call_hook(host, "poststop", state_of(container)).returncode == 1
    assert host.listdir(RESULTS) == ["second-c1-eth1"] and "c1" in host.listdir("/run/netns")
    host.run("rmdir", lock)
    stop(host, container)
    assert host.listdir(RESULTS) == [] and "c1" not in host.listdir("/run/netns")
    host.leaves("file /run/cnihook/log/c1")
