# SPDX-License-Identifier: Apache-2.0
"""
A container's /etc/hosts, resolv.conf and hostname: read and written in place, never outside of it.

In place, since the file may be a mount, or open.  And with care: what is below the container's root belongs
to whoever made the image, or runs in it by now, so no link there is followed.
"""

import os

from cnihook.oci.bundle import Bundle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTS_OWN = ("/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/run/systemd/resolve/resolv.conf")
_MOST = 4 << 20  # bytes; a file that is longer is not for people, nor for resolvers
_own: "dict[tuple[int, int], str]" = {}  # (device, inode) of each of these, once looked up
_PLAIN = os.O_NOFOLLOW | os.O_CLOEXEC


class File:
    """The file `name`, a path such as etc/hosts, below the folder `base`, which alone is trusted.

    Every method raises OSError with the reason where there is no such place, or it is the host's own file.
    """

    __slots__ = ("base", "name")

    def __init__(self, base: str, name: str) -> None:
        self.base = base
        self.name = name

    @classmethod
    def at(cls, path: str) -> "File":
        """A file whose whole path is trusted."""
        return cls(os.path.dirname(path), os.path.basename(path))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, File) and (self.base, self.name) == (other.base, other.name)

    def __hash__(self) -> int:
        return hash((self.base, self.name))

    def __str__(self) -> str:
        return f"{self.base}/{self.name}"

    def read(self) -> "str | None":
        """None where it is missing, though there is a place for it."""
        try:
            fd = self._open(os.O_RDONLY)
        except FileNotFoundError:
            if not os.path.isdir(self.base):
                raise
            return None
        try:
            return os.fsdecode(_content(fd))
        finally:
            os.close(fd)

    def write(self, text: str) -> None:
        """Put `text` in the place of what it holds; make it where it is missing."""
        fd = self._open(os.O_WRONLY | os.O_CREAT)
        try:
            _replace(fd, os.fsencode(text), 0)
        finally:
            os.close(fd)

    def append(self, text: str) -> None:
        """Add lines to a file that is there."""
        fd = self._open(os.O_RDWR | os.O_APPEND)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                text = f"\n{text}"
            _write(fd, os.fsencode(text))
        finally:
            os.close(fd)

    def remove_lines(self, ending: str, having: str = "") -> None:
        """Take the lines away that end so, and have `having` in them."""
        # Without a look at the other lines, since a thousand files of a thousand lines may lose one each.
        end, mark = os.fsencode(f"{ending}\n"), os.fsencode(having)
        fd = self._open(os.O_RDWR)
        try:
            old = _content(fd)
            kept: list[bytes] = []
            done = 0
            at = old.find(end)
            while at >= 0:
                after = at + len(end)
                start = old.rfind(b"\n", 0, at) + 1
                if mark in old[start:after]:
                    kept.append(old[done:start])
                    done = after
                at = old.find(end, after)
            if kept:
                _replace(fd, b"".join([*kept[1:], old[done:]]), len(kept[0]))
        finally:
            os.close(fd)

    def is_same(self, other: "File") -> bool:
        """Whether both lead to one place: to the same file, or where both are missing to the same folder."""
        try:
            return self._identity() == other._identity()
        except OSError:
            return False

    def _identity(self) -> "tuple[int, int, bool]":
        folder, name = self._folder()
        try:
            status, is_there = os.stat(name, dir_fd=folder, follow_symlinks=False), True
        except FileNotFoundError:
            status, is_there = os.fstat(folder), False
        finally:
            os.close(folder)
        return status.st_dev, status.st_ino, is_there

    def _folder(self) -> "tuple[int, str]":
        """An open descriptor of the file's folder, and its name there."""
        *above, name = self.name.split("/")
        folder = os.open(self.base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for part in above:
            try:
                inner = os.open(part, os.O_PATH | os.O_DIRECTORY | _PLAIN, dir_fd=folder)
            finally:
                os.close(folder)
            folder = inner
        return folder, name

    def _open(self, flags: int) -> int:
        folder, name = self._folder()
        try:
            # Looked at before it is opened, since opening alone may do something: wait at a FIFO, copy up a
            # file of an overlay.  And after it, since what runs in the container may be quick.
            try:
                _check(os.stat(name, dir_fd=folder, follow_symlinks=False))
            except FileNotFoundError:
                if not flags & os.O_CREAT:
                    raise
            fd = os.open(name, flags | os.O_NONBLOCK | _PLAIN, 0o644, dir_fd=folder)
        finally:
            os.close(folder)
        try:
            _check(os.fstat(fd))
        except OSError:
            os.close(fd)
            raise
        return fd


def _check(status: os.stat_result) -> None:
    if status.st_mode & 0o170000 != 0o100000:  # S_IFREG
        raise OSError(22, "it is no regular file")
    if status.st_nlink > 1:
        raise OSError(31, "it has another name, where it would change, too")
    if not _own:
        for path in HOSTS_OWN:
            try:
                found = os.stat(path)
            except OSError:
                continue
            _own[found.st_dev, found.st_ino] = path
    if (status.st_dev, status.st_ino) in _own:
        path = _own[status.st_dev, status.st_ino]
        raise OSError(16, f"it is the host's own {path}, mounted there")


def _content(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    if size > _MOST:
        raise OSError(27, f"it is longer than {_MOST >> 20} MiB")
    return os.pread(fd, size, 0)


def _replace(fd: int, data: bytes, offset: int) -> None:
    """What a file holds from `offset` on."""
    # Over the old text and then shorter, not the other way round: no reader finds it empty.
    os.lseek(fd, offset, os.SEEK_SET)
    _write(fd, data)
    os.ftruncate(fd, offset + len(data))


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


# Of a container


class Etc:
    """Where the files of one container are, as it sees them or will.  Raises OSError where nobody knows."""

    def __init__(self, pid: int, config: Bundle) -> None:
        self._config = config
        # In the container's mounts, which are there already, though its root may be the host's until
        # pivot_root.
        self._root = f"/proc/{pid}/root"
        self.is_begun = True
        if os.path.samestat(os.stat(self._root), os.stat("/")):
            if not config.root:
                raise FileNotFoundError(2, "the container's root file system is not known")
            self._root += config.root
            self.is_begun = False

    def file(self, name: str) -> File:
        """By its path on the host, if it can be seen there.

        That is good whatever becomes of the process, may be written where the container may not, and leads
        past all that it may mount later, such as a file system that never answers.
        """
        here = File(self._root, f"etc/{name}")
        for candidate in self._candidates(f"/etc/{name}"):
            if candidate.is_same(here):
                return candidate
        return here

    def is_on_host(self, file: File) -> bool:
        return file.base != self._root

    def _candidates(self, path: str) -> "Iterator[File]":
        for destination, source in reversed(self._config.mounts):
            if destination == path:
                yield File.at(source)
            elif f"{path}/".startswith(f"{destination.rstrip('/')}/"):
                yield File(source, path[len(destination.rstrip("/")) + 1 :])
        if self._config.root:
            yield File(self._config.root, path[1:])
