# SPDX-License-Identifier: Apache-2.0
"""A docker daemon inside a throw-away host: it starts in 0.3 s, and leaves nothing outside."""

import json
import os
import pty
import re
import select
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.host.host import Host
from tests.support.host.namespace import Process, base_environment, end
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import NET_D, RESULTS, leases, make_rootfs, wait_for
from tests.support.skip import need

DOCKER_RUN = str(CHECKOUT / "scripts" / "docker-run")
IMAGE = "busybox"
# Docker 26 loses what a container prints that ends at once: on a busy machine that of 3 in 150 `docker run`.
# The shell's own messages are hidden, such as "Killed".
LINGERING = (
    *("sh", "-c", 'exec 3>&2 2>/dev/null; (exec 2>&3 3>&-; exec "$@"); status=$?; sleep 0.2; exit $status'),
    "sh",
)


@contextmanager
def daemon_with(folder: Path, runtimes: dict[str, str]) -> "Iterator[Docker]":
    """Yield a daemon in a host of its own.  `runtimes`: programs by the names under which it knows them."""
    config = {"runtimes": {name: {"path": path} for name, path in runtimes.items()}}
    (folder / "daemon.json").write_text(json.dumps(config))
    with Host() as host:
        daemon = Docker(host, folder, make_rootfs(folder / "rootfs"), f"--config-file={folder}/daemon.json")
        yield daemon
        daemon.close()


