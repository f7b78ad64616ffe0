# SPDX-License-Identifier: Apache-2.0
"""Locks between processes, by flock(2): the kernel releases them, however their holder ends."""

import _signal
import _struct as struct
import fcntl
import os
import time

from cnihook.fast import descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

FOLDER = "/run/cnihook/lock"  # of locks only: a DEL lists it
_LONGEST_SIGNATURES = 1 << 16  # bytes that are read of a lock file


class LockBusyError(OSError):
    """Another process held the lock during the whole timeout."""


class Lock:
    """`with Lock("nft"):` admits one process at a time; with `shared`, any number that share the lock.

    The file exists only while a process holds the lock or waits for it.
    """

    def __init__(self, name: str, *, timeout: float = 30.0, purpose: str = "", shared: bool = False) -> None:
        self._path = f"{FOLDER}/{name[:200]}.lock"  # two names that are cut may share a lock: slow but safe
        self._timeout = timeout
        self._purpose = purpose
        self._kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._fd = -1

    def __enter__(self) -> "Lock":
        deadline = time.monotonic() + self._timeout
        while not self._try(deadline):
            if time.monotonic() >= deadline:
                raise LockBusyError(
                    f"{self._path}: held by {self._holder()} for more than {self._timeout:g} s"
                )
        return self

    def __exit__(
        self,
        _kind: "type[BaseException] | None",
        _error: "BaseException | None",
        _trace: "TracebackType | None",
    ) -> None:
        # The file is removed before the lock is released, unless another process waits: it would lose its
        # place in the queue.  A file that stays is harmless, and the work is done, so no error is raised.
        try:
            if self._kind == fcntl.LOCK_SH:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if others share it still
            if not _is_wanted(self._fd):
                os.unlink(self._path)
        except OSError:
            pass
        finally:
            if not descriptor.close(self._fd):
                _unlock(self._fd)

    @property
    def fd(self) -> int:
        """The descriptor that holds the lock."""
        return self._fd

    def hand_over(self) -> bool:
        """Fork, and leave the lock to the child.  Returns True in the child.  Raises OSError."""
        if os.fork():
            descriptor.close(self._fd)
            return False
        self._sign()
        return True

    def _try(self, deadline: float) -> bool:
        """Take the lock, or wait for it until the deadline.  Return False if the caller has to try again."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            for folder in (os.path.dirname(FOLDER), FOLDER):  # makedirs() has the mode for the last one only
                os.makedirs(folder, mode=0o700, exist_ok=True)
            return self._try(deadline)
        try:
            try:
                if self._kind == fcntl.LOCK_SH and _is_wanted(fd, exclusively=True):
                    _let_pass(fd, deadline)
                fcntl.flock(fd, self._kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if not _wait(fd, self._kind, deadline):
                    return False
            # Between open and lock, another process may have unlinked the file and created a new one.
            if os.fstat(fd).st_ino == os.stat(self._path).st_ino:
                self._fd, fd = fd, -1
                self._sign()
                return True
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno is None or error.filename:
                raise
            # flock(2) and fstat(2) know a descriptor, not its file.
            raise OSError(error.errno, error.strerror, f"lock {self._path}") from None
        finally:
            if fd >= 0:
                descriptor.close(fd)
        return False

    def _sign(self) -> None:
        """Write this process into the file, for the message of a process that waits too long.

        A full disk is not an error: the lock is held without the entry.
        """
        try:
            if self._kind == fcntl.LOCK_EX:
                os.truncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_END)
            os.write(self._fd, f"process {os.getpid()} ({self._purpose or 'cnihook'})\n".encode())
        except OSError:
            pass

    def _holder(self) -> str:
        return ", ".join(_signed(self._path)) or "another process"


def _unlock(fd: int) -> None:
    """Release a lock whose descriptor may still be open: this process would wait for itself."""
    try:
        fcntl.flock(fd, fcntl.LOCK_UN)
    except OSError:
        pass  # it is closed, so the lock is released


# Waiting
#
# A blocked flock(2) gets the lock in the order of arrival; a process that polls may never find it free.  A
# waiting process holds a shared lock of the other kind (fcntl) on the file's first byte, which shows the
# holder that the file must stay.  A process that waits for an exclusive lock holds one on the second byte,
# too.  The kernel grants shared locks while there are others, so an exclusive lock might never be granted.
# A process that comes for a shared lock sees that byte and waits until the exclusive lock is granted.

_FIRST, _SECOND, _BOTH = (0, 1), (1, 1), (0, 2)  # bytes: begin, length
_F_OFD_GETLK, _F_OFD_SETLK, _F_OFD_SETLKW = 36, 37, 38  # <asm-generic/fcntl.h>
_PAUSE = 0.02  # seconds between two tries where no alarm can end a wait


class _Late(BaseException):
    """The alarm that ends a wait."""


class _Alarm:
    """SIGALRM for the time of one wait.  The caller's own handler and timer are saved, then restored."""

    def __init__(self) -> None:
        self._handler = _signal.getsignal(_signal.SIGALRM)
        self._is_armed = False
        self._started = time.monotonic()
        _signal.signal(_signal.SIGALRM, self._ring if self._handler is not None else None)
        self._before = _signal.setitimer(_signal.ITIMER_REAL, 0)

    def _ring(self, _signum: int, _frame: object) -> None:
        if self._is_armed:
            raise _Late

    def wait(self, take: "Callable[[], object]", left: float) -> bool:
        """Return True once `take` has the lock, False if `left` seconds or the caller's timer are over."""
        left = min(left, self._before[0] or left)
        try:
            try:
                # Repeated, because an alarm that comes just before the wait does not end it.
                _signal.setitimer(_signal.ITIMER_REAL, left, _PAUSE)
                self._is_armed = True
                take()
                return True
            finally:
                self._is_armed = False
        except _Late:
            self._is_armed = False
            return False

    def restore(self) -> None:
        _signal.setitimer(_signal.ITIMER_REAL, 0)
        _signal.signal(_signal.SIGALRM, self._handler)
        value, interval = self._before
        if value:
            left = value - (time.monotonic() - self._started)
            _signal.setitimer(_signal.ITIMER_REAL, max(left, 1e-6), interval)


