# SPDX-License-Identifier: Apache-2.0
"""
The pause container: it only holds the network namespace that the real container then shares.

Its image comes from no registry.  It is one program of 130 bytes, written here, that asks the kernel to
sleep.  On a machine with another instruction set, it is the machine's own static busybox.
"""

import json
import os
import shutil
import struct
import subprocess
import time

from cnihook.fast.errors_text import one_line
from cnihook.protocol import locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_IMAGE = "cnihook/pause:1"  # the number goes up when the image changes
_MARK = "CNIHOOK_PAUSE"  # the environment variable that identifies its process
_START = 5.0  # seconds that its process may take from docker's report to its program
_TIMEOUT = 120.0  # seconds for one request to the daemon; a busy machine with a slow disk needs many

# Sleep; if a signal ends that, sleep again.
_CODE = {
    # mov eax, 34 (pause); syscall; jmp
    "x86_64": (62, bytes.fromhex("b822000000 0f05 ebf7")),
    # mov x0..x3, 0; mov x8, 73 (ppoll); svc 0; b
    "aarch64": (183, bytes.fromhex("000080d2 010080d2 020080d2 030080d2 280980d2 010000d4 faffff17")),
}


class DockerError(Exception):
    """An error of the docker client or its daemon, in one line."""


class Docker:
    """The docker client of this machine: it finds the daemon, and has access to it."""

    def __init__(self) -> None:
        program = shutil.which("docker")
        if not program:
            raise DockerError("there is no docker on PATH; Debian has it in docker.io")
        self.program = program

    def __call__(self, *words: str, stdin: bytes = b"") -> str:
        """Run one command and return its output.  It has its own session: Ctrl-C is not meant for it."""
        try:
            process = subprocess.run(
                [self.program, *words],
                input=stdin,
                capture_output=True,
                timeout=_TIMEOUT,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise DockerError(f"docker {words[0]}: no answer from the daemon in {_TIMEOUT:g} s") from None
        except OSError as error:
            raise DockerError(f"{self.program}: {error.strerror}") from None
        if process.returncode:
            raise DockerError(
                _reason(process.stderr.decode(errors="replace")) or f"docker {words[0]} failed"
            )
        return process.stdout.decode(errors="replace")


def _reason(stderr: str) -> str:
    """Return docker's error without the name before it and the advice after it."""
    text = stderr.strip().removeprefix("docker: ").split("\n\n")[0]
    return one_line(text.partition("\nSee 'docker")[0])


class Pause:
    """A pause container that runs, as `docker inspect` describes it."""

    def __init__(self, facts: "dict[str, Any]") -> None:
        self.facts = facts
        self.name: str = facts["Name"].removeprefix("/")
        self.id: str = facts["Id"]
        self.pid: int = facts["State"]["Pid"]
        self.hostname: str = facts["Config"]["Hostname"]
        self.domain: str = facts["Config"]["Domainname"]
        # /etc/hosts and /etc/resolv.conf of both containers, as files of the host
        self.hosts: str = facts["HostsPath"]
        self.resolv_conf: str = facts["ResolvConfPath"]

    @property
    def is_alive(self) -> bool:
        """True if its process runs on this machine, and its PID is not another process's by reuse."""
        try:
            with open(f"/proc/{self.pid}/environ", "rb") as file:
                return f"{_MARK}={self.name}".encode() in file.read().split(b"\0")
        except OSError:
            return False

    def wait_until_alive(self) -> bool:
        """Wait until is_alive.  Return False if that never happens.

        When docker reports the start, runc's own process may not have executed the program yet.
        """
        deadline = time.monotonic() + _START
        while not self.is_alive:
            if time.monotonic() > deadline or not os.path.exists(f"/proc/{self.pid}"):
                return False
            time.sleep(0.01)
        return True


def start(docker: Docker, name: str, options: list[str]) -> Pause:
    """Start a pause container, whose network has only a loopback.  Raises DockerError."""
    # The daemon removes it when it ends, even if no process is left to request that.  It needs no privilege.
    words = ["run", "--detach", "--rm", "--pull=never", "--name", name, "--env", f"{_MARK}={name}"]
    words += ["--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    words += ["--log-driver=none", "--stop-signal=KILL", *options, _IMAGE]
    # Before the start, not after a start that failed: another docker-run may make the image in between, and
    # the error would have no cause any more.
    if not _has_image(docker):
        make_image(docker)
    docker(*words)
    try:
        pause = Pause(json.loads(docker("inspect", "--type=container", name))[0])
        if not pause.wait_until_alive():
            raise DockerError(
                "the docker daemon runs its containers elsewhere; docker-run needs one on this machine"
            )
        return pause
    except BaseException:
        remove(docker, name)
        raise


def remove(docker: Docker, name: str) -> None:
    """Remove a pause container, if it is there.  Raises DockerError."""
    try:
        docker("rm", "--force", name)
    except DockerError:  # in some versions of docker, also if there is no such container
        if docker("ps", "--all", "--quiet", "--filter", f"name=^{name}$"):
            raise


def _has_image(docker: Docker) -> bool:
    try:
        return bool(docker("image", "inspect", "--format", "{{.Id}}", _IMAGE))
    except DockerError:
        return False


def make_image(docker: Docker, machine: str = "") -> None:
    """Make the image, once per daemon, even if several processes need it at a time."""
    import io  # no other start needs these two
    import tarfile

    program, entry = _program(machine or os.uname().machine)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        info = tarfile.TarInfo(entry[0])
        info.size, info.mode = len(program), 0o755
        tar.addfile(info, io.BytesIO(program))
    with locks.pause_image(_TIMEOUT):
        if not _has_image(docker):
            change = f"ENTRYPOINT {json.dumps(entry)}"
            docker("import", "--change", change, "-", _IMAGE, stdin=archive.getvalue())


def _program(machine: str) -> tuple[bytes, list[str]]:
    """Return a static program that sleeps, and the command that starts it."""
    if machine in _CODE:
        return _elf(*_CODE[machine]), ["/pause"]
    busybox = shutil.which("busybox")
    if not busybox:
        raise DockerError(
            "there is no busybox to make the pause container from; Debian has it in busybox-static"
        )
    with open(busybox, "rb") as file:
        return file.read(), ["/busybox", "sleep", "2147483647"]


def _elf(machine: int, code: bytes) -> bytes:
    """Return an executable of one segment: header, program header, code.  elf(5)"""
    base, start = 0x400000, 64 + 56
    size = start + len(code)
    header = struct.pack(
        "<4sBBBB8xHHIQQQIHHHHHH",
        b"\x7fELF",
        2,
        1,
        1,
        0,
        2,
        machine,
        1,
        base + start,
        64,
        0,
        0,
        64,
        56,
        1,
        0,
        0,
        0,
    )
    segment = struct.pack(
        "<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x10000
    )  # PT_LOAD, readable, executable
    return header + segment + code
