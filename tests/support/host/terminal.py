# SPDX-License-Identifier: Apache-2.0
"""An interactive shell in a throw-away host, on a terminal that a test types to and reads."""

import fcntl
import os
import re
import select
import struct
import termios
import time
from types import TracebackType

from tests.support.host.host import Host
from tests.support.host.namespace import base_environment, end

SHELL = "bash --norc --noprofile --noediting -i"
CTRL_C, CTRL_D, CTRL_Z, CTRL_BACKSLASH = "\x03", "\x04", "\x1a", "\x1c"


class Terminal:
    def __init__(self, host: Host, shell: str = SHELL) -> None:
        self._fd, terminal = os.openpty()
        self.resize(24, 80)
        self._seen = ""
        self._process = host.popen(
            *("setsid", "--ctty", *shell.split()),
            env=base_environment() | {"PS1": "ready> ", "TERM": "dumb"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        self.wait_for("ready> ")
        host.leaves(f"process {shell}")  # until the test's own end

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            if kind is None:
                self.type("exit\n")
                self._process.wait(30)
            os.close(self._fd)
        end(self._process)

    def hang_up(self) -> None:
        """Close the terminal, as when its window is closed or the connection is lost."""
        os.close(self._fd)
        self._fd = -1

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, pattern: str, timeout: float = 20) -> "re.Match[str]":
        """Read until the pattern matches.  The text after the match is left for the next call."""
        deadline = time.monotonic() + timeout
        while not (match := re.search(pattern, self._seen)):
            remaining = deadline - time.monotonic()
            readable = select.select([self._fd], [], [], max(remaining, 0))[0]
            assert readable, f"no {pattern!r} within {timeout:g} s in:\n{self._seen}"
            self._seen += os.read(self._fd, 65536).decode(errors="replace")
        self._seen = self._seen[match.end() :]
        return match

    def status(self) -> int:
        """Wait for the shell's prompt.  Returns the exit status of the last command."""
        self.wait_for("ready> ")
        self.type("echo status=$?\n")
        return int(self.wait_for(r"status=(\d+)\s")[1])
