# SPDX-License-Identifier: Apache-2.0
"""A TCP connection that sends every 10 ms and expects each message back: it shows a stall and a loss."""

import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.host.namespace import Namespace
from tests.support.host.sockets import family_of
from tests.support.wait import SILENCE, patience, wait_for

INTERVAL = 0.01  # seconds
LATE = 0.1  # seconds
_MESSAGE = struct.Struct("=Q")


class Echo:
    """A connection from `client` to a server on `port` of `server`, by any address and port."""

    def __init__(
        self, client: Namespace, server: Namespace, address: str, number: int, *, port: int = 80
    ) -> None:
        family = family_of(address)
        with server.socket(family=family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("", port))
            listener.listen()
            listener.settimeout(patience())
            self._near = client.socket(family=family)
            self._near.settimeout(patience())
            self._near.connect((address, number))
            self._far, _peer = listener.accept()
        self._near.setblocking(False)
        self._sent: list[float] = []
        self._delays: list[float] = []
        self.error = ""  # of the connection, such as a reset
        self._is_ending = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._answer, self._ask)]
        for thread in self._threads:
            thread.start()

    def _answer(self) -> None:
        try:
            while data := self._far.recv(4096):
                self._far.sendall(data)
        except OSError:
            pass

    def _ask(self) -> None:
        rest = b""
        try:
            while not self._is_ending.is_set():
                self._sent.append(time.monotonic())
                self._near.send(_MESSAGE.pack(len(self._sent) - 1))
                rest = self._read(rest, INTERVAL)
            end = time.monotonic() + patience()
            while len(self._delays) < len(self._sent) and time.monotonic() < end:
                rest = self._read(rest, INTERVAL)
        except OSError as error:
            self.error = str(error)

    def _read(self, rest: bytes, seconds: float) -> bytes:
        """Read answers for some time.  Returns what is left of an incomplete one."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([self._near], [], [], left)[0]:
                break
            data = self._near.recv(4096)
            if not data:
                raise OSError("closed by the server")
            rest += data
            while len(rest) >= _MESSAGE.size:
                (number,) = _MESSAGE.unpack(rest[: _MESSAGE.size])
                rest = rest[_MESSAGE.size :]
                self._delays.append(time.monotonic() - self._sent[number])
        return rest

    def end(self) -> None:
        self._is_ending.set()
        self._threads[1].join(2 * patience())
        self._near.close()
        self._far.close()

    def wait(self, number: int) -> None:
        """Wait for so many further answers."""
        last = len(self._delays) + number
        wait_for(lambda: len(self._delays) >= last or self.error, "answers")
        assert not self.error, self.error

    def is_dead(self) -> bool:
        """Return True if there are no answers any more.  It ends the connection."""
        time.sleep(INTERVAL)  # one may be on its way
        before = len(self._delays)
        time.sleep(SILENCE)
        self._near.shutdown(socket.SHUT_RDWR)
        return len(self._delays) == before

    @property
    def lost(self) -> int:
        return len(self._sent) - len(self._delays)

    @property
    def slowest(self) -> float:
        return max(self._delays, default=0.0)


@contextmanager
def echo(
    client: Namespace, server: Namespace, address: str, number: int, *, port: int = 80
) -> Iterator[Echo]:
    connection = Echo(client, server, address, number, port=port)
    try:
        yield connection
    finally:
        connection.end()


def expect_undisturbed(connection: Echo, other: Echo) -> None:
    """Check that nothing was lost or late.  `other`: a connection that nothing should disturb.

    If that was late as well, the machine was busy.
    """
    assert (connection.lost, connection.error) == (0, "")
    assert connection.slowest < max(LATE, 2 * other.slowest), (connection.slowest, other.slowest)
