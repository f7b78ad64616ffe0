# SPDX-License-Identifier: Apache-2.0
"""For a process that is to outlive its parent, or to be out of its way."""

import os


def leave_caller(*kept: int) -> None:
    """Leave the caller's session and terminal, and close the files that it gave us, but for those `kept`."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                pass  # the one by which the list was read
