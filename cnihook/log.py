# SPDX-License-Identifier: Apache-2.0
"""
The events of each container's network, one per line in /run/cnihook/log/ID.

crun discards what a hook prints, and runc shows it only if the hook fails; here it can be read later.  When
a container has ended, its log is added to /var/log/cnihook/ID.  A log with a failure stays, so that it is
noticed.  The newest hundred of each kind are kept.

A line has the time, the milliseconds since the start, and a text.  If programs read the event, its fields
follow after a tab, as a JSON object.  A text has no tab, and JSON escapes the tabs of a value.

    2026-11-30T10:00:00.123    31.5 ms  attached to mynet as eth0 10.22.0.2/16<tab>{"event": "attached", ...}
"""

import errno
import os
import time
from _stat import S_ISREG

from cnihook.fast import fastjson, statefile
from cnihook.fast.errors_text import message_with_notes, one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Any

    from cnihook.process.steps import Steps

FOLDER = "/run/cnihook/log"
FINISHED = "/var/log/cnihook"
ATTACHED = "attached"  # network, interface, addresses
FAILED = "failed"  # operation, subject, error
STEP = "step"  # step, milliseconds
TOOK = "took"  # operation, milliseconds
# The text of an event that has fields.
_TEXTS = {
    ATTACHED: "attached to {network} as {interface} {addresses}",
    FAILED: "{operation} {subject} failed: {error}",
    STEP: "step {step}: {milliseconds} ms",
    TOOK: "{operation} took {milliseconds} ms since its process was started",
}
_KEPT = 100
_LONGEST = 8 << 10  # characters of one event or message
_LONGEST_FIELD = 1 << 10
_FULL = 1 << 20  # bytes; nothing more is added to a log of this size
_QUOTED_LINES, _QUOTED_LENGTH = 10, 500


_current: "Log | None" = None  # the log of the operation that runs now
_steps: "Steps | None" = None  # with CNIHOOK_TIMING


