# SPDX-License-Identifier: Apache-2.0
"""
A throw-away host whose first process is the caller, so that containers and the leak check cost little.

tests/support/host/host.py has a host outside the process of pytest, and starts a program for each action in
it.  Here a process enters a host of its own, and stays.  It creates containers by fork(2), traces the hook,
and reads the state of the kernel itself.  One host serves some hundred faults, as long as nothing leaks.
"""

import fcntl
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn

from cnihook.linux import netns
from cnihook.runtime.records import ENDINGS
from tests.support.host import enclosure
from tests.support.plugins.cni import CHECKOUT
from tests.support.soak import state, tracer
from tests.support.soak.tracer import Fault, Outcome

PYTHON = ("/usr/bin/python3", "-IS")
CNIHOOK = (*PYTHON, str(CHECKOUT / "scripts" / "cnihook"))
NET_D = "/etc/cni/net.d"
BUNDLES = "/run/.host/bundles"
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
LOGS = ("/run/cnihook/log", "/var/log/cnihook")
SHOWN = 12  # lines of a difference
PATIENCE = 3.0  # seconds for the kernel to take down the links of a namespace without users


class Problem(Exception):
    """The report of something that must not happen after a fault; its text is one line or more.

    `kind`: "leak", "hung", "duplicate" (two containers with one address), or "error" for anything else.
    """

    def __init__(self, text: str, kind: str = "error") -> None:
        super().__init__(text)
        self.kind = kind

    def after(self, line: str) -> "Problem":
        """Return the problem with a line before its text."""
        return Problem(f"{line}\n{self}", self.kind)


def enter(work: Callable[[], None]) -> NoReturn:
    """Call a function as process 1 of a new throw-away host; then exit, with 1 if it raised.

    The host ends with the calling process, which ends with its parent.
    """
    enclosure.end_with_parent()
    enclosure.make()
    pid = os.fork()
    if pid:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)
    enclosure.end_with_parent()
    enclosure.mount_proc()
    # A failing hook imports further modules.  It must not store their compiled code in the checkout.
    enclosure.bind(str(CHECKOUT), str(CHECKOUT), read_only=True)
    with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
        file.write("1")
    work()
    os._exit(0)


class Box:
    """A process with a network namespace of its own, which stands for a container."""

    def __init__(self, name: str, *, annotations: "dict[str, str] | None" = None, bundle: str = "") -> None:
        self.id = name
        self.annotations = annotations or {}
        self.bundle = bundle or "/nowhere"
        read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                enclosure.make_net()
                os.close(read)
                os.write(write, b".")
                os.closerange(0, 64)
                os.execv("/bin/sleep", ["sleep", "2147483647"])
            finally:
                os._exit(127)
        os.close(write)
        os.read(read, 1)
        os.close(read)

    @property
    def netns(self) -> str:
        return f"/proc/{self.pid}/ns/net"

    @property
    def state(self) -> str:
        """The text that a runtime writes to the hook's stdin."""
        fields = {"ociVersion": "1.0.2", "id": self.id, "status": "created", "pid": self.pid}
        return json.dumps({**fields, "bundle": self.bundle, "annotations": self.annotations})

    def view(self) -> list[str]:
        """Return the links, addresses, routes and qdiscs inside."""
        return state.in_namespace(self.netns, state.kernel)

    def kill(self) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


