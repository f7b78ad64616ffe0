# SPDX-License-Identifier: Apache-2.0
"""What a process sees at a path, changed for it and its children alone."""

import errno
import os

from cnihook.linux import libc

# A folder that is surely there.  What is mounted on it for a moment shows in this mount namespace alone.
_SCRATCH = "/proc"
_OWN_SCRATCH = "/proc/self/task"  # the same, where other processes of the mount namespace are at work
_TMPFS = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC, "size=1m,mode=755"


def make_private() -> None:
    """A mount namespace of our own: the host's later mounts appear in it, ours appear nowhere else."""
    libc.unshare(libc.CLONE_NEWNS)
    libc.mount("none", "/", flags=libc.MS_SLAVE | libc.MS_REC)


def renew_sys() -> None:
    """Have /sys show the network namespace that this process is in, and keep what is mounted below it.

    A sysfs shows the interfaces of the namespace in which it was mounted, so it takes a new one.
    """
    flags, below = _mounts_of_sys()
    if flags is None:
        return  # then there are no interfaces to be seen outside either
    libc.mount("sysfs", _SCRATCH, "sysfs", flags)
    for path in below:
        try:
            libc.mount(path, path.replace("/sys", _SCRATCH, 1), flags=libc.MS_BIND | libc.MS_REC)
        except FileNotFoundError:
            pass  # a folder of the old namespace's own interfaces
    try:
        libc.umount("/sys", libc.MNT_DETACH)
    except OSError as error:
        if (
            error.errno != errno.EINVAL
        ):  # a user namespace may not remove what it began with: then on top of it
            raise
    libc.mount(_SCRATCH, "/sys", flags=libc.MS_MOVE)


def _mounts_of_sys() -> "tuple[int | None, list[str]]":
    """The flags of the sysfs at /sys, None if there is none, and the paths of what is mounted below it."""
    flags = None
    below: list[str] = []
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split() for line in file]
    for fields in sorted(mounts, key=lambda fields: fields[4]):
        path = fields[4]
        if path == "/sys" and fields[fields.index("-") + 1] == "sysfs":
            flags = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
            flags |= libc.MS_RDONLY if "ro" in fields[5].split(",") else 0
        # A mount takes along what is below it.
        if path.startswith("/sys/") and not any(f"{path}/".startswith(f"{above}/") for above in below):
            below.append(path)
    return flags, below


def replace_file(path: str, content: str) -> None:
    """Put another file in the place of an existing one; of a link, in the place of what it leads to.

    Raises FileNotFoundError where there is none: a mount needs something to be mounted on.
    """
    target = os.path.realpath(path)
    os.stat(target)
    # On a file system of its own, which goes with the last process that sees it, however that ends.
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
