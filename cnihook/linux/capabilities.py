# SPDX-License-Identifier: Apache-2.0
"""Capabilities of a process, as the kernel shows them.  <linux/capability.h> has the numbers."""

from cnihook.fast import descriptor

NET_ADMIN = 12

_SETS = (b"CapBnd:", b"CapPrm:")  # what it can get from a program file, and what it has


def may_have(pid: int, number: int) -> bool:
    """Return True if a process has a capability or can get it; False if the process has ended."""
    try:
        lines = descriptor.content(f"/proc/{pid}/status").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(int(line.split()[1], 16) >> number & 1 for line in lines if line.startswith(_SETS))
