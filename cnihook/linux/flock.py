# SPDX-License-Identifier: Apache-2.0
"""Locks between processes, by flock(2): the kernel gives them back however their holder ends."""

import fcntl
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

FOLDER = "/run/cnihook"


class Busy(OSError):
    """Somebody else holds the lock, and has done so for as long as we were willing to wait."""


class Lock:
    """`with Lock("nft"):` is one process at a time; with `shared`, any number of them, but none without.

    The file is there only while somebody holds or wants it.
    """

    def __init__(self, name: str, *, timeout: float = 30.0, purpose: str = "", shared: bool = False) -> None:
        self._path = f"{FOLDER}/{name[:200]}.lock"  # cut, two names may share a lock, which is slow but safe
        self._timeout = timeout
        self._purpose = purpose
        self._kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._fd = -1

    def __enter__(self) -> "Lock":
        deadline = time.monotonic() + self._timeout
        pause = 0.001
        while not self._try():
            if time.monotonic() >= deadline:
                raise Busy(f"{self._path}: held by {self._holder()} for more than {self._timeout:g} s")
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
        return self

    def __exit__(
        self,
        _kind: "type[BaseException] | None",
        _error: "BaseException | None",
        _trace: "TracebackType | None",
    ) -> None:
        # The file goes before the lock: whoever waits on it sees in _try() that it is stale.  One that can't
        # go does no harm, and the work is done: nothing here is a reason to fail.
        try:
            if self._kind == fcntl.LOCK_SH:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused: others have it still
            os.unlink(self._path)
        except OSError:
            pass
        finally:
            os.close(self._fd)

    def _try(self) -> bool:
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            os.makedirs(FOLDER, mode=0o700, exist_ok=True)
            return self._try()
        try:
            fcntl.flock(fd, self._kind | fcntl.LOCK_NB)
            # The file may have been unlinked, and made anew by another, between our open and our lock.
            if os.fstat(fd).st_ino == os.stat(self._path).st_ino:
                self._fd, fd = fd, -1
                self._sign()
                return True
        except (BlockingIOError, FileNotFoundError):
            pass
        finally:
            if fd >= 0:
                os.close(fd)
        return False

    def _sign(self) -> None:
        """For whoever waits too long; a full disk is no reason not to have the lock."""
        try:
            if self._kind == fcntl.LOCK_EX:
                os.truncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_END)
            os.write(self._fd, f"process {os.getpid()} ({self._purpose or 'cnihook'})\n".encode())
        except OSError:
            pass

    def _holder(self) -> str:
        return ", ".join(_signed(self._path)) or "another process"


def is_held(name: str) -> bool:
    """Whether one who has signed the lock is still there; found out without taking it, which others feel."""
    return bool(_signed(Lock(name)._path))


def _signed(path: str) -> "list[str]":
    """Those who signed and are still there; of a shared lock that may be one who has let go of it."""
    try:
        with open(path) as file:
            signed = file.read().splitlines()
    except OSError:
        return []
    return [line for line in signed if os.path.exists(f"/proc/{''.join(line.split()[1:2])}")]


def clear_abandoned() -> None:
    """Remove the files of locks whose holders were killed.  They do no harm but to the eye."""
    try:
        names = os.listdir(FOLDER)
    except OSError:
        return
    for name in names:
        if name.endswith(".lock"):
            try:
                with Lock(name.removesuffix(".lock"), timeout=0):
                    pass  # what was taken is given back with its file
            except OSError:
                pass  # it is busy, or no lock at all
