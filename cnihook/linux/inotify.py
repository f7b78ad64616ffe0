# SPDX-License-Identifier: Apache-2.0
"""inotify(7): a notification that a file was written."""

import os

from cnihook.fast import ctypes_lite

# <linux/inotify.h>
IN_CLOSE_WRITE = 0x8
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
_IN_CLOEXEC = os.O_CLOEXEC

_libc = ctypes_lite.Library(None)
_init1 = _libc.function("inotify_init1", ctypes_lite.Int, ctypes_lite.Int)
_add_watch = _libc.function(
    "inotify_add_watch", ctypes_lite.Int, ctypes_lite.Int, ctypes_lite.CString, ctypes_lite.Int
)


def watch(path: str, events: int) -> int:
    """Return a descriptor that is readable after one of `events`.  Raises OSError."""
    fd: int = _init1(_IN_CLOEXEC)
    if fd < 0:
        ctypes_lite.raise_errno()
    if _add_watch(fd, os.fsencode(path), events) < 0:
        try:
            ctypes_lite.raise_errno(path)
        finally:
            os.close(fd)
    return fd
