# SPDX-License-Identifier: Apache-2.0
"""oci.etc: one file, in place.  What a hostile root file system does to it is a matter of tests/e2e."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnihook.oci import etc
from cnihook.oci.bundle import Bundle
from cnihook.oci.etc import Etc, File


@pytest.fixture
def file(tmp_path: Path) -> File:
    (tmp_path / "etc").mkdir()
    return File(str(tmp_path), "etc/hosts")


def content(file: File) -> str:
    return Path(str(file)).read_text()


def test_it_is_made_where_it_is_missing(file: File) -> None:
    assert file.read() is None
    file.write("a\n")

    assert file.read() == content(file) == "a\n"
    assert Path(str(file)).stat().st_mode & 0o777 == 0o644 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_it_is_the_same_file_afterwards(file: File) -> None:
    file.write("a longer text than the one that comes\n")
    inode = os.stat(str(file)).st_ino
    file.write("b\n")
    file.append("c\n")
    file.remove_lines("b")

    assert content(file) == "c\n" and os.stat(str(file)).st_ino == inode


def test_what_is_added_begins_a_line(file: File) -> None:
    file.write("no end")
    file.append("a\n")
    file.append("b\n")

    assert content(file) == "no end\na\nb\n"


def test_nothing_is_added_to_what_is_not_there(file: File) -> None:
    with pytest.raises(FileNotFoundError):
        file.append("a\n")
    with pytest.raises(FileNotFoundError):
        file.remove_lines("a")
    assert not os.path.exists(str(file))


def test_without_a_place_nothing_is_read_or_made(tmp_path: Path) -> None:
    file = File(str(tmp_path / "none"), "hosts")
    with pytest.raises(FileNotFoundError):
        file.read()
    with pytest.raises(FileNotFoundError):
        file.write("a")


LINES = st.lists(st.sampled_from(["", "a", "x # t", "# t", "x # tt", "y t", "# t x", "é # t"]), max_size=9)


@given(LINES, st.booleans())
def test_lines_go_by_their_end_and_what_is_in_them(tmp_path: Path, lines: list[str], ended: bool) -> None:
    """To the byte what a plain reading of the file would make of it."""
    file = File(str(tmp_path), "hosts")
    file.write("\n".join(lines) + ("\n" if ended else ""))
    whole = content(file).splitlines(keepends=True)

    file.remove_lines(" t", having="# ")

    assert content(file) == "".join(line for line in whole if not (line.endswith(" t\n") and "# " in line))


def test_bytes_that_are_no_text_stay(file: File) -> None:
    Path(str(file)).write_bytes(b"\xff\xfe\n")
    file.write(file.read() or "")

    assert Path(str(file)).read_bytes() == b"\xff\xfe\n"


def test_the_hosts_own_file_and_one_with_two_names_are_refused(
    file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clone of a root file system by hard links has one file under many names."""
    file.write("a\n")
    other = f"{file}.other"
    os.link(str(file), other)
    with pytest.raises(OSError, match="another name"):
        file.write("b\n")
    os.unlink(other)
    monkeypatch.setattr(etc, "_own", {})
    monkeypatch.setattr(etc, "HOSTS_OWN", ("/nowhere", str(file)))
    with pytest.raises(OSError, match="the host's own"):
        file.read()

    assert content(file) == "a\n"


def test_a_file_without_an_end_is_not_read(file: File) -> None:
    """It belongs to a container, which may make it what it likes."""
    file.write("")
    os.truncate(str(file), 1 << 40)

    with pytest.raises(OSError, match="longer than"):
        file.read()
    with pytest.raises(OSError, match="longer than"):
        file.remove_lines("a")


def test_one_place_by_two_ways(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    first, second = File(str(tmp_path), "etc/hosts"), File.at(f"{tmp_path}/etc/hosts")

    assert first.is_same(second), "both missing, in one folder"
    first.write("a")
    assert first.is_same(second) and first != second
    assert not first.is_same(File(str(tmp_path), "etc/other")) and not first.is_same(File("/none", "hosts"))


def test_a_container_that_nobody_knows_the_root_of(tmp_path: Path) -> None:
    """This process stands for one before pivot_root."""
    with pytest.raises(FileNotFoundError, match="not known"):
        Etc(os.getpid(), Bundle({}, ""))
    with pytest.raises(OSError):
        Etc(1 << 22, Bundle({}, ""))

    (tmp_path / "rootfs" / "etc").mkdir(parents=True)
    found = Etc(os.getpid(), Bundle({"root": {"path": "rootfs"}}, f"{tmp_path}/config.json"))
    file = found.file("hosts")
    assert str(file) == f"{tmp_path}/rootfs/etc/hosts" and found.is_on_host(file) and not found.is_begun
