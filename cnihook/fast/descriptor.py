# SPDX-License-Identifier: Apache-2.0
"""Read a small file, and close a descriptor that nothing was written to."""

import os


def content(path: str) -> bytes:
    """Return a file of /proc or /sys, of at most 64 KiB.  Python's open() makes three more system calls."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 1 << 16)
    finally:
        close(fd)


def close(fd: int) -> bool:
    """Close a descriptor; return False if the kernel reports an error.  The descriptor is freed in any case.

    close(2) reports an earlier failed write, or a signal.  Neither is a reason to fail after the work is
    done.
    """
    try:
        os.close(fd)
    except OSError:
        return False
    return True
