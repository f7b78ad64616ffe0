# SPDX-License-Identifier: Apache-2.0
"""The system calls on namespaces and mounts, which the os module has only in part and only from Python 3.12
on.
"""

import os

from cnihook.lean import ffi

# <sched.h>
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWNET = 0x20000, 0x4000000, 0x40000000
# <sys/mount.h>
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = 0x1000, 0x2000, 0x4000, 1 << 18, 1 << 19, 1 << 20
MNT_DETACH = 2
# <sys/prctl.h>
PR_SET_PDEATHSIG = 1

_libc = ffi.Library(None)
_setns = _libc.function("setns", ffi.Int, ffi.Int, ffi.Int)
_unshare = _libc.function("unshare", ffi.Int, ffi.Int)
_mount = _libc.function("mount", ffi.Int, ffi.CString, ffi.CString, ffi.CString, ffi.ULong, ffi.CString)
_umount2 = _libc.function("umount2", ffi.Int, ffi.CString, ffi.Int)
_prctl = _libc.function("prctl", ffi.Int, ffi.Int, ffi.ULong, ffi.ULong, ffi.ULong, ffi.ULong)


def setns(fd: int, kind: int) -> None:
    if _setns(fd, kind) < 0:
        ffi.raise_errno()


def unshare(kinds: int) -> None:
    if _unshare(kinds) < 0:
        ffi.raise_errno()


def mount(
    source: str, target: str, kind: "str | None" = None, flags: int = 0, options: "str | None" = None
) -> None:
    def encode(text: "str | None") -> "bytes | None":
        return None if text is None else os.fsencode(text)

    if _mount(encode(source), encode(target), encode(kind), flags, encode(options)) < 0:
        ffi.raise_errno(target)


def umount(target: str, flags: int = 0) -> None:
    if _umount2(os.fsencode(target), flags) < 0:
        ffi.raise_errno(target)


def set_parent_death_signal(signum: int) -> None:
    """Have the kernel send `signum` to this process when its parent ends."""
    if _prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0) < 0:
        ffi.raise_errno()
