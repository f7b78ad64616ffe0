# SPDX-License-Identifier: Apache-2.0
"""Requests to a keeper, each with one answer, and the start of a keeper."""

import _socket
import os
import sys
import time

from cnihook.fast import fastjson
from cnihook.fast.errors_text import one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LONGEST_PATH = 107  # bytes: <linux/un.h> UNIX_PATH_MAX less the closing zero
_MOST = 1 << 20  # bytes of an answer; another program may listen there
_START = 20.0  # seconds in which a keeper starts on a busy machine
_TRIES = 3
_CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class DaemonError(Exception):
    """The keeper has not done what was requested; the text says why."""


class DaemonUnavailableError(DaemonError):
    """No keeper answers; the text says why."""


class ForeignDaemonError(DaemonUnavailableError):
    """A program answers at the path, but it is not a keeper of cnihook."""


class RequestRejectedError(DaemonError):
    """The keeper rejected the request.  `later`: it may accept it later."""

    def __init__(self, text: str, later: bool) -> None:
        super().__init__(text)
        self.later = later


def is_path(path: str) -> bool:
    """Return True if a socket can be at this path."""
    return path.startswith("/") and "\0" not in path and len(os.fsencode(path)) <= _LONGEST_PATH


class Keeper:
    """A kind of keeper: its name in errors, the command that starts it, and seconds for an answer."""

    def __init__(self, title: str, command: str, patience: float) -> None:
        self.title = title
        self.patience = patience
        self._command = command

    def call(
        self, path: str, request: "dict[str, Any]", *, start: bool, patience: float = 0.0
    ) -> "dict[str, Any]":
        """Send a request to the keeper at `path`, and wait for `patience` seconds, if that is longer.

        With `start`, a keeper is started if there is none.
        """
        patience = max(patience, self.patience)
        problem = DaemonUnavailableError(f"no {self.title} answers at {path}")
        for _attempt in range(_TRIES):
            try:
                answer = _exchange(path, fastjson.dumps(request).encode() + b"\n", patience)
            except (FileNotFoundError, ConnectionRefusedError):
                if not start:
                    break
                self._start(path)
                continue
            except TimeoutError:
                raise DaemonUnavailableError(
                    f"the {self.title} at {path} does not answer in {patience:g} s"
                ) from None
            except (BrokenPipeError, ConnectionResetError):
                continue
            except OSError as error:
                text = f"connect to the {self.title} at {path}: {error.strerror}"
                raise DaemonUnavailableError(text) from None
            if answer:
                return self._read(path, answer)
            # The keeper ended at this moment, because it had nothing to do.
        raise problem

    def _read(self, path: str, data: bytes) -> "dict[str, Any]":
        try:
            answer = fastjson.loads(data.decode())
            if not isinstance(answer, dict):
                raise ValueError
        except ValueError:
            is_reference = data.startswith(b"HTTP/")  # the daemon of the reference's plugin dhcp
            program = "the reference plugins' daemon" if is_reference else f"not a {self.title} of cnihook"
            raise ForeignDaemonError(f"the program that listens at {path} is {program}") from None
        if "error" in answer:
            raise RequestRejectedError(str(answer["error"]), bool(answer.get("later")))
        return answer

    def _start(self, path: str) -> None:
        """Start a keeper, and return when it listens.  It puts itself into the background."""
        from cnihook.process import child

        program = sys.executable or "/usr/bin/python3"
        code = (
            "import os, sys; os.umask(os.umask(0o077) | 0o022); sys.pycache_prefix = os.devnull;"
            f" sys.path.insert(0, {_CHECKOUT!r}); from cnihook.cli.main import main; main()"
        )
        argv = [program, "-ISc", code, self._command, "--background", "--socket", path]
        what = f"start a {self.title}"
        try:
            outcome = child.run(program, argv, {"PATH": os.environ.get("PATH", os.defpath)}, b"", _START)
        except OSError as error:
            raise DaemonUnavailableError(f"{what}: {program}: {error.strerror}") from None
        if outcome.timed_out:
            raise DaemonUnavailableError(f"{what}: it does not listen after {_START:g} s")
        if outcome.status:
            why = one_line(outcome.stderr.decode(errors="replace")) or f"exit status {outcome.status}"
            raise DaemonUnavailableError(f"{what}: {why}")


def _exchange(path: str, data: bytes, patience: float) -> bytes:
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(patience)
        connection.connect(path)
        connection.sendall(data)
        chunks = []
        size = 0
        deadline = time.monotonic() + patience
        while size < _MOST and (chunk := connection.recv(1 << 16)):
            chunks.append(chunk)
            size += len(chunk)
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
        return b"".join(chunks)
    finally:
        connection.close()
