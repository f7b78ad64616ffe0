# SPDX-License-Identifier: Apache-2.0
"""
Access to a container's /etc/hosts, resolv.conf and hostname, and to no other file.

They are read and written in place, because a file may be a mount, or open.  The image or the container
chooses what is at these paths, and may replace it at any time.  So no link is followed when a file is used
(names.etc replaces the links of an image), and it is examined before it is opened, by a descriptor:

    openat2(O_PATH, RESOLVE_NO_SYMLINKS)    opens neither a device nor a FIFO
    fstat                                   a regular file, with one name, not a file of the host
    open(/proc/self/fd/N)                   exactly this file
"""

import os

from cnihook.linux import libc

HOSTS_OWN = ("/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/run/systemd/resolve/resolv.conf")
_MOST = 4 << 20  # bytes; neither people nor resolvers use a longer file
_own: "dict[tuple[int, int], str]" = {}  # (device, inode) of each of HOSTS_OWN, after the first lookup
_PATH = os.O_PATH | os.O_NOFOLLOW
_NO_FOLDER = -100  # AT_FDCWD
_WRITES = os.O_WRONLY | os.O_RDWR
STALE = 116  # ESTALE
LINK = 40  # ELOOP
_TYPE, _LINK_TYPE, _FILE_TYPE = 0o170000, 0o120000, 0o100000  # S_IFMT, S_IFLNK, S_IFREG
_MOST_LINKS = 8


class File:
    """The file `name`, a path such as etc/hosts, below the folder `base`; no part of `name` may be a link.

    After it was opened for writing, only the file with this `identity`, (device, inode), is used.
    Every method raises OSError if the place does not exist, or the file must not be changed.
    """

    __slots__ = ("base", "identity", "name")

    def __init__(self, base: str, name: str, identity: "tuple[int, int] | None" = None) -> None:
        self.base = base
        self.name = name
        self.identity = identity

    @classmethod
    def at(cls, path: str) -> "File":
        """Return a file whose whole path is trusted, including links in it."""
        return cls("/", os.path.realpath(path)[1:])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, File) and (self.base, self.name) == (other.base, other.name)

    def __hash__(self) -> int:
        return hash((self.base, self.name))

    def __str__(self) -> str:
        return os.path.join(self.base, self.name)

    def read(self) -> "str | None":
        """Return the text; None if the file is missing, but its folder exists."""
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
        """Replace the content of the file with `text`; create the file if it is missing."""
        fd = self._open(os.O_WRONLY | os.O_CREAT)
        try:
            _replace(fd, os.fsencode(text), 0)
        finally:
            os.close(fd)

    def pin(self) -> None:
        """Check that the file can be written, and store its identity: no other file is used from now on."""
        os.close(self._open(os.O_RDWR))

    def append(self, text: str) -> None:
        """Add lines to a file that exists."""
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
        """Remove the lines with this ending that contain `having`.

        In a file that is longer than append() allows, only the part that append() can have written is
        searched.  The lines are blanked there, because the rest may have any size and is not moved.
        """
        # Other lines are not examined: a thousand files of a thousand lines may lose one line each.
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
        """Return (device, inode) of the file and True, or those of its folder and False if it is missing.

        Raises OSError with LINK if it is a link, or behind one.
        """
        try:
            fd, is_there = self._look(), True
        except FileNotFoundError:
            fd, is_there = self._folder(), False
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        if status.st_mode & _TYPE == _LINK_TYPE:
            raise OSError(LINK, "it is a link")
        return status.st_dev, status.st_ino, is_there

    def without_links(self) -> str:
        """Return the path with its links replaced as a process with the root `base` sees them.

        A part that does not exist stays as it is.
        """
        resolved: list[str] = []
        parts = self.name.split("/")[::-1]
        links = 0
        while parts:
            part = parts.pop()
            if part == "..":
                del resolved[-1:]
            if part in ("", ".", ".."):
                continue
            try:
                fd = self._resolve("/".join([*resolved, part]), _PATH)
            except FileNotFoundError:
                resolved.append(part)
                continue
            try:
                if os.fstat(fd).st_mode & _TYPE != _LINK_TYPE:
                    resolved.append(part)
                    continue
                target = os.readlink("", dir_fd=fd)
            finally:
                os.close(fd)
            links += 1
            if links > _MOST_LINKS:
                raise OSError(LINK, "there are too many links in its path")
            if target.startswith("/"):
                resolved = []
            parts += target.split("/")[::-1]
        return "/".join(resolved)

    def nearest_folder(self) -> "tuple[int, int]":
        """Return (device, inode) of the last folder in the path that exists."""
        path = self.name
        while True:
            path = os.path.dirname(path)
            try:
                fd = self._resolve(path or ".", _PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                if not path:
                    raise
                continue
            try:
                status = os.fstat(fd)
            finally:
                os.close(fd)
            return status.st_dev, status.st_ino

    def make_folders(self, most: int) -> None:
        """Create the folders above the file that are missing, `most` at most."""
        missing: list[str] = []
        path = os.path.dirname(self.name)
        while path:
            try:
                os.close(self._resolve(path, _PATH | os.O_DIRECTORY))
                break
            except FileNotFoundError:
                missing.append(path)
                path = os.path.dirname(path)
        if len(missing) > most:
            raise OSError(LINK, f"a link leads to a path of which {len(missing)} folders are missing")
        for folder in reversed(missing):
            fd = self._resolve(os.path.dirname(folder) or ".", _PATH | os.O_DIRECTORY)
            try:
                os.mkdir(os.path.basename(folder), 0o755, dir_fd=fd)
            finally:
                os.close(fd)

    def _look(self) -> int:
        """Return an O_PATH descriptor, which only refers to what is there, whatever its type."""
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
                # To open a regular file may copy it up in an overlay, but never blocks.
                fd = os.open(f"/proc/self/fd/{seen}", flags & ~os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC)
            finally:
                os.close(seen)
        if flags & _WRITES and not self.identity:
            status = os.fstat(fd)  # not of `seen`: a copy-up may change the inode
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
        """Raise OSError if the file that this O_PATH descriptor refers to must not be opened."""
        status = os.fstat(fd)
        if self.identity and self.identity != (status.st_dev, status.st_ino):
            raise OSError(STALE, "another file is there now")
        _check(status)
        if writes and not status.st_mode & 0o222:
            raise OSError(13, "its mode allows no user to write it")


def below(folder: int, path: str, flags: int) -> int:
    """Return a descriptor of `path` below a folder; no part of the path except the last may be a link."""
    try:
        return libc.openat2(folder, path, flags, libc.RESOLVE_NO_SYMLINKS)
    except OSError as error:
        if error.errno == LINK:
            raise OSError(LINK, "a part of its path is a link") from None
        raise


def _check(status: os.stat_result) -> None:
    if status.st_mode & _TYPE != _FILE_TYPE:
        raise OSError(22, "it is not a regular file")
    if status.st_nlink > 1:
        raise OSError(31, "it has another hard link, and the content would change there, too")
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
    """Replace the content of a file from `offset` on."""
    # Overwrite the old text, then shorten the file; in the other order a reader could find it empty.
    os.lseek(fd, offset, os.SEEK_SET)
    _write(fd, data)
    os.ftruncate(fd, offset + len(data))


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
