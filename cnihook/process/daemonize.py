# SPDX-License-Identifier: Apache-2.0
"""The detachment of a process from its caller, which it outlives or must not disturb."""

import os
import select

_LONGEST = 5000  # ms: a caller that waits for nothing has ended long before


def daemonize(*kept: int) -> None:
    """Leave the caller's session and terminal, and close its files except for those `kept`.

    A caller may wait until all of its files are closed.
    """
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                pass  # the descriptor of the listing itself


def outlive(caller: int) -> None:
    """Return when the process has ended that has forked this one to be free at once."""
    try:
        process = os.pidfd_open(caller)
    except OSError:
        return  # it has ended
    waiting = select.poll()
    waiting.register(process, select.POLLIN)
    waiting.poll(_LONGEST)
    os.close(process)
