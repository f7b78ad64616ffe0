# SPDX-License-Identifier: Apache-2.0
"""fast.statefile: the path of a file that other programs write may have anything at it."""

import os
import socket
from pathlib import Path

import pytest

from cnihook.fast import statefile


def test_regular_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 200_000)

    assert statefile.content(str(path)) == statefile.read(str(path)) == b"x" * 200_000
    assert statefile.content(str(tmp_path / "none")) is None


@pytest.mark.parametrize("kind", ["fifo", "folder", "socket", "link", "device"])
def test_special_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    elif kind == "link":
        path.symlink_to("/etc/hostname")
    else:
        path = Path("/dev/zero")

    with pytest.raises(statefile.UnusableFileError, match="^is not a regular file$"):
        statefile.content(str(path))
    assert statefile.read(str(path)) is None


def test_links_are_followed_on_request(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")

    assert statefile.content(str(tmp_path / "link"), follow=True) == b"x"
    with pytest.raises(OSError, match="loop"):
        statefile.content(str(tmp_path / "loop"), follow=True)


def test_file_is_read_up_to_the_limit_only(tmp_path: Path) -> None:
    """This includes files whose size is not known before, as in /proc."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    os.truncate(path, 1 << 40)  # a hole

    with pytest.raises(statefile.UnusableFileError, match="^is longer than 16 MiB$"):
        statefile.content(str(path))
    with pytest.raises(statefile.UnusableFileError, match="^is longer than 2 MiB$"):
        statefile.content(str(path), longest=2 << 20)


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_file_is_not_created_at_a_special_file(tmp_path: Path, kind: str) -> None:
    """An open of a FIFO would wait for a reader."""
    path = tmp_path / "file"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "other")
    else:
        path.mkdir()

    with pytest.raises(OSError):
        statefile.create(str(path))
    assert not (tmp_path / "other").exists()


def test_created_file_is_empty_and_private_or_as_the_flags_say(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    for flags, text in ((os.O_APPEND, "beforenow"), (os.O_TRUNC, "now")):
        with open(statefile.create(str(path), flags), "w") as file:
            file.write("now")
        assert path.read_text() == text
    path.unlink()
    os.close(statefile.create(str(path)))
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """fsync() does not name the file, rename() does; neither leaves the temporary file."""
    path = tmp_path / ("f" * 255)
    for data in (b"before", b"now"):
        statefile.replace(str(path), data, mode=0o644, durable=True)
        assert path.read_bytes() == data and path.stat().st_mode & 0o777 == 0o644

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device", *arguments[1:])

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        statefile.replace(str(path), b"later", durable=True)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"now"