def _record(kind: int, place: "tuple[int, int]") -> bytes:
    return struct.pack("hhqqi", kind, os.SEEK_SET, *place, 0)  # struct flock


def _is_wanted(fd: int, *, exclusively: bool = False) -> bool:
    query = _record(fcntl.F_WRLCK, _SECOND if exclusively else _FIRST)
    kind: int = struct.unpack_from("h", fcntl.fcntl(fd, _F_OFD_GETLK, query))[0]
    return kind != fcntl.F_UNLCK


def _let_pass(fd: int, deadline: float) -> None:
    """Wait until the waiting exclusive locks are granted, or until the deadline."""

    def take() -> None:
        fcntl.fcntl(fd, _F_OFD_SETLKW, _record(fcntl.F_WRLCK, _SECOND))

    if _wait_for(take, deadline):
        fcntl.fcntl(fd, _F_OFD_SETLK, _record(fcntl.F_UNLCK, _SECOND))


def _wait(fd: int, kind: int, deadline: float) -> bool:
    """Return True with the lock, False if the time is over or the caller has to try again."""

    def take() -> None:
        place = _BOTH if kind == fcntl.LOCK_EX else _FIRST
        fcntl.fcntl(fd, _F_OFD_SETLK, _record(fcntl.F_RDLCK, place))
        fcntl.flock(fd, kind)
        fcntl.fcntl(fd, _F_OFD_SETLK, _record(fcntl.F_UNLCK, _SECOND))

    return _wait_for(take, deadline)


def _wait_for(take: "Callable[[], object]", deadline: float) -> bool:
    left = deadline - time.monotonic()
    if left <= 0:
        return False
    try:
        is_blocked = _signal.SIGALRM in _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
        alarm = None if is_blocked else _Alarm()
    except (ValueError, TypeError):  # not the main thread, or a handler that C code set
        alarm = None
    if not alarm:
        time.sleep(min(_PAUSE, left))
        return False
    try:
        return alarm.wait(take, left)
    finally:
        alarm.restore()


def is_held(name: str) -> bool:
    """Return True if a process in the lock's file still runs.  The lock itself is not touched."""
    return bool(_signed(Lock(name)._path))


def _signed(path: str) -> "list[str]":
    """Return the entries of the processes that still run.  One that shared the lock may have released it."""
    try:
        # Without O_NONBLOCK it would wait at a FIFO.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        signed = os.read(fd, _LONGEST_SIGNATURES).decode(errors="replace").splitlines()
    except OSError:
        return []
    finally:
        descriptor.close(fd)
    return [line for line in signed if os.path.exists(f"/proc/{''.join(line.split()[1:2])}")]


def clear_abandoned(*, signed: bool = True) -> None:
    """Remove lock files whose holders were killed.  Without `signed`, skip what a living process signed."""
    try:
        names = os.listdir(FOLDER)
    except OSError:
        return
    for name in names:
        if name.endswith(".lock") and (signed or not _signed(f"{FOLDER}/{name}")):
            try:
                with Lock(name.removesuffix(".lock"), timeout=0):
                    pass  # the release removes the file
            except OSError:
                pass  # it is held, or is not a lock
