# SPDX-License-Identifier: Apache-2.0
"""Mounts that change what this process and its children see at a path, and nothing else."""

import errno
import os

from cnihook.linux import libc

# A folder that always exists.  What is mounted on it for a moment shows in this mount namespace only.
_SCRATCH = "/proc"
_OWN_SCRATCH = "/proc/self/task"  # the same, if other processes run in the mount namespace
_TMPFS = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC, "size=1m,mode=755"


def make_private() -> None:
    """Enter a new mount namespace.  The host's later mounts appear in it; mounts made in it stay there."""
    libc.unshare(libc.CLONE_NEWNS)
    libc.mount("none", "/", flags=libc.MS_SLAVE | libc.MS_REC)


def renew_sys() -> None:
    """Have /sys show the network namespace of this process, and keep what is mounted below it.

    A sysfs shows the interfaces of the namespace in which it was mounted, so a new one is needed.
    """
    flags, below = _mounts_of_sys()
    if flags is None:
        return  # outside, no interfaces are visible either
    libc.mount("sysfs", _SCRATCH, "sysfs", flags)
    for path in below:
        try:
            libc.mount(path, path.replace("/sys", _SCRATCH, 1), flags=libc.MS_BIND | libc.MS_REC)
        except FileNotFoundError:
            pass  # a folder of the old namespace's own interfaces
    try:
        libc.umount("/sys", libc.MNT_DETACH)
    except OSError as error:
        # A user namespace may not unmount what it began with.  The new /sys then covers the old one.
        if error.errno != errno.EINVAL:
            raise
    libc.mount(_SCRATCH, "/sys", flags=libc.MS_MOVE)


def _mounts_of_sys() -> "tuple[int | None, list[str]]":
    """Return the flags of the sysfs at /sys, None if there is none, and the paths of the mounts below it."""
    flags = None
    below: list[str] = []
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split() for line in file]
    for fields in sorted(mounts, key=lambda fields: fields[4]):
        path = fields[4]
        if path == "/sys" and fields[fields.index("-") + 1] == "sysfs":
            flags = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
            flags |= libc.MS_RDONLY if "ro" in fields[5].split(",") else 0
        # A recursive bind mount includes what is below it.
        if path.startswith("/sys/") and not any(f"{path}/".startswith(f"{above}/") for above in below):
            below.append(path)
    return flags, below


def replace_file(path: str, content: str) -> None:
    """Mount a new file over an existing one; if `path` is a symbolic link, over its target.

    Raises FileNotFoundError if there is none: a mount needs a mount point.
    """
    target = os.path.realpath(path)
    os.stat(target)
    # On a file system of its own, which ends with the last process that sees it, however that ends.
    libc.mount("tmpfs", _OWN_SCRATCH, "tmpfs", *_TMPFS)
    try:
        copy = f"{_OWN_SCRATCH}/{os.path.basename(target)}"
        _write(copy, content)
        libc.mount(copy, target, flags=libc.MS_BIND)
    finally:
        libc.umount(_OWN_SCRATCH, libc.MNT_DETACH)


def cover_folder(path: str, files: "dict[str, str]") -> None:
    """Mount a folder with these files, name: content, on an existing one, all at once."""
    target = os.path.realpath(path)
    libc.mount("tmpfs", _OWN_SCRATCH, "tmpfs", *_TMPFS)
    try:
        for name, content in files.items():
            _write(f"{_OWN_SCRATCH}/{name}", content)
        libc.mount(_OWN_SCRATCH, target, flags=libc.MS_BIND)
    finally:
        libc.umount(_OWN_SCRATCH, libc.MNT_DETACH)


def _write(path: str, content: str) -> None:
    with open(path, "xb") as file:
        file.write(os.fsencode(content))
        os.fchmod(file.fileno(), 0o644)
