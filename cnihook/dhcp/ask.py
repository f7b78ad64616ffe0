# SPDX-License-Identifier: Apache-2.0
"""How a plugin speaks to the keeper: one request, one answer; and how it starts one."""

import _socket
import os
import sys
import time

from cnihook.lean import fastjson
from cnihook.lean.words import one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SOCKET = "/run/cni/dhcp.sock"

_LONGEST_PATH = 107  # bytes: <linux/un.h> UNIX_PATH_MAX less the closing zero
PATIENCE = 50.0  # seconds for an answer: more than the keeper gives a server, less than a hook has
_MOST = 1 << 20  # bytes of an answer; another program may listen there
_START = 20.0  # seconds for a keeper to come up on a machine that is busy
_TRIES = 3
_CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class NoKeeper(Exception):
    """No keeper answers there, in words."""


class Stranger(NoKeeper):
    """Somebody answers, but it is no keeper of ours."""


class Denied(Exception):
    """The keeper's answer is no.  `later`: it may be another one another time."""

    def __init__(self, text: str, later: bool) -> None:
        super().__init__(text)
        self.later = later


def is_path(path: str) -> bool:
    """Whether a socket can be there."""
    return path.startswith("/") and "\0" not in path and len(os.fsencode(path)) <= _LONGEST_PATH


def ask(
    path: str, request: "dict[str, Any]", *, start: bool, patience: float = PATIENCE
) -> "dict[str, Any]":
    """Send a request to the keeper at `path`, and wait for `patience` seconds for its answer.

    With `start`, one is started if there is none.
    """
    problem = NoKeeper(f"no DHCP keeper answers at {path}")
    for _attempt in range(_TRIES):
        try:
            answer = _exchange(path, fastjson.dumps(request).encode() + b"\n", patience)
        except (FileNotFoundError, ConnectionRefusedError):
            if not start:
                break
            _start(path)
            continue
        except TimeoutError:
            raise NoKeeper(f"the DHCP keeper at {path} does not answer in {patience:g} s") from None
        except (BrokenPipeError, ConnectionResetError):
            continue
        except OSError as error:
            raise NoKeeper(f"connect to the DHCP keeper at {path}: {error.strerror}") from None
        if answer:
            return _read(path, answer)
        # It ended at this very moment, having had nothing to do.
    raise problem


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


def _read(path: str, data: bytes) -> "dict[str, Any]":
    try:
        answer = fastjson.loads(data.decode())
        if not isinstance(answer, dict):
            raise ValueError
    except ValueError:
        who = "the reference plugins' daemon" if data.startswith(b"HTTP/") else "no DHCP keeper of cnihook"
        raise Stranger(f"what listens at {path} is {who}") from None
    if "error" in answer:
        raise Denied(str(answer["error"]), bool(answer.get("later")))
    return answer


def _start(path: str) -> None:
    """Returns once a keeper listens.  It puts itself into the background."""
    from cnihook.lean import process

    program = sys.executable or "/usr/bin/python3"
    code = (
        "import os, sys; os.umask(os.umask(0o077) | 0o022); sys.pycache_prefix = os.devnull;"
        f" sys.path.insert(0, {_CHECKOUT!r}); from cnihook.cli.main import main; main()"
    )
    argv = [program, "-ISc", code, "dhcp-keeper", "--background", "--socket", path]
    try:
        outcome = process.run(program, argv, {"PATH": os.environ.get("PATH", os.defpath)}, b"", _START)
    except OSError as error:
        raise NoKeeper(f"start a DHCP keeper: {program}: {error.strerror}") from None
    if outcome.timed_out:
        raise NoKeeper(f"start a DHCP keeper: it does not come up in {_START:g} s")
    if outcome.status:
        why = one_line(outcome.stderr.decode(errors="replace")) or f"exit status {outcome.status}"
        raise NoKeeper(f"start a DHCP keeper: {why}")
