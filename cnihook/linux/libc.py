# SPDX-License-Identifier: Apache-2.0
"""System calls on namespaces and mounts, of which the os module has only some, from Python 3.12 on."""

import os
from sys import byteorder

from cnihook.fast import ctypes_lite

# <sched.h>
CLONE_NEWNS, CLONE_NEWUTS = 0x20000, 0x4000000
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
# <sys/mount.h>
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = 0x1000, 0x2000, 0x4000, 1 << 18, 1 << 19, 1 << 20
MNT_DETACH = 2
# <sys/prctl.h>
PR_SET_PDEATHSIG = 1
# <linux/openat2.h>
RESOLVE_NO_SYMLINKS, RESOLVE_IN_ROOT = 4, 16
_SYS_OPENAT2 = 437  # <asm-generic/unistd.h>; the same on every architecture
# <linux/capability.h>
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes_lite.Library(None)
_setns = _libc.function("setns", ctypes_lite.Int, ctypes_lite.Int, ctypes_lite.Int)
_unshare = _libc.function("unshare", ctypes_lite.Int, ctypes_lite.Int)
_mount = _libc.function(
    "mount",
    ctypes_lite.Int,
    ctypes_lite.CString,
    ctypes_lite.CString,
    ctypes_lite.CString,
    ctypes_lite.ULong,
    ctypes_lite.CString,
)
_umount2 = _libc.function("umount2", ctypes_lite.Int, ctypes_lite.CString, ctypes_lite.Int)
_capset = _libc.function("capset", ctypes_lite.Int, ctypes_lite.CString, ctypes_lite.CString)
_openat2 = _libc.function(
    "syscall",
    ctypes_lite.Int,
    ctypes_lite.ULong,
    ctypes_lite.Int,
    ctypes_lite.CString,
    ctypes_lite.CString,
    ctypes_lite.ULong,
)
_hows: "dict[tuple[int, int], bytes]" = {}  # struct open_how: flags, mode, resolve
_prctl = _libc.function(
    "prctl",
    ctypes_lite.Int,
    ctypes_lite.Int,
    ctypes_lite.ULong,
    ctypes_lite.ULong,
    ctypes_lite.ULong,
    ctypes_lite.ULong,
)


def setns(fd: int, kind: int) -> None:
    if _setns(fd, kind) < 0:
        ctypes_lite.raise_errno()


def unshare(kinds: int) -> None:
    if _unshare(kinds) < 0:
        ctypes_lite.raise_errno()


def mount(
    source: str, target: str, kind: "str | None" = None, flags: int = 0, options: "str | None" = None
) -> None:
    def encode(text: "str | None") -> "bytes | None":
        return None if text is None else os.fsencode(text)

    if _mount(encode(source), encode(target), encode(kind), flags, encode(options)) < 0:
        ctypes_lite.raise_errno(target)


def umount(target: str, flags: int = 0) -> None:
    if _umount2(os.fsencode(target), flags) < 0:
        ctypes_lite.raise_errno(target)


def set_parent_death_signal(signum: int) -> None:
    """Have the kernel send `signum` to this process when its parent ends."""
    if _prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0) < 0:
        ctypes_lite.raise_errno()


def openat2(folder: int, path: str, flags: int, resolve: int) -> int:
    """Return a descriptor of `path` below the open `folder`, resolved by the RESOLVE_ flags.

    Raises OSError, with ELOOP for a symbolic link where none is allowed.
    """
    how = _hows.get((flags, resolve))
    if not how:
        how = b"".join(number.to_bytes(8, byteorder) for number in (flags | os.O_CLOEXEC, 0, resolve))
        _hows[flags, resolve] = how
    fd: int = _openat2(_SYS_OPENAT2, folder, os.fsencode(path), how, len(how))
    if fd < 0:
        ctypes_lite.raise_errno()
    return fd


def drop_capabilities() -> None:
    """Drop all capabilities for good.  The rights of the user ID remain."""
    if _capset(_CAPABILITY_VERSION_3.to_bytes(4, byteorder) + bytes(4), bytes(24)) < 0:
        ctypes_lite.raise_errno()
