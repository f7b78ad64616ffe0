# SPDX-License-Identifier: Apache-2.0
"""A throw-away host for each program that is measured, and the processes in it.

Everything runs below one process, which is PID 1 of a PID namespace.  When that ends, for any reason, the
kernel kills the rest, and with it all namespaces, mounts, links and rules are gone.
"""

import json
import os
import subprocess
import time
from collections.abc import Generator
from typing import Any, NamedTuple

from cnihook.linux import libc

CHECKOUT = os.path.realpath(f"{__file__}/../../../..")
PLAIN, CHAIN, CLUSTER = "plain", "chain", "cluster"
FOLDERS = {name: f"/etc/cni/{name}.d" for name in (PLAIN, CHAIN, CLUSTER)}
_BRIDGE: dict[str, Any] = {"type": "bridge", "isGateway": True, "ipMasq": True}
_IPAM: dict[str, Any] = {"type": "host-local", "routes": [{"dst": "0.0.0.0/0"}]}
# The plugins of each network; `cnihook cluster join` writes those of CLUSTER.
PLUGINS: dict[str, list[dict[str, Any]]] = {
    PLAIN: [{**_BRIDGE, "bridge": "bench0", "ipam": {**_IPAM, "subnet": "10.99.0.0/16"}}],
    CHAIN: [
        {**_BRIDGE, "bridge": "bench1", "ipam": {**_IPAM, "subnet": "10.98.0.0/16"}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "firewall"},
        {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}},
    ],
}
VERSION = "1.0.0"
# /etc/cni has the networks; the others are where programs keep their state.
_SETUP = """
mount --make-rprivate /
for folder in /run /var/lib/cni /var/log /var/lib/cnihook /etc/cni /etc/cnihook; do
  if mkdir -p $folder 2> /dev/null; then mount -t tmpfs tmpfs $folder; fi
done
# crun rejects a host with both versions of cgroups.
umount /sys/fs/cgroup/unified 2> /dev/null || true
mkdir -p /run/netns
ip link set lo up
echo ready
read -r _
"""
_CLONE_NEWNS = 0x00020000  # linux/sched.h
_LEFT_RUNNING = 60.0  # seconds that a process may work on after its parent has ended


class FailedError(Exception):
    """A program that had to succeed."""


class Cost(NamedTuple):
    """The cost of one or more processes, in ms.  `cpu` includes what they left to run behind them."""

    wall: float
    cpu: float

    def plus(self, other: "Cost") -> "Cost":
        return Cost(self.wall + other.wall, self.cpu + other.cpu)


class Spawn(NamedTuple):
    """A process to start."""

    argv: list[str]
    stdin: str
    variables: dict[str, str]


# One operation: yields its processes one by one, and is sent what each printed.
Operation = Generator[Spawn, str, None]


class Machine:
    """A network and a mount namespace.  What is started after enter() runs there."""

    def __init__(self) -> None:
        setup = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-ec", _SETUP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert setup.stdin and setup.stdout
        if setup.stdout.readline() != b"ready\n":
            raise FailedError("no namespaces; in a container, it may need --privileged")
        self._namespaces = [
            (os.open(f"/proc/{setup.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC), flag)
            for kind, flag in (("net", libc.CLONE_NEWNET), ("mnt", _CLONE_NEWNS))
        ]
        setup.communicate()
        self.enter()
        for name, plugins in PLUGINS.items():
            os.makedirs(FOLDERS[name])
            with open(f"{FOLDERS[name]}/10-{name}.conflist", "w") as file:
                json.dump({"cniVersion": VERSION, "name": name, "plugins": plugins}, file)

    def enter(self) -> None:
        for fd, flag in self._namespaces:
            libc.setns(fd, flag)

    def end(self) -> None:
        """Release the namespaces.  The caller enters another machine before."""
        for fd, _flag in self._namespaces:
            os.close(fd)


def configuration(name: str, plugin: "dict[str, Any]") -> "dict[str, Any]":
    """Return what the plugin of a network receives on stdin."""
    return {"cniVersion": VERSION, "name": name, **plugin}


# Processes

_staying: set[int] = set()  # the PIDs of children that stay


def _start(spawn: Spawn, slot: int = 0) -> "tuple[int, float]":
    """Start a process.  `slot`: a number among those that run at once.  Returns the PID and the time."""
    streams = f"/run/bench.{slot}"
    with open(f"{streams}.in", "w") as file:
        file.write(spawn.stdin)
    write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, f"{streams}.in", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, f"{streams}.out", write, 0o600),
        (os.POSIX_SPAWN_OPEN, 2, f"{streams}.err", write, 0o600),
    ]
    environment = {**os.environ, **spawn.variables}
    began = time.perf_counter()
    return os.posix_spawnp(spawn.argv[0], spawn.argv, environment, file_actions=actions), began


