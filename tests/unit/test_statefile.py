# SPDX-License-Identifier: Apache-2.0
"""lean.statefile: anything can be at the path of a file that another program may have written."""

import os
import socket
from pathlib import Path

import pytest

from cnihook.lean import statefile


def test_content_of_a_regular_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 200_000)

    assert statefile.content(str(path)) == statefile.read(str(path)) == b"x" * 200_000
    assert statefile.content(str(tmp_path / "none")) is None


@pytest.mark.parametrize("kind", ["fifo", "folder", "socket", "link", "device"])
def test_other_kinds_are_not_opened(tmp_path: Path, kind: str) -> None:
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

    with pytest.raises(statefile.Unusable, match="^is not a regular file$"):
        statefile.content(str(path))
    assert statefile.read(str(path)) is None


def test_links_are_followed_on_request(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")

    assert statefile.content(str(tmp_path / "link"), follow=True) == b"x"
    with pytest.raises(OSError, match="loop"):
        statefile.content(str(tmp_path / "loop"), follow=True)


def test_no_more_is_read_than_allowed(tmp_path: Path) -> None:
    """Also of a file whose size is not known before, as in /proc."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    os.truncate(path, 1 << 40)  # a hole

    with pytest.raises(statefile.Unusable, match="^is longer than 16 MiB$"):
        statefile.content(str(path))
    with pytest.raises(statefile.Unusable, match="^is longer than 2 MiB$"):
        statefile.content(str(path), longest=2 << 20)
