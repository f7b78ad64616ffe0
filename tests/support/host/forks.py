# SPDX-License-Identifier: Apache-2.0
"""A process that forks for each call of a program, so that Python starts and imports once.

The program's code is the same after that.  Where its start itself is tested, it is executed.
"""

import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tests.support.host import enclosure

CHECKOUT = Path(__file__).resolve().parents[3]
START = """\
import sys
sys.path.append({checkout!r})
from {module} import main
main()
"""
LONGEST = 20_000  # characters of a request: up to six times as many bytes, and a socket takes 200 kB


def python(module: str, *interpreter: str) -> list[str]:
    """Return the command that runs main() of a module of the tests, by default as cnihook is run: without
    the packages of the tests' environment.
    """
    start = START.format(checkout=str(CHECKOUT), module=module)
    return [*(interpreter or ("/usr/bin/python3", "-IS")), "-c", start]


class Space(Protocol):
    """A network namespace, and the process that holds its throw-away host."""

    holder: int
    net_outside: str


class Forks:
    """The process, which runs forkserver.serve().  `argv` starts it, with its socket as an argument more."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._requests, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with server:
            self._server = subprocess.Popen(
                [*argv, str(server.fileno())],
                cwd=CHECKOUT,
                # Otherwise each fork would look up the functions of libraries again: 0.3 ms.
                env={**os.environ, "LD_BIND_NOW": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[server.fileno()],
            )

    @property
    def pid(self) -> int:
        return self._server.pid

    @property
    def has_ended(self) -> bool:
        return self._server.poll() is not None

    def close(self) -> None:
        self._requests.close()
        self._server.wait(30)

    def call(
        self, space: Space, argv: Sequence[str], request: Any, input: bytes | None, timeout: float
    ) -> "subprocess.CompletedProcess[str]":
        """Serve a request in a namespace.  `argv`: the call that it stands for, as messages show it.

        Raises TimeoutExpired.  The process then ends with its throw-away host.
        """
        stdin, stderr = _stdin(input), os.memfd_create("stderr")
        (output, stdout), (ended, answer) = os.pipe(), os.pipe()
        holder = f"/proc/{space.holder}/ns"
        spaces = [
            enclosure.open_space(path) for path in (f"{holder}/pid", f"{holder}/mnt", space.net_outside)
        ]
        try:
            socket.send_fds(
                self._requests, [json.dumps(request).encode()], [*spaces, stdin, stdout, stderr, answer]
            )
        finally:
            for descriptor in (*spaces, stdin, stdout, answer):
                os.close(descriptor)
        try:
            until = time.monotonic() + timeout
            chunks = [_read(descriptor, until) for descriptor in (output, ended)]
            os.lseek(stderr, 0, os.SEEK_SET)
            problem = os.read(stderr, 1 << 24)
        finally:
            for descriptor in (stderr, output, ended):
                os.close(descriptor)
        written, status = chunks
        if written is None or status is None:
            raise subprocess.TimeoutExpired(argv, timeout)
        assert status, f"{' '.join(argv)} could not be started"
        return subprocess.CompletedProcess(argv, int(status), _text(written), _text(problem))


def _stdin(content: bytes | None) -> int:
    if content is None:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    descriptor = os.memfd_create("stdin")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _text(output: bytes) -> str:
    """Decode output as subprocess does."""
    return output.decode(errors="surrogateescape").replace("\r\n", "\n").replace("\r", "\n")


def _read(descriptor: int, until: float) -> bytes | None:
    """Read until the writer closes its end, or return None if it does not in time."""
    ready = select.poll()
    ready.register(descriptor, select.POLLIN)
    chunks: list[bytes] = []
    while ready.poll(max(0, until - time.monotonic()) * 1000):
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
    return None
