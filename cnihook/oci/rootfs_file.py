# SPDX-License-Identifier: Apache-2.0
"""
A container's /etc/hosts, resolv.conf and hostname: read and written in place, and no other file.

In place, because the file may be a mount, or open.  The image or the container chooses what is at these
paths, and may exchange it at any time.  So no link is followed, and what is opened was looked at first, by
a descriptor that stands for it:

    openat2(O_PATH, RESOLVE_NO_SYMLINKS)    opens neither a device nor a FIFO
    fstat                                   a regular file, with one name, not one of the host's
    open(/proc/self/fd/N)                   this very file
"""

import os

from cnihook.linux import libc

HOSTS_OWN = ("/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/run/systemd/resolve/resolv.conf")
_MOST = 4 << 20  # bytes; a file that is longer is not for people, nor for resolvers
_own: "dict[tuple[int, int], str]" = {}  # (device, inode) of each of these, once looked up
_PATH = os.O_PATH | os.O_NOFOLLOW
_NO_FOLDER = -100  # AT_FDCWD
_WRITES = os.O_WRONLY | os.O_RDWR
STALE = 116  # ESTALE


class File:
    """The file `name`, a path such as etc/hosts, below the folder `base`; no part of `name` may be a link.

    Once it was open for writing, it is the file with this `identity`, (device, inode), and no other.
    Every method raises OSError with the reason if there is no such place, or the file must stay as it is.
    """

    __slots__ = ("base", "identity", "name")

    def __init__(self, base: str, name: str, identity: "tuple[int, int] | None" = None) -> None:
        self.base = base
        self.name = name
        self.identity = identity

    @classmethod
    def at(cls, path: str) -> "File":
        """A file whose whole path is trusted, links in it included."""
        return cls("/", os.path.realpath(path)[1:])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, File) and (self.base, self.name) == (other.base, other.name)

    def __hash__(self) -> int:
        return hash((self.base, self.name))

    def __str__(self) -> str:
        return os.path.join(self.base, self.name)

    def read(self) -> "str | None":
        """Return the text, None if the file is missing though there is a place for it."""
        try:
            fd = self._open(os.O_RDONLY)
        except FileNotFoundError:
            os.close(self._folder())
            return None
        try:
            return os.fsdecode(_content(fd))
        finally:
            os.close(fd)

    def write(self, text: str) -> None:
        """Have the file hold `text` alone; make it if it is missing."""
        fd = self._open(os.O_WRONLY | os.O_CREAT)
        try:
            _replace(fd, os.fsencode(text), 0)
        finally:
            os.close(fd)

    def pin(self) -> None:
        """Make sure that it can be written, and have it be this very file from then on."""
        os.close(self._open(os.O_RDWR))

    def append(self, text: str) -> None:
        """Add lines to a file that is there."""
        fd = self._open(os.O_RDWR | os.O_APPEND)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                text = f"\n{text}"
            data = os.fsencode(text)
            if size + len(data) > _MOST:
                raise _too_long()
            _write(fd, data)
        finally:
            os.close(fd)

    def remove_lines(self, ending: str, having: str = "") -> None:
        """Remove the lines that end so, and have `having` in them.

        In a file that is longer than append() makes one, only such lines as append() can have added are
        looked at, and get blanked: its rest may be any amount, and is not moved.
        """
        # Without a look at the other lines, since a thousand files of a thousand lines may lose one each.
        end, mark = os.fsencode(f"{ending}\n"), os.fsencode(having)
        fd = self._open(os.O_RDWR)
        try:
            size = os.fstat(fd).st_size
            is_long = size > _MOST
            old = os.pread(fd, min(size, _MOST), 0)
            kept: list[bytes] = []
            end_of_last = 0
            at = old.find(end)
            while at >= 0:
                after = at + len(end)
                start = old.rfind(b"\n", 0, at) + 1
                if mark in old[start:after]:
                    if is_long:
                        os.pwrite(fd, b"#".ljust(after - start - 1), start)
                    else:
                        kept.append(old[end_of_last:start])
                    end_of_last = after
                at = old.find(end, after)
            if kept:
                _replace(fd, b"".join([*kept[1:], old[end_of_last:]]), len(kept[0]))
        finally:
            os.close(fd)

    def place(self) -> "tuple[int, int, bool]":
        """(device, inode) of the file, and True; or of the folder that it is missing in, and False."""
        try:
            fd, is_there = self._look(), True
        except FileNotFoundError:
            fd, is_there = self._folder(), False
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        return status.st_dev, status.st_ino, is_there

    def _look(self) -> int:
        """A descriptor that only stands for what is there, whatever it is."""
        return self._resolve(self.name, _PATH)

    def _folder(self) -> int:
        return self._resolve(os.path.dirname(self.name) or ".", _PATH | os.O_DIRECTORY)

    def _resolve(self, path: str, flags: int) -> int:
        if self.base == "/":
            return below(_NO_FOLDER, f"/{path}", flags)
        base = os.open(self.base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return below(base, path, flags)
        finally:
            os.close(base)

    def _open(self, flags: int) -> int:
        try:
            seen = self._look()
        except FileNotFoundError:
            if not flags & os.O_CREAT or self.identity:
                raise
            fd = self._make(flags)
        else:
            try:
                self._check(seen, writes=bool(flags & _WRITES))
                # Opening a regular file may copy it up in an overlay, but never waits.
                fd = os.open(f"/proc/self/fd/{seen}", flags & ~os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC)
            finally:
                os.close(seen)
        if flags & _WRITES and not self.identity:
            status = os.fstat(fd)  # not of `seen`, since a copy-up may change it
            self.identity = status.st_dev, status.st_ino
        return fd

    def _make(self, flags: int) -> int:
        folder = self._folder()
        try:
            name = os.path.basename(self.name)
            flags |= os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(name, flags, 0o644, dir_fd=folder)
        finally:
            os.close(folder)

    def _check(self, fd: int, *, writes: bool) -> None:
        """Raise OSError if what this O_PATH descriptor stands for is not to be opened."""
        status = os.fstat(fd)
        if self.identity and self.identity != (status.st_dev, status.st_ino):
            raise OSError(STALE, "another file is there now")
        _check(status)
        if writes and not status.st_mode & 0o222:
            raise OSError(13, "its mode lets no user write it")


def below(folder: int, path: str, flags: int) -> int:
    """A descriptor of `path` below a folder, no part of which may be a link but the last."""
    try:
        return libc.openat2(folder, path, flags, libc.RESOLVE_NO_SYMLINKS)
    except OSError as error:
        if error.errno == 40:  # ELOOP
            raise OSError(40, "a part of its path is a link") from None
        raise


def _check(status: os.stat_result) -> None:
    if status.st_mode & 0o170000 != 0o100000:  # S_IFREG
        raise OSError(22, "it is not a regular file")
    if status.st_nlink > 1:
        raise OSError(31, "it has another name, where it would change, too")
    if not _own:
        for path in HOSTS_OWN:
            try:
                own = os.stat(path)
            except OSError:
                continue
            _own[own.st_dev, own.st_ino] = path
    if (status.st_dev, status.st_ino) in _own:
        path = _own[status.st_dev, status.st_ino]
        raise OSError(16, f"it is the host's own {path}, mounted there")


def _content(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    if size > _MOST:
        raise _too_long()
    return os.pread(fd, size, 0)


def _too_long() -> OSError:
    return OSError(27, f"it is longer than {_MOST >> 20} MiB")


def _replace(fd: int, data: bytes, offset: int) -> None:
    """Set what a file holds from `offset` on."""
    # Over the old text and then shorter, not the other way round: no reader finds it empty.
    os.lseek(fd, offset, os.SEEK_SET)
    _write(fd, data)
    os.ftruncate(fd, offset + len(data))


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
