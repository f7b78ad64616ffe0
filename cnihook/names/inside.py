# SPDX-License-Identifier: Apache-2.0
"""
A file of a running container, read and written with the rights of its first process.

The container may have mounted anything at the path: a file that it shares with the host and may only read, a
sysctl, or its own file system that never answers.  So a child process does the work.  It has the user and
the groups of the container and no capabilities, so that the kernel checks it like the container.  It has 3
seconds.

The child does not enter the user namespace: the IDs of the host are enough to check owner and mode.  It does
not enter the mount namespace: a descriptor of the container's root is enough.
"""

import marshal
import os
import select
import time

from cnihook.linux import libc
from cnihook.names.rootfs_file import File, below
from cnihook.process import signals
from cnihook.process.daemonize import daemonize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_PATIENCE = 3.0  # seconds
# File systems that are interfaces of the kernel: a write there is a command.
_INTERFACES = frozenset(
    "autofs binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs fusectl hugetlbfs"
    " mqueue nfsd nsfs proc pstore resctrl rpc_pipefs securityfs selinuxfs smackfs sysfs tracefs".split()
)


class ContainerFile(File):
    """The file `name` below the root of a process, used with the rights of that process."""

    __slots__ = ("_mounts", "_root", "pid")

    def __init__(self, pid: int, name: str) -> None:
        super().__init__(f"/proc/{pid}/root", name)
        self.pid = pid
        self._root = self._mounts = -1  # descriptors while a child process works

    def read(self) -> "str | None":
        text: str | None = self._as_container(super().read)
        return text

    def write(self, text: str) -> None:
        self._as_container(lambda: super(ContainerFile, self).write(text))

    def append(self, text: str) -> None:
        self._as_container(lambda: super(ContainerFile, self).append(text))

    def pin(self) -> None:
        self._as_container(super().pin)

    def place(self) -> "tuple[int, int, bool]":
        place: tuple[int, int, bool] = self._as_container(super().place)
        return place

    def without_links(self) -> str:
        path: str = self._as_container(super().without_links)
        return path

    def _resolve(self, path: str, flags: int) -> int:
        # By a descriptor that was opened as root: the container's user may not read /proc/PID.
        fd = below(self._root, path, flags)
        try:
            # Check this before any other system call on the file, which might never return.
            kind = self._file_system(fd)
            if kind in _INTERFACES or kind.startswith("fuse"):
                raise OSError(22, f"the container has mounted a file of the file system {kind} there")
        except OSError:
            os.close(fd)
            raise
        return fd

    def _file_system(self, fd: int) -> str:
        """Return the file system type of the mount that a descriptor is on."""
        with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
            (number,) = (line.split()[1] for line in file if line.startswith(b"mnt_id:"))
        os.lseek(self._mounts, 0, os.SEEK_SET)
        with open(self._mounts, "rb", closefd=False) as file:
            for line in file:
                if line.split(maxsplit=1)[0] == number:
                    return line.partition(b" - ")[2].split()[0].decode()
        raise OSError(22, "the container has changed its mounts")

    def _as_container(self, work: "Callable[[], Any]") -> "Any":
        """Return what `work` returns in a child with the rights of the container."""
        process = os.open(f"/proc/{self.pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        opened = [process]
        try:
            user, group, groups = _credentials(process)
            self._root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=process)
            opened.append(self._root)
            self._mounts = os.open("mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
            opened.append(self._mounts)

            def confined() -> "Any":
                os.setgroups(groups)
                os.setresgid(group, group, group)
                os.setresuid(user, user, user)
                libc.drop_capabilities()  # if `user` is 0, setresuid() has kept them
                return work()

            return _in_child(confined, keep=opened)
        finally:
            for fd in opened:
                os.close(fd)


def _credentials(process: int) -> "tuple[int, int, list[int]]":
    """Return the user, group and additional groups that the kernel checks when a process opens a file."""
    fd = os.open("status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    with open(fd, encoding="utf-8", errors="replace") as file:
        fields = {key: value.split() for key, _, value in (line.partition(":") for line in file)}
    return int(fields["Uid"][3]), int(fields["Gid"][3]), [int(group) for group in fields["Groups"]]


def _in_child(work: "Callable[[], Any]", keep: "list[int]") -> "Any":
    """Return what `work` returns in a child process, or raise the OSError that it raises there."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            signals.ignore_interrupts()
            daemonize(writer, *keep)  # a child that hangs must not hold the pipes of the caller
            try:
                answer = (True, work())
            except OSError as error:
                answer = (False, (error.errno, error.strerror))
            with open(writer, "wb") as file:
                file.write(marshal.dumps(answer))
        finally:
            os._exit(0)
    os.close(writer)
    try:
        is_done, value = marshal.loads(_read(reader))
    finally:
        os.close(reader)
        os.kill(child, signals.SIGKILL)
        os.waitpid(child, os.WNOHANG)  # it may hang in the kernel
    if is_done:
        return value
    raise OSError(*value)


def _read(fd: int) -> bytes:
    """Return all that is written to a pipe.  Raises OSError after _PATIENCE seconds."""
    deadline = time.monotonic() + _PATIENCE
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    chunks = []
    while waiting.poll(max(0, deadline - time.monotonic()) * 1000):
        chunk = os.read(fd, 1 << 16)
        if not chunk:
            break
        chunks.append(chunk)
    else:
        raise OSError(110, "its file system does not answer")
    if not chunks:
        raise OSError(5, "the child process that opens it has ended")
    return b"".join(chunks)
