# SPDX-License-Identifier: Apache-2.0
"""A keeper: its socket, its way into the background, its answers to requests, and its end."""

import asyncio
import errno
import json
import os
import signal
import socket
import stat

from cnihook.fast.errors_text import message_with_notes
from cnihook.process.daemonize import daemonize
from cnihook.protocol import locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LINGER = 2.0  # seconds after the last thing to do

_LONGEST = 1 << 16  # bytes of a request
_PATIENCE = 10.0  # seconds for a request to arrive


class RequestError(Exception):
    """The request fails; the text is for the caller.  `later`: it may succeed later."""

    def __init__(self, text: str, *, later: bool = False) -> None:
        super().__init__(text)
        self.later = later


class Daemon:
    """The process behind a socket.  A kind of keeper has its own begin(), is_busy and do()."""

    def __init__(self, listener: socket.socket, *, linger: float = LINGER) -> None:
        self._listener = listener
        self._linger = linger
        self._guests = 0  # number of callers
        self.changed = asyncio.Event()  # set it when the process may have nothing to do any more
        self._over = False

    async def begin(self) -> None:
        """Continue what an earlier process has left."""

    @property
    def is_busy(self) -> bool:
        raise NotImplementedError

    async def do(self, request: "dict[str, Any]") -> "dict[str, Any]":
        """Return the answer to a request.  Raises RequestError, OSError, or ValueError and the like."""
        raise NotImplementedError

    async def run(self) -> None:
        """Serve until there is nothing left to do, or a signal asks for the end.  The state outlives it."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._end)
        await self.begin()
        await asyncio.start_unix_server(self._serve, sock=self._listener, limit=_LONGEST)
        while not self._over:
            self.changed.clear()
            try:
                async with asyncio.timeout(None if self.is_busy or self._guests else self._linger):
                    await self.changed.wait()
            except TimeoutError:
                break

    def _end(self) -> None:
        self._over = True
        self.changed.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._guests += 1
        self.changed.set()
        try:
            async with asyncio.timeout(_PATIENCE):
                line = await reader.readline()
            if line:
                writer.write(json.dumps(await self._answer(line, reader)).encode() + b"\n")
                await writer.drain()
        except (OSError, TimeoutError, ValueError):  # ValueError: the line is too long
            pass  # there is no caller to answer
        finally:
            writer.close()
            self._guests -= 1
            self.changed.set()

    async def _answer(self, line: bytes, reader: asyncio.StreamReader) -> "dict[str, Any]":
        work = asyncio.ensure_future(self._read_and_do(line))
        # The caller may end without waiting, if the start of its container failed or was cancelled.
        gone = asyncio.ensure_future(reader.read(1))
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        work.cancel()  # without effect if it is done
        try:
            return await work
        except asyncio.CancelledError:
            return {"error": "the request was cancelled"}
        except RequestError as failure:
            return {"error": str(failure), "later": failure.later}
        except (KeyError, TypeError, ValueError) as error:
            return {"error": f"this keeper does not understand the request: {message_with_notes(error)}"}
        except OSError as error:
            return {"error": message_with_notes(error)}

    async def _read_and_do(self, line: bytes) -> "dict[str, Any]":
        return await self.do(json.loads(line))


def keep(daemon: Daemon) -> None:
    """Run a keeper until it ends."""
    asyncio.run(daemon.run())


def listen(path: str) -> "socket.socket | None":
    """Return a socket at `path` that only root may use; None if another keeper has it already."""
    os.umask(0o022)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    with locks.keeper(path):
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(path)
            listener.close()
            return None
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise FileExistsError(errno.EEXIST, "is not a socket", path) from None
            os.unlink(path)  # of a keeper that was killed
        os.umask(0o177)
        listener.bind(path)
        os.umask(0o077)
        listener.listen(128)
    return listener


def adopt() -> "socket.socket | None":
    """Return the socket that systemd has opened for this process (sd_listen_fds(3)), if any."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    os.umask(0o077)
    os.set_inheritable(3, False)
    return socket.socket(fileno=3)


def into_background(listener: socket.socket) -> bool:
    """Go on in a new process that has no parent.  Returns False in the old one, which may end now.

    Some runtimes wait until all their files are closed, so none of them stays open.
    """
    if os.fork():
        return False
    if os.fork():
        os._exit(0)
    os.chdir("/")
    daemonize(listener.fileno())
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return True
