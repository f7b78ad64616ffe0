# SPDX-License-Identifier: Apache-2.0
"""The time limit of a command, for `priv-net-run --timeout`."""

import _signal
import os
import time

from cnihook.linux import netns
from cnihook.process.signals import SIGKILL, SIGTERM

STATUS = 124  # like timeout(1)
_GRACE = 5.0  # seconds between SIGTERM and SIGKILL


class Deadline:
    """A time limit from now on.  At its end, the command and all processes of its namespace are ended.

    All, because a shell that is ended leaves its children behind.  In a namespace with other processes, only
    the command is ended.
    """

    def __init__(self, seconds: float, command: int, namespace: "tuple[int, int] | None") -> None:
        self._next = time.monotonic() + seconds
        self._command = command
        self._namespace = namespace
        self.is_over = False

    def remaining(self) -> float:
        return max(self._next - time.monotonic(), 0)

    def expire(self) -> None:
        """End the processes: send SIGTERM at first, then SIGKILL, again and again."""
        signum = SIGKILL if self.is_over else SIGTERM
        self.is_over = True
        self._next = time.monotonic() + _GRACE
        pids = netns.processes(self._namespace) if self._namespace else []
        for pid in {self._command, *pids}:
            try:
                os.kill(pid, signum)
                os.kill(pid, _signal.SIGCONT)  # a stopped process gets SIGTERM only then
            except ProcessLookupError:
                pass
