# SPDX-License-Identifier: Apache-2.0
"""An interactive shell on a terminal of its own, in a throw-away host: typed at, and read."""

import fcntl
import os
import re
import select
import struct
import termios
import time
from types import TracebackType

from tests.support.host import Host
from tests.support.namespace import base_environment, end

SHELL = "bash --norc --noprofile --noediting -i"
CTRL_C, CTRL_D, CTRL_Z, CTRL_BACKSLASH = "\x03", "\x04", "\x1a", "\x1c"


class Terminal:
    def __init__(self, host: Host) -> None:
        self._ours, theirs = os.openpty()
        self.resize(24, 80)
        self._seen = ""
        self._process = host.popen(
            *("setsid", "--ctty", *SHELL.split()),
            env=base_environment() | {"PS1": "ready> ", "TERM": "dumb"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.wait_for("ready> ")
        host.leaves(f"process {SHELL}")  # until the test's own end

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ours >= 0:
            if kind is None:
                self.type("exit\n")
                self._process.wait(30)
            os.close(self._ours)
        end(self._process)

    def hang_up(self) -> None:
        """As when the window is closed, or the connection lost."""
        os.close(self._ours)
        self._ours = -1

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, pattern: str, timeout: float = 20) -> "re.Match[str]":
        """Read until the pattern appears.  What comes after it is left for the next call."""
        deadline = time.monotonic() + timeout
        while not (found := re.search(pattern, self._seen)):
            remaining = deadline - time.monotonic()
            readable = select.select([self._ours], [], [], max(remaining, 0))[0]
            assert readable, f"no {pattern!r} within {timeout:g} s in:\n{self._seen}"
            self._seen += os.read(self._ours, 65536).decode(errors="replace")
        self._seen = self._seen[found.end() :]
        return found

    def status(self) -> int:
        """The exit status of the last command, when the shell is back."""
        self.wait_for("ready> ")
        self.type("echo status=$?\n")
        return int(self.wait_for(r"status=(\d+)\s")[1])