class Rig:
    """This host, with some networks.  Everything else in it belongs to one fault."""

    def __init__(self, networks: "Mapping[str, Any]") -> None:
        for name, network in networks.items():
            self.write_network(name, network)
        self.networks = networks
        self.boxes: list[Box] = []
        self.neighbours: list[Box] = []
        self.waited = 0.0  # the longest call
        self._before: frozenset[str] = frozenset()

    def write_network(self, name: str, network: "Mapping[str, Any]") -> None:
        write(f"{NET_D}/{name}.conflist", json.dumps({"cniVersion": "1.0.0", "name": name, **network}))

    # Containers

    def box(self, name: str, **options: Any) -> Box:
        box = Box(name, **options)
        self.boxes.append(box)
        return box

    def bundle(self, name: str, folder: str = BUNDLES, **config: Any) -> str:
        """Write a bundle with config.json and a root file system with /etc/hosts.  Returns its folder."""
        folder = f"{folder}/{name}"
        write(f"{folder}/rootfs/etc/hosts", "127.0.0.1\tlocalhost\n")
        namespaces = [{"type": kind} for kind in ("network", "mount", "uts")]
        base = {"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "linux": {"namespaces": namespaces}}
        write(f"{folder}/config.json", json.dumps({**base, "hostname": name, **config}))
        return folder

    def end_boxes(self) -> None:
        """End the containers of the last fault."""
        for box in self.boxes:
            box.kill()
        self.boxes.clear()
        tracer.reap()
        for folder in LOGS:
            shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(BUNDLES, ignore_errors=True)

    # Programs

    def run(
        self,
        *argv: str,
        stdin: str = "",
        fault: "Fault | None" = None,
        statuses: Sequence[int] = (1, 2),
        **options: Any,
    ) -> Outcome:
        """Run a program of cnihook to its end.  Raises Problem if it hangs or its output is wrong."""
        outcome = tracer.run(argv, stdin, ENVIRONMENT, fault, **options)
        _wait_for_ending()
        self.waited = max(self.waited, outcome.seconds)
        what = " ".join(argv[len(PYTHON) :]).replace(f"{CHECKOUT}/scripts/", "")
        if outcome.hit:
            what = f"at {outcome.hit}: {what}"
        if outcome.hung:
            raise Problem(f"{what} hung for {outcome.seconds:.0f} s\n{outcome.stderr}", "hung")
        if "Traceback" in outcome.stderr or outcome.status not in (0, *statuses, -signal.SIGKILL):
            raise Problem(f"{what} ended with {outcome.status}\n{outcome.stderr}")
        if outcome.status in (1, 2) and not (outcome.stderr.strip() or outcome.stdout.strip() or fault):
            raise Problem(f"{what} exited with {outcome.status} and gave no reason")
        return outcome

    def hook(self, event: str, box: Box, fault: "Fault | None" = None, **options: Any) -> Outcome:
        return self.run(*CNIHOOK, event, stdin=box.state, fault=fault, **options)

    def command(self, *arguments: str, **options: Any) -> Outcome:
        return self.run(*CNIHOOK, *arguments, **options)

    def must(self, outcome: Outcome, what: str) -> Outcome:
        """Raise Problem unless a program succeeded."""
        if outcome.status != 0:
            raise Problem(f"{what} exited with {outcome.status}: {outcome.stderr.strip()}")
        return outcome

    def attach(self, name: str, **options: Any) -> Box:
        """Attach a new container.  Raises Problem if that fails."""
        box = self.box(name, **options)
        self.must(self.hook("createRuntime", box), f"createRuntime of {name}")
        return box

    @property
    def is_ending(self) -> bool:
        """True if the fault has hit the process that removes what an ended container had."""
        try:
            return bool(os.listdir(ENDINGS))
        except FileNotFoundError:
            return False

    # The leak check

    def settle(self) -> None:
        """Save the state for check(), as soon as it no longer changes: a process may be about to end."""
        for folder in LOGS:
            shutil.rmtree(folder, ignore_errors=True)
        deadline = time.monotonic() + PATIENCE
        self._before = self.look()
        while (now := self.look()) != self._before and time.monotonic() < deadline:
            self._before = now
            time.sleep(0.02)

    def look(self) -> frozenset[str]:
        return state.of_host({box.pid for box in (*self.boxes, *self.neighbours)}) | {
            f"in {box.id}: {line}" for box in self.neighbours for line in box.view()
        }

    def check(self, stay: Sequence[str] = ()) -> None:
        """Raise Problem with every difference from the state that settle() saved.

        `stay`: regular expressions of lines that may differ.  The folder of endings is made by the first one
        and stays.  The comparison is repeated for a while,
        because the kernel removes a namespace some time after its last user has ended.
        """
        deadline, pause = time.monotonic() + PATIENCE, 0.002
        while True:
            now = self.look()
            new, gone = (
                [
                    line
                    for line in lines
                    if not any(re.fullmatch(one, line) for one in (*stay, f"dir {ENDINGS}"))
                ]
                for lines in (now - self._before, self._before - now)
            )
            if not new and not gone:
                return
            if time.monotonic() > deadline:
                break
            time.sleep(pause)
            pause = min(2 * pause, 0.1)
            tracer.reap()
        raise Problem("\n".join([*_shortened("+", new), *_shortened("-", gone)]), "leak")


def _wait_for_ending() -> None:
    """Wait until no process in the background removes what an ended container had."""
    deadline = time.monotonic() + PATIENCE
    path = f"/run/cnihook/lock/ending-{netns.inode_of_host()}.lock"
    while time.monotonic() < deadline:
        try:
            with open(path) as lock:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return None
        except BlockingIOError:
            time.sleep(0.002)
            tracer.reap()
    return None


def _shortened(sign: str, lines: Collection[str]) -> list[str]:
    """Return the most important lines, and the number of the others."""

    def rank(line: str) -> int:
        if line.startswith("nft"):
            return 1 if "comment" in line else 2
        return 3 if line.startswith(("sysctl", "qdisc", "route", "dir")) else 0

    ordered = sorted(lines, key=lambda line: (rank(line), line))
    rest = [f"{sign} and {len(ordered) - SHOWN} lines more"] if len(ordered) > SHOWN else []
    return [f"{sign} {line}" for line in ordered[:SHOWN]] + rest


def write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
