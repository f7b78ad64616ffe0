# SPDX-License-Identifier: Apache-2.0
"""The built-in plugins, each call a fork of one process that has them in memory.

An executable would start Python and import its modules each time.  This is half of the processor time of a
plugin's test, and four fifths in a guest on an emulated processor.  After the fork, the code is the same as
in the executable.  tests/netns/test_protocol.py and `cnihook conformance` test the executables themselves.
"""

import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.host import enclosure
from tests.support.plugins.cni import CHECKOUT, Implementation, write_launchers

if TYPE_CHECKING:
    from tests.support.host.host import Host

SECONDS = 60


class Forked(Implementation):
    """`folder` has the executables; `path`, for CNI_PATH, has none, so delegates are not started either."""

    def __init__(self, folder: Path) -> None:
        super().__init__("builtin", folder, [])
        self.path = folder / "none"
        write_launchers(folder)
        self._requests, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with server:
            argv = [sys.executable, "-m", "tests.support.plugins.forkserver", str(server.fileno())]
            self._server = subprocess.Popen(argv, cwd=CHECKOUT, pass_fds=[server.fileno()])

    def close(self) -> None:
        self._requests.close()
        self._server.wait(30)

    def run(
        self, host: "Host", plugin: str, conf: str, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        stdin, stderr = os.memfd_create("stdin"), os.memfd_create("stderr")
        os.write(stdin, conf.encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        (output, stdout), (ended, answer) = os.pipe(), os.pipe()
        holder = f"/proc/{host.holder}/ns"
        spaces = [
            enclosure.open_space(path) for path in (f"{holder}/pid", f"{holder}/mnt", host.net_outside)
        ]
        try:
            message = json.dumps([plugin, environment]).encode()
            socket.send_fds(self._requests, [message], [*spaces, stdin, stdout, stderr, answer])
        finally:
            for descriptor in (*spaces, stdin, stdout, answer):
                os.close(descriptor)
        try:
            until = time.monotonic() + SECONDS
            written, status = read(output, until, plugin), read(ended, until, plugin)
            os.lseek(stderr, 0, os.SEEK_SET)
            problem = os.read(stderr, 1 << 20)
        finally:
            for descriptor in (stderr, output, ended):
                os.close(descriptor)
        assert status, f"{plugin} could not be started"
        return subprocess.CompletedProcess([plugin], int(status), written.decode(), problem.decode())


def read(descriptor: int, until: float, plugin: str) -> bytes:
    """Read until the writer closes its end."""
    ready = select.poll()
    ready.register(descriptor, select.POLLIN)
    chunks: list[bytes] = []
    while ready.poll(max(0, until - time.monotonic()) * 1000):
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
    raise subprocess.TimeoutExpired([plugin], SECONDS)