def _output(spawn: Spawn, status: int, slot: int = 0) -> str:
    """Return what a process printed.  Raises FailedError if it failed."""
    with open(f"/run/bench.{slot}.out") as file:
        text = file.read()
    if status:
        with open(f"/run/bench.{slot}.err") as file:
            raise FailedError(f"{' '.join(spawn.argv)} failed: {(text + file.read()).strip()[-500:]}")
    return text


def run(*argv: str, stdin: str = "", **variables: str) -> "tuple[Cost, str]":
    """Run one process to its end.  Returns its cost and what it printed."""
    spawn = Spawn(list(argv), stdin, variables)
    pid, began = _start(spawn)
    _pid, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - began
    text = _output(spawn, status)
    return Cost(wall * 1000, (usage.ru_utime + usage.ru_stime + _finish_orphans()) * 1000), text


def _finish_orphans() -> float:
    """Wait for processes that a program left running.  Returns the seconds of CPU that they took."""
    cpu = 0.0
    deadline = time.monotonic() + _LEFT_RUNNING
    while True:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            orphans = set(map(int, file.read().split())) - _staying
        if not orphans:
            return cpu
        for pid in orphans:
            ended, _status, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                cpu += usage.ru_utime + usage.ru_stime
        if time.monotonic() > deadline:
            raise FailedError(f"processes {orphans} do not end")
        time.sleep(0.001)


def perform(operation: Operation) -> Cost:
    """Run the processes of an operation one after the other."""
    cost = Cost(0, 0)
    try:
        spawn = next(operation)
        while True:
            one, text = run(*spawn.argv, stdin=spawn.stdin, **spawn.variables)
            cost = cost.plus(one)
            spawn = operation.send(text)
    except StopIteration:
        return cost


def perform_together(operations: "list[Operation]", at_once: int) -> float:
    """Run operations, a number of them at any time.  Returns the seconds until all have ended."""
    pending = list(operations)[::-1]
    running: dict[int, tuple[int, Operation, Spawn]] = {}

    def begin(slot: int) -> None:
        if pending:
            operation = pending.pop()
            spawn = next(operation)
            running[_start(spawn, slot)[0]] = slot, operation, spawn

    began = time.perf_counter()
    for slot in range(at_once):
        begin(slot)
    while running:
        pid, status = os.waitpid(-1, 0)
        if pid not in running:
            continue  # left behind by a program
        slot, operation, spawn = running.pop(pid)
        try:
            following = operation.send(_output(spawn, status, slot))
            running[_start(following, slot)[0]] = slot, operation, following
        except StopIteration:
            begin(slot)
    seconds = time.perf_counter() - began
    _finish_orphans()
    return seconds


class Daemon:
    """A process that runs until end()."""

    def __init__(self, *argv: str) -> None:
        null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
        self.pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=null)
        _staying.add(self.pid)

    def end(self) -> None:
        if self.pid in _staying:
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
            _staying.remove(self.pid)


class Sandbox(Daemon):
    """A process in a network namespace of its own, as a container runtime has it before createRuntime."""

    def __init__(self) -> None:
        super().__init__("unshare", "--net", "sleep", "infinity")
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{self.pid}/ns/net") == own:
            time.sleep(0.001)
