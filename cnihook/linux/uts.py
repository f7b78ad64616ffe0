# SPDX-License-Identifier: Apache-2.0
"""The host name of another process, if it has a UTS namespace of its own."""

import os
from _socket import sethostname

from cnihook.linux import libc


def set_hostname(pid: int, name: str) -> None:
    """Set the host name that a process sees.

    Raises OSError, also if the process is in the UTS namespace of this one.
    """
    home = os.open("/proc/thread-self/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
    try:
        inside = os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.path.samestat(os.fstat(home), os.fstat(inside)):
                raise OSError(16, "it is the host's own")
            libc.setns(inside, libc.CLONE_NEWUTS)
        finally:
            os.close(inside)
        try:
            sethostname(name)
        finally:
            libc.setns(home, libc.CLONE_NEWUTS)
    finally:
        os.close(home)
