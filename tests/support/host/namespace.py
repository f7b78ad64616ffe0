# SPDX-License-Identifier: Apache-2.0
"""Programs and sockets inside the namespaces of a throw-away host."""

import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

from tests.support.commands import forked
from tests.support.host import enclosure
from tests.support.skip import SEARCH, need_open_checkout
from tests.support.wait import patience

T = TypeVar("T")


class Failed(AssertionError):
    """The failure of a program that had to succeed; its output is in the message."""

    def __init__(self, argv: Sequence[str], status: int, stdout: str, stderr: str) -> None:
        super().__init__(f"{' '.join(argv)}: exit {status}\n{stdout}{stderr}".rstrip())
        self.status = status
        self.stdout = stdout
        self.stderr = stderr


class Process(subprocess.Popen[str]):
    """A program inside.  `with` kills it if the body fails, and waits for its end."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end as Popen does, and then for its last thread.

        The last thread of a program in Go removes its entries in /proc after the program has ended.  If this
        process removes those of the program at the same time, both spin: 2 ms for a reference plugin.
        """
        with suppress(ProcessLookupError):  # another thread has waited for it
            if self.returncode is None:
                if not self._has_ended(timeout):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0)
                time.sleep(0.0005)
        return super().wait(timeout)

    def _has_ended(self, timeout: float | None) -> bool:
        """Wait for its end, but do not take its exit status."""
        ended = os.pidfd_open(self.pid)
        try:
            ready = select.poll()
            ready.register(ended, select.POLLIN)
            return bool(ready.poll(None if timeout is None else max(0, timeout) * 1000))
        finally:
            os.close(ended)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind:
            self.kill()
        super().__exit__(kind, error, trace)

    @property
    def inside(self) -> int:
        """The PID as seen outside the throw-away host."""
        return self.pid

    @property
    def inside_pid(self) -> int:
        """The PID as seen by programs in the throw-away host."""
        return pid_inside(self.pid)


def pid_inside(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("NSpid:")]
    return int(line.split()[-1])


class Starter:
    """A thread in a throw-away host, so that the programs which it starts are in the host.

    An nsenter for each program would be a third of the cost of a short one.  The thread stays until the end,
    because a program that requests a signal at its parent's death gets it when the starting thread ends.
    """

    def __init__(self, move: Callable[[], int]) -> None:
        """Start the thread.  `move` moves it into the host, and returns its network namespace."""
        self._started: list[Process] = []
        self._thread = ThreadPoolExecutor(1)
        self._task = self._thread.submit(threading.get_native_id).result()
        self._home = self._thread.submit(move).result()

    def start(self, argv: Sequence[str], net: str | None = None, **options: Any) -> Process:
        """Start a program, in the thread's network namespace or another."""
        start = partial(Process, argv, text=True, errors="surrogateescape", **options)
        if net is None:
            return self._thread.submit(start).result()
        space = enclosure.open_space(net)
        try:
            process = self._thread.submit(self._start, space, start).result()
        finally:
            os.close(space)
        self._started.append(process)
        return process

    def _start(self, space: int, start: Callable[[], Process]) -> Process:
        enclosure.enter_net(space)
        try:
            return start()
        finally:
            enclosure.enter_net(self._home)  # otherwise this thread would keep the other namespace alive

    def add_net(self, path: str) -> None:
        """Create a named network namespace as `ip netns add` does, in a quarter of its time."""
        self._thread.submit(enclosure.make_net).result()
        space = enclosure.open_space(f"/proc/self/task/{self._task}/ns/net")
        try:
            self._thread.submit(enclosure.enter_net, self._home).result()
            self._thread.submit(enclosure.name_net, space, path).result()
        finally:
            os.close(space)

    def delete_net(self, path: str) -> None:
        self._thread.submit(enclosure.forget_net, path).result()

    def reap(self) -> None:
        """Take the exit statuses of programs that have ended."""
        self._started = [process for process in self._started if process.poll() is None]

    def end(self) -> None:
        """Wait for all programs that were started here.  Call it after the host's first process is killed.

        The host ends only after that.
        """
        self._thread.shutdown()
        os.close(self._home)
        for process in self._started:
            process.wait(30)