class Docker:
    """The daemon, its client, and docker-run.  `folder` has their files; the leak check does not see it.

    `options`: further options of the daemon, after those that it needs in a throw-away host.
    """

    def __init__(self, host: Host, folder: Path, rootfs: Path, *options: str) -> None:
        need("docker", "dockerd", "containerd", "runc", "tar")
        self.host = host
        self.folder = folder
        self._options = options
        self.env = base_environment()
        self.env |= {"DOCKER_HOST": f"unix://{folder}/socket", "DOCKER_CONFIG": str(folder)}
        # All running tests share the machine's cgroups.
        self._cgroup = f"cnihook-{uuid.uuid4().hex[:12]}"
        self._daemon = self._start()
        version = self("version", "--format", "{{.Server.Version}}").stdout
        self._loses_output = int(version.partition(".")[0]) >= 26
        # No registry can be reached, and none is needed.
        host.run("sh", "-c", f"tar -C {rootfs} -c . | docker import - {IMAGE}", env=self.env)

    def _start(self) -> Process:
        with open(self.folder / "log", "ab") as log:
            daemon = self.host.popen(
                "dockerd", f"--cgroup-parent=/{self._cgroup}", "--live-restore",
                "--storage-driver=vfs", "--bridge=none", "--iptables=false",
                f"--data-root={self.folder}/data", f"--exec-root={self.folder}/exec",
                f"--pidfile={self.folder}/pid", f"--host=unix://{self.folder}/socket", *self._options,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        wait_for((self.folder / "socket").exists, "the daemon's socket")
        wait_for(lambda: self("version", check=False).returncode == 0, "the daemon")
        return daemon

    def close(self) -> None:
        self.stop()
        for path in Path("/sys/fs/cgroup").glob(f"*/{self._cgroup}"):
            path.rmdir()

    def stop(self) -> None:
        """End the daemon.  Its containers go on, because of live-restore."""
        self.host.run("kill", str(self._daemon.inside_pid))
        self._daemon.wait(30)
        end(self._daemon)

    def reload(self) -> None:
        """Let the daemon read its configuration again, as `systemctl reload docker` does."""
        self.host.run("kill", "-HUP", str(self._daemon.inside_pid))

    def restart(self) -> None:
        self._daemon = self._start()

    def __call__(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        if words[0] == "run":
            words = self._lingering(words)
        return self.host.run("docker", *words, env=self.env, check=check)

    def run(self, *words: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run docker-run to its end; it must not print a traceback."""
        process = self.host.run(DOCKER_RUN, *self._lingering(words), env=self.env, check=check, **options)
        assert "Traceback" not in process.stderr, process.stderr
        return process

    def _lingering(self, words: "tuple[str, ...]") -> "tuple[str, ...]":
        """Let the container live a little longer than its command, if its output would be lost otherwise."""
        if not self._loses_output or IMAGE not in words or {"-d", "--detach"} & {*words}:
            return words
        end = words.index(IMAGE) + 1
        return (*words[:end], *LINGERING, *words[end:]) if words[end:] else words

    def popen(self, *words: str, **options: Any) -> Process:
        return self.host.popen(DOCKER_RUN, *words, env=self.env, **options)

    def containers(self) -> list[str]:
        """Return the names of all containers, including those that have ended."""
        return self("ps", "--all", "--format", "{{.Names}}").stdout.split()

    def state(self, name: str) -> str:
        return self("inspect", "--format", "{{.State.Status}}", name, check=False).stdout.strip()

    def wait_until_running(self, name: str) -> None:
        wait_for(lambda: self.state(name) == "running", f"container {name}")

    def wait_until_left(self) -> None:
        """Wait until no process of docker-run is left."""
        wait_for(lambda: not self.keepers(), "the end of the keeper")

    def keepers(self) -> list[int]:
        """Return the PIDs of docker-run's processes, as seen outside."""
        space = os.readlink(f"/proc/{self.host.holder}/ns/pid")
        pids = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(entry / "ns/pid") == space and DOCKER_RUN.encode() in (
                    entry / "cmdline"
                ).read_bytes().split(b"\0"):
                    pids.append(int(entry.name))
            except OSError:
                pass
        return pids

    def expect_nothing(self) -> None:
        """Wait until the watcher has ended; assert that nothing is left of any container."""
        self.wait_until_left()
        assert self.containers() == []
        assert leases(self.host) == self.host.listdir(RESULTS) == self.host.listdir("/run/netns") == []

    def begin_test(self, networks: dict[str, str]) -> Host:
        """Write these files into net.d, and save the state of the daemon's host for the leak check."""
        host = self.host
        # The next test gets the first address again.
        shutil.rmtree(host.root / "var/lib/cni/networks", ignore_errors=True)
        for name, text in networks.items():
            host.write(f"{NET_D}/{name}", text)
        host.stay = ["dir /run/containerd*", "file /run/containerd*", f"file {NET_D}/*"]
        host.save_state()
        return host

    def end_test(self) -> None:
        """Remove the containers that the test has left, and fail if it has left any."""
        left = self.containers()
        if left:
            self("rm", "--force", *left)
        self.wait_until_left()
        for name in self.host.listdir(NET_D):
            (self.host.root / NET_D.lstrip("/") / name).unlink()
        assert not left, "the test leaves containers"


class Terminal:
    """docker-run on a terminal of its own.  type() sends keys, expect() reads the output."""

    def __init__(self, docker: Docker, *words: str) -> None:
        self._fd, terminal = pty.openpty()
        argv = ("setsid", "--ctty", DOCKER_RUN, *words)
        self.process = docker.host.popen(
            *argv, env=docker.env, stdin=terminal, stdout=terminal, stderr=terminal
        )
        os.close(terminal)
        self.output = ""

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def expect(self, pattern: str, timeout: float = 10) -> None:
        """Read until the output matches; the output up to the match is dropped."""
        deadline = time.monotonic() + timeout
        while not (match := re.search(pattern, self.output)):
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.output!r}"
            if select.select([self._fd], [], [], left)[0]:
                try:
                    self.output += os.read(self._fd, 65536).decode(errors="replace")
                except OSError:  # its last user has closed it
                    assert re.search(pattern, self.output), f"no {pattern!r} in {self.output!r}"
        self.output = self.output[match.end() :]

    def status(self) -> int:
        code = self.process.wait(30)
        os.close(self._fd)
        end(self.process)
        return code
