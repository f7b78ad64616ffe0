# SPDX-License-Identifier: Apache-2.0
"""keeper.client: another program may listen at the keeper's path."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cnihook.keeper.client import DaemonUnavailableError, ForeignDaemonError, Keeper


@contextmanager
def listening(path: Path, serve: Callable[[socket.socket], None]) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def once() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                serve(connection)

        thread = threading.Thread(target=once, daemon=True)
        thread.start()
        yield str(path)
        thread.join(10)


def test_endless_answer_is_cut(tmp_path: Path) -> None:
    def forever(connection: socket.socket) -> None:
        while True:
            connection.sendall(b"x" * 65536)

    with (
        listening(tmp_path / "s", forever) as path,
        pytest.raises(ForeignDaemonError, match="not a DHCP keeper"),
    ):
        Keeper("DHCP keeper", "dhcp-keeper", 30).call(path, {}, start=False)


def test_slow_answer_ends_at_the_timeout(tmp_path: Path) -> None:
    def drops(connection: socket.socket) -> None:
        for _ in range(100):
            connection.sendall(b" ")
            time.sleep(0.05)

    with (
        listening(tmp_path / "s", drops) as path,
        pytest.raises(DaemonUnavailableError, match="does not answer"),
    ):
        Keeper("DHCP keeper", "dhcp-keeper", 0.5).call(path, {}, start=False)
