# SPDX-License-Identifier: Apache-2.0
"""process.notify: messages to systemd, sd_notify(3)."""

import socket
from pathlib import Path

import pytest

from cnihook.process.notify import READY, STOPPING, notify


def test_messages_reach_the_socket_that_systemd_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (str(tmp_path / "notify"), f"@{tmp_path.name}-notify"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.settimeout(10)
            systemd.bind(path.replace("@", "\0"))
            monkeypatch.setenv("NOTIFY_SOCKET", path)
            notify(READY, STOPPING)
            assert systemd.recv(100) == b"READY=1\nSTOPPING=1"


@pytest.mark.parametrize("path", ["", "notify", "/missing/notify"])
def test_program_without_systemd_goes_on(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    notify(READY)
    assert Path(path or "/missing").exists() is False
