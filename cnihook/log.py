# SPDX-License-Identifier: Apache-2.0
"""
What happened to each container's network, one line per event in /run/cnihook/log/ID.

crun throws away what a hook prints, runc shows it only when the hook fails; this is where it can be read
later.  A container that ends without a failure takes its log along.  The others' stay, the newest hundred of
them.
"""

import os
import time

from cnihook.lean.words import describe, one_line

FOLDER = "/run/cnihook/log"
_FAILED = " failed: "
_KEPT = 100


class Log:
    """The log of one container.  A log that cannot be written never stops the work that it tells of."""

    def __init__(self, container_id: str) -> None:
        self._path = f"{FOLDER}/{container_id[:255]}"
        self._started = time.monotonic()

    def event(self, text: str) -> None:
        """Add a line: when, how long since the start, what."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now))
        passed = (time.monotonic() - self._started) * 1000
        line = f"{stamp}.{int(now * 1000) % 1000:03d} {passed:7.1f} ms  {one_line(text)}\n"
        try:
            fd = os.open(self._path, _FLAGS, 0o640)
        except FileNotFoundError:
            try:
                os.makedirs(FOLDER, mode=0o755, exist_ok=True)
                fd = os.open(self._path, _FLAGS, 0o640)
            except OSError:
                return
        except OSError:
            return
        try:
            os.write(fd, line.encode(errors="replace"))
        except OSError:
            pass
        finally:
            os.close(fd)

    def failure(self, what: str, error: BaseException) -> None:
        self.event(f"{what}{_FAILED}{describe(error)}")
        _prune()

    def read(self) -> str:
        """Raises FileNotFoundError if there is none."""
        with open(self._path, errors="replace") as file:
            return file.read()

    def close(self) -> None:
        """The container is gone: so is its log, unless there is a failure in it to be looked into."""
        try:
            if _FAILED not in self.read():
                os.unlink(self._path)
            os.rmdir(FOLDER)  # the last one takes the folder along
        except OSError:
            pass


_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def names() -> "list[str]":
    try:
        return sorted(os.listdir(FOLDER))
    except OSError:
        return []


def complain(text: str) -> None:
    """One line on stderr, whatever becomes of it."""
    try:
        os.write(2, f"cnihook: {one_line(text)}\n".encode(errors="replace"))
    except OSError:
        pass


def _prune() -> None:
    kept = names()
    if len(kept) <= _KEPT:
        return

    def age(name: str) -> float:
        try:
            return os.stat(f"{FOLDER}/{name}").st_mtime
        except OSError:
            return 0.0

    for name in sorted(kept, key=age)[:-_KEPT]:
        try:
            os.unlink(f"{FOLDER}/{name}")
        except OSError:
            pass
