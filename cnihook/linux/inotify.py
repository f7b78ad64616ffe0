# SPDX-License-Identifier: Apache-2.0
"""inotify(7): a notification that a file was written."""

import os

from cnihook.lean import ffi

# <linux/inotify.h>
IN_CLOSE_WRITE = 0x8
_IN_CLOEXEC = os.O_CLOEXEC

_libc = ffi.Library(None)
_init1 = _libc.function("inotify_init1", ffi.Int, ffi.Int)
_add_watch = _libc.function("inotify_add_watch", ffi.Int, ffi.Int, ffi.CString, ffi.Int)


def watch(path: str, events: int) -> int:
    """Return a descriptor that is readable after one of `events`.  Raises OSError."""
    fd: int = _init1(_IN_CLOEXEC)
    if fd < 0:
        ffi.raise_errno()
    if _add_watch(fd, os.fsencode(path), events) < 0:
        try:
            ffi.raise_errno(path)
        finally:
            os.close(fd)
    return fd
