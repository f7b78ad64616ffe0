# SPDX-License-Identifier: Apache-2.0
"""What a command may take, for `priv-net-run --timeout`."""

import _signal
import os
import time

from cnihook.lean.signals import SIGKILL, SIGTERM
from cnihook.linux import netns

STATUS = 124  # as of timeout(1)
_GRACE = 5.0  # seconds between SIGTERM and SIGKILL


class Limit:
    """From now on.  When it is over, the command is ended, and all that runs in its namespace.

    All, because a shell that is ended leaves what it waits for.  In a namespace that others have, too, it is
    the command alone.
    """

    def __init__(self, seconds: float, command: int, namespace: "tuple[int, int] | None") -> None:
        self._next = time.monotonic() + seconds
        self._command = command
        self._namespace = namespace
        self.is_over = False

    def remaining(self) -> float:
        return max(self._next - time.monotonic(), 0)

    def act(self) -> None:
        """The time is over: SIGTERM at first, then SIGKILL, again and again."""
        signum = SIGKILL if self.is_over else SIGTERM
        self.is_over = True
        self._next = time.monotonic() + _GRACE
        found = netns.processes(self._namespace) if self._namespace else []
        for pid in {self._command, *found}:
            try:
                os.kill(pid, signum)
                os.kill(pid, _signal.SIGCONT)  # a process that is stopped would not hear of it
            except ProcessLookupError:
                pass
