# SPDX-License-Identifier: Apache-2.0
"""Read and write files of state.  Another program may have put anything there, of any size."""

import os

from cnihook.fast import descriptor

_LONGEST = 16 << 20  # bytes
_REGULAR = 0o100000  # S_IFREG, of S_IFMT


class UnusableFileError(ValueError):
    """A file that is not regular, or is too long; the text says which."""


class NotRegularFileError(UnusableFileError):
    """A folder, a FIFO, a device, a socket, or a symbolic link."""


def content(path: str, *, longest: int = _LONGEST, follow: bool = False) -> "bytes | None":
    """Return the content of a regular file, None if there is no file; `follow`: also through symbolic links.

    Opening a FIFO would wait, and opening some devices has an effect.  Raises UnusableFileError, or OSError
    with the path if the file exists and cannot be read.
    """
    try:
        status = os.stat(path, follow_symlinks=follow)
        if status.st_mode & 0o170000 != _REGULAR:
            raise NotRegularFileError("is not a regular file")
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    data = b""
    try:
        while part := os.read(fd, 65536 if not data else 1 << 20):
            data += part
            if len(data) > longest:
                raise UnusableFileError(f"is longer than {longest >> 20} MiB")
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        descriptor.close(fd)
    return data


def read(path: str) -> "bytes | None":
    """Return content(path), or None if the file cannot be used."""
    try:
        return content(path)
    except UnusableFileError:
        return None


def create(path: str, flags: int = os.O_TRUNC, mode: int = 0o600) -> int:
    """Open a file to write it, and return its descriptor; `flags` are more flags of open(2).

    Raises OSError for a symbolic link, and for a FIFO without a reader, where an open would wait.
    """
    flags |= os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    return os.open(path, flags, mode)


def replace(path: str, data: bytes, *, mode: int = 0o600, durable: bool = False) -> None:
    """Write a file, in a folder that exists, whole or not at all.  `durable`: also if the power fails.

    Its temporary name begins with a dot.  The caller holds a lock, or no other process writes the file.
    Raises OSError with a path; the old file is there then.
    """
    folder, name = os.path.split(path)
    temporary = f"{folder}/.{name[:254]}"
    try:
        with open(create(temporary, mode=mode), "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.rename(temporary, path)
    except OSError as error:
        discard(temporary)
        if error.filename:
            raise
        raise OSError(error.errno, error.strerror, path) from None  # write() does not name the file


def discard(path: str) -> None:
    """Remove a file, or a folder and the files in it.  What cannot be removed stays, without an error."""
    try:
        try:
            os.unlink(path)
        except IsADirectoryError:
            for name in os.listdir(path):
                os.unlink(f"{path}/{name}")
            os.rmdir(path)
    except OSError:
        pass
