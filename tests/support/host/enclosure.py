# SPDX-License-Identifier: Apache-2.0
"""The enclosure of a throw-away host: new network, mount and process namespaces, and files of its own.

A thread creates it and is in it; a first process holds it.  A script would need some twenty processes.
"""

import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_FS, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET = 0x200, 0x20000, 0x20000000, 0x40000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 0x1, 0x20, 0x1000, 0x2000, 0x4000, 0x40000
MNT_DETACH = 2
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
PR_SET_PDEATHSIG = 1
SYS_OPEN_TREE, SYS_MOVE_MOUNT = 428, 429  # on every architecture
AT_FDCWD, AT_EMPTY_PATH, OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH = -100, 0x1000, 1, 4

# The first process.  /proc can be mounted only from within the process namespace.  The process ends with its
# input, so the enclosure ends too if pytest is killed.  With SIGCHLD ignored the kernel reaps orphans.
HOLD = "busybox mount -t proc proc /proc && echo ready && exec /usr/bin/env --ignore-signal=CHLD busybox cat"
HOLDER = ["busybox", "sh", "-c", HOLD]


def make() -> int:
    """Move this thread into a new enclosure; the first process that it starts is the holder.

    Returns a descriptor of the network namespace.
    """
    _call("unshare", CLONE_FS | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET)
    home = net_of_this_thread()
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _forget_names_of_the_machine()

    # Writes to /etc and /var/lib go to these overlays only; the machine's files stay readable.
    _mount("tmpfs", "/run", "tmpfs")
    for folder in ("netns", ".host", ".host/etc", ".host/lib", ".host/work1", ".host/work2", ".host/cgroup"):
        os.mkdir(f"/run/{folder}", 0o755)
    own = "upperdir=/run/.host"
    _mount("overlay", "/etc", "overlay", data=f"lowerdir=/etc,{own}/etc,workdir=/run/.host/work1")
    _mount("overlay", "/var/lib", "overlay", data=f"lowerdir=/var/lib,{own}/lib,workdir=/run/.host/work2")
    for folder in ("/etc/cni", "/var/lib/cni"):
        os.makedirs(folder, 0o755, exist_ok=True)
        _mount("tmpfs", folder, "tmpfs")
    _mount("tmpfs", "/var/log", "tmpfs")
    os.mkdir("/etc/cni/net.d", 0o755)

    # A /sys of this network namespace, without the old one below it, because runtimes read the list of
    # mounts.  crun does not run if cgroup v1 and v2 are both mounted.  In the namespace of an ordinary user
    # inherited mounts cannot be unmounted, but no runtime is started there.
    _mount("/sys/fs/cgroup", "/run/.host/cgroup", None, MS_BIND | MS_REC)
    _unmount("/sys", MNT_DETACH)
    _mount("sysfs", "/sys", "sysfs")
    _mount("/run/.host/cgroup", "/sys/fs/cgroup", None, MS_MOVE)
    _unmount("/sys/fs/cgroup/unified")

    # A write to ip_forward does not sleep until the kernel's lock of all links is free.  It is tried again
    # and again: 5 ms of processor time beside other tests.  This sleeps, and leaves the lock free.
    raise_loopback()
    # The value of a newly installed machine; a new namespace inherits this machine's.
    _write("/proc/sys/net/ipv4/ip_forward", "0")
    # A new address can be used at once, not after a second of duplicate detection.
    _write("/proc/sys/net/ipv6/conf/default/accept_dad", "0")
    return home


def _forget_names_of_the_machine() -> None:
    """Unmount what is mounted below /run/netns: the kernel would do so when the machine removes a name."""
    with open("/proc/thread-self/mountinfo") as file:
        paths = [line.split(" ")[4] for line in file]
    for path in reversed(paths):
        if path.startswith("/run/netns/"):
            _unmount(path, MNT_DETACH)


def raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        fcntl.ioctl(device, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))


def enter(holder: int) -> int:
    """Move this thread into the enclosure that a process holds, except its network namespace.

    Returns a descriptor of the thread's network namespace.
    """
    home = net_of_this_thread()
    _call("unshare", CLONE_FS)  # setns() into a mount namespace requires an own working directory
    processes, files = open_space(f"/proc/{holder}/ns/pid"), open_space(f"/proc/{holder}/ns/mnt")
    enter_processes(processes)
    enter_files(files)
    os.close(processes)
    os.close(files)
    return home


def enter_processes(space: int) -> None:
    """Start further processes of this thread in a PID namespace."""
    _call("setns", space, CLONE_NEWPID)


def enter_files(space: int) -> None:
    """Move this thread into a mount namespace."""
    _call("setns", space, CLONE_NEWNS)


def enter_net(space: int) -> None:
    """Move this thread into a network namespace."""
    _call("setns", space, CLONE_NEWNET)


def make_net() -> None:
    """Move this thread into a new network namespace."""
    _call("unshare", CLONE_NEWNET)


def name_net(space: int, path: str) -> None:
    """Give a namespace a name, as `ip netns add` does.

    The mount is made from a descriptor, because the /proc of an enclosure does not show this thread.
    """
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
    flags = ctypes.c_uint(AT_EMPTY_PATH | OPEN_TREE_CLONE | os.O_CLOEXEC)
    mount = _call("syscall", SYS_OPEN_TREE, space, b"", flags)
    try:
        _call("syscall", SYS_MOVE_MOUNT, mount, b"", AT_FDCWD, path.encode(), MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(mount)


def forget_net(path: str) -> None:
    """Remove the name of a namespace, as `ip netns del` does."""
    _unmount(path, MNT_DETACH)
    os.unlink(path)


def net_of_this_thread() -> int:
    return open_space("/proc/thread-self/ns/net")


def open_space(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def end_with_parent() -> None:
    """Have this process killed when its parent ends."""
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)


def mount_proc() -> None:
    """Mount /proc of the PID namespace that this process is the first of."""
    _mount("proc", "/proc", "proc")


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    """Mount a file or a folder at another path, or at its own."""
    _mount(source, target, None, MS_BIND)
    if read_only:
        _mount("none", target, None, MS_BIND | MS_REMOUNT | MS_RDONLY)


def resize(path: str, limits: str) -> None:
    """Give a tmpfs other limits, such as `size=8k`."""
    _mount("none", path, None, MS_REMOUNT, limits)


def unmount(path: str) -> None:
    """Unmount a path, if it is a mount."""
    _unmount(path, MNT_DETACH)


def _mount(source: str, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    encoded = (word.encode() if word is not None else None for word in (source, target, kind))
    _call("mount", *encoded, ctypes.c_ulong(flags), data.encode() if data else None)


def _unmount(path: str, flags: int = 0) -> None:
    if _libc.umount2(path.encode(), flags) < 0 and ctypes.get_errno() not in (
        *(errno.EINVAL, errno.ENOENT),  # it is not a mount
        *(errno.EPERM, errno.EBUSY),  # in an ordinary user's namespace
    ):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)


def _write(path: str, content: str) -> None:
    with open(path, "w") as file:
        file.write(content)


def _call(name: str, *arguments: object) -> int:
    result: int = getattr(_libc, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