class Namespace:
    """A network namespace of a throw-away host, with that host's files and processes."""

    def __init__(self, holder: int, net: str, name: str, starter: "Starter | None" = None) -> None:
        self.name = name
        self.holder = holder
        self.root = Path(f"/proc/{holder}/root")  # the host's files, from outside
        self.net_outside = net
        self.starter = starter or Starter(partial(enclosure.enter, holder))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def popen(
        self,
        *argv: str,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = subprocess.PIPE,
        stderr: int | IO[Any] | None = subprocess.PIPE,
        **options: Any,
    ) -> Process:
        """Start a program.  `env`: its whole environment, base_environment() by default."""
        if any("--reuid" in word for word in argv):
            need_open_checkout()
        environment = dict(base_environment() if env is None else env)
        return self.starter.start(
            argv,
            self.net_outside,
            env=environment,
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            **options,
        )

    def run(
        self,
        *argv: str,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        check: bool = True,
        timeout: float = 60,
        fork: bool = True,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end.  With `check`, raise Failed with its output if it exits with another
        code than 0.

        `fork`: a command of cnihook may be a fork of a process that has it in memory.
        """
        outcome = None
        if fork and not options:
            outcome = forked.run(self, argv, base_environment() if env is None else env, cwd, input, timeout)
        if outcome is None:
            outcome = self._start(argv, env, cwd, input, timeout, options)
        if check and outcome.returncode != 0:
            raise Failed(argv, outcome.returncode, outcome.stdout, outcome.stderr)
        return outcome

    def _start(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None,
        cwd: str,
        input: str | None,
        timeout: float,
        options: Mapping[str, Any],
    ) -> subprocess.CompletedProcess[str]:
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        with self.popen(*argv, env=env, cwd=cwd, stdin=stdin, **options) as process:
            try:
                stdout, stderr = process.communicate(input, timeout)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(list(argv), process.returncode, stdout, stderr)

    def ip(self, *argv: str) -> Any:
        """Return the parsed output of `ip -j ARGV`, or None if it is empty."""
        text = self.run("ip", "-j", *argv).stdout
        return json.loads(text) if text.strip() else None

    def link(self, name: str) -> Any:
        """Return one link with all details that `ip` prints."""
        (link,) = self.ip("-d", "addr", "show", "dev", name)
        return link

    def links(self) -> set[str]:
        return {link["ifname"] for link in self.ip("link")}

    def addresses(self, name: str) -> list[str]:
        """Return the addresses of a link as CIDR, without link-local ones, which the kernel adds."""
        return [
            f"{address['local']}/{address['prefixlen']}"
            for address in self.link(name)["addr_info"]
            if address["scope"] != "link"
        ]

    def routes(self, family: int = 4) -> list[tuple[str, str | None, str]]:
        """Return destination, gateway and link of each route in the main table."""
        return [
            (route["dst"], route.get("gateway"), route["dev"])
            for route in self.ip(f"-{family}", "route")
            if not route["dst"].startswith("fe80:")
        ]

    def sysctl(self, key: str) -> str:
        return self.inside(Path(f"/proc/sys/{key}").read_text).strip()

    def set_sysctl(self, key: str, value: str) -> None:
        """Set a value of this network namespace.  A shell takes ten times as long."""
        self.inside(partial(Path(f"/proc/sys/{key}").write_text, value))

    def inside(self, function: Callable[[], T]) -> T:
        """Call a function in this network namespace, in a thread that ends with it.

        A socket that the function creates stays in the namespace.  Files and processes are those outside.
        """
        outcome: list[T] = []
        problem: list[BaseException] = []

        def enter() -> None:
            try:
                net = enclosure.open_space(self.net_outside)
                try:
                    enclosure.enter_net(net)
                finally:
                    os.close(net)
                outcome.append(function())
            except BaseException as error:
                problem.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if problem:
            raise problem[0]
        return outcome[0]

    def socket(
        self, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET, protocol: int = 0
    ) -> socket.socket:
        """Return a socket in this namespace that the test itself can use, with a timeout."""
        opened = self.inside(lambda: socket.socket(family, kind, protocol))
        opened.settimeout(patience())
        return opened

    def write(self, path: str, content: str, mode: int = 0o644) -> None:
        """Write a file of the throw-away host; create the folders above it."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, newline="")
        file.chmod(mode)

    def read(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_bytes().decode()

    def exists(self, path: str) -> bool:
        return os.path.lexists(self.root / path.lstrip("/"))

    def listdir(self, path: str) -> list[str]:
        """Return the names in a folder of the throw-away host, sorted; none if the folder does not exist."""
        folder = self.root / path.lstrip("/")
        return sorted(os.listdir(folder)) if folder.is_dir() else []


def base_environment() -> dict[str, str]:
    """Return this process's environment without variables of CNI, cnihook, sudo and Python.

    PATH also has the folders of the administrator's programs.
    """
    return dict(_environment())


@cache  # a test needs it some twenty times
def _environment() -> dict[str, str]:
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("CNI_", "PYTHON", "PYTEST_", "CNIHOOK_", "SUDO_"))
        and key not in ("NETCONFPATH", "CAP_ARGS")
    }
    return kept | {"PATH": SEARCH}


def end(process: subprocess.Popen[Any]) -> None:
    """Kill a child process and wait until it is gone."""
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.wait(30)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            stream.close()