class Log:
    """The log of one container.  A log that cannot be written never stops the operation.

    `with log:` collects what notice() reports.  `quiet`: in the log only, because stderr is not read.
    """

    def __init__(self, container_id: str, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._outer: list[Log | None] = []
        self._path = f"{FOLDER}/{container_id[:255]}"
        self._finished = f"{FINISHED}/{container_id[:255]}"
        self._started = time.monotonic()

    def __enter__(self) -> "Log":
        global _current
        self._outer.append(_current)
        _current = self
        return self

    def __exit__(
        self,
        _kind: "type[BaseException] | None",
        _error: "BaseException | None",
        _trace: "TracebackType | None",
    ) -> None:
        global _current
        _current = self._outer.pop()

    def event(self, event: str, **fields: str) -> None:
        """Add a line.  `event` is a text, or with fields the name of an event that programs read.

        The field `seconds`, since the start, is added to the others.
        """
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now))
        elapsed = time.monotonic() - self._started
        data = ""
        if fields:
            bounded = {name: value[:_LONGEST_FIELD] for name, value in fields.items()}
            data = f"\t{fastjson.dumps({'event': event, 'seconds': round(elapsed, 6), **bounded})}"
        times = f"{stamp}.{int(now * 1000) % 1000:03d} {elapsed * 1000:7.1f} ms"
        _write(self._path, f"{times}  {_cut(text_of(event, fields))}{data}\n")

    def failure(self, operation: str, error: BaseException, subject: str = "") -> None:
        """Add the failure of an operation; `subject` is its object, as text."""
        self.event(FAILED, operation=operation, subject=subject, error=message_with_notes(error))
        _prune(FOLDER)

    def add_steps(self, operation: str) -> None:
        """Add a line for each step so far, and one for the whole process, if steps are measured."""
        if _steps:
            step("the rest")
            for name, seconds in _steps.seconds.items():
                self.event(STEP, step=name, milliseconds=f"{seconds * 1000:.2f}")
            self.event(TOOK, operation=operation, milliseconds=f"{_steps.total * 1000:.2f}")

    def events(self) -> "Iterator[dict[str, Any]]":
        """Yield the fields of each event that has some.  Raises FileNotFoundError like read()."""
        yield from _fields(self.read())

    def read(self) -> str:
        """Return the log, after what was kept when the container ended.  Raises FileNotFoundError."""
        try:
            present = _text(self._path)
        except FileNotFoundError:
            return _text(self._finished)
        try:
            kept = _text(self._finished)
        except FileNotFoundError:
            return present
        return kept if present in kept else kept + present  # it may have ended between both reads

    def close(self) -> None:
        """Add the log to the history of ended containers.  A log with a failure stays."""
        self._end(kept=True)

    def discard(self) -> None:
        """Remove the log of an ID that no user will look up.  A log with a failure stays."""
        self._end(kept=False)

    def _end(self, *, kept: bool) -> None:
        try:
            text = _text(self._path)
            if not any(fields.get("event") == FAILED for fields in _fields(text)):
                if kept:
                    if not _write(self._finished, text):
                        newest = (_text(self._finished) + text)[-_FULL // 2 :]
                        _write(self._finished, newest.partition("\n")[2], os.O_TRUNC)
                    _prune(FINISHED)
                os.unlink(self._path)
            os.rmdir(FOLDER)  # succeeds for the last log
        except OSError:
            pass


def measure_steps(began: float) -> "Steps":
    """Measure steps from now on.  `began`: see hook.main()."""
    from cnihook.process.steps import Steps  # not at the top: for CNIHOOK_TIMING only

    global _steps
    _steps = Steps(began)
    return _steps


def step(name: str) -> None:
    """Note that a step of this process has ended, if steps are measured."""
    if _steps:
        _steps.end(name)


def text_of(event: str, fields: "dict[str, str]") -> str:
    """Return an event for people."""
    return _TEXTS[event].format_map(fields) if fields else event


def names() -> "list[str]":
    """Return the containers that run, and those with a failure."""
    return _listed(FOLDER)


def finished() -> "list[str]":
    return _listed(FINISHED)


def _listed(folder: str) -> "list[str]":
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _write(path: str, text: str, flags: int = 0) -> bool:
    """Add to a file, or do nothing if that is impossible.  Returns False if the file is full."""
    try:
        try:
            fd = statefile.create(path, os.O_APPEND | flags, 0o640)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            fd = statefile.create(path, os.O_APPEND | flags, 0o640)
    except OSError:
        return True
    try:
        status = os.fstat(fd)
        if S_ISREG(status.st_mode):
            if status.st_size >= _FULL:
                return False
            os.write(fd, text.encode(errors="replace"))
    except OSError:
        pass
    finally:
        os.close(fd)
    return True


def _text(path: str) -> str:
    """Raise FileNotFoundError, or another OSError for what cannot be read."""
    try:
        data = statefile.content(path)
    except statefile.UnusableFileError as error:
        raise OSError(errno.EINVAL, str(error), path) from None
    if data is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return data.decode(errors="replace")


def _fields(text: str) -> "Iterator[dict[str, Any]]":
    for line in text.split("\n"):
        data = line.partition("\t")[2]
        if data.startswith("{"):
            try:
                yield fastjson.loads(data)
            except ValueError:
                pass  # the disk was full, or another program has written it


def _cut(text: str) -> str:
    """Return `text` as one line of bounded length: names and messages in it may be of any size."""
    line = one_line(text[: 2 * _LONGEST])
    left_out = len(text) - _LONGEST
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ... ({left_out} characters more)"


def warn(text: str) -> None:
    """Print one line on stderr, and ignore any error."""
    try:
        os.write(2, f"cnihook: {_cut(text)}\n".encode(errors="replace"))
    except OSError:
        pass


def notice(text: str) -> None:
    """Report what does not stop the operation: in the log of its container, and on stderr."""
    if _current:
        _current.event(text)
    if not (_current and _current.quiet):
        warn(text)


def quote(program: str, stderr: bytes) -> None:
    """Print what a program printed on stderr, and keep its last lines in the log of the container."""
    lines = [one_line(line) for line in stderr.decode(errors="replace").split("\n")]
    try:
        os.write(2, "\n".join(lines).encode(errors="replace"))
    except OSError:
        pass  # stderr is closed
    if _current:
        for line in list(filter(None, lines))[-_QUOTED_LINES:]:
            _current.event(f"{program} printed: {line[:_QUOTED_LENGTH]}")


def _prune(folder: str) -> None:
    kept = _listed(folder)
    if len(kept) <= _KEPT:
        return

    def age(name: str) -> float:
        try:
            return os.stat(f"{folder}/{name}").st_mtime
        except OSError:
            return 0.0

    for name in sorted(kept, key=age)[:-_KEPT]:
        try:
            os.unlink(f"{folder}/{name}")
        except OSError:
            pass
