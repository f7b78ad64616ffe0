# SPDX-License-Identifier: Apache-2.0
"""names.etc: one file, changed in place.  tests/e2e has the tests of hostile root file systems."""

import ctypes
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnihook.names import rootfs_file
from cnihook.names.etc import ContainerEtc
from cnihook.names.rootfs_file import File
from cnihook.oci.bundle import Bundle


@pytest.fixture
def file(tmp_path: Path) -> File:
    (tmp_path / "etc").mkdir()
    return File(str(tmp_path), "etc/hosts")


def content(file: File) -> str:
    return Path(str(file)).read_text()


def test_missing_file_is_created(file: File) -> None:
    assert file.read() is None
    file.write("a\n")

    assert file.read() == content(file) == "a\n"
    assert Path(str(file)).stat().st_mode & 0o777 == 0o644 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_changed_file_keeps_its_inode(file: File) -> None:
    file.write("a longer text than the one that comes\n")
    inode = os.stat(str(file)).st_ino
    file.write("b\n")
    file.append("c\n")
    file.remove_lines("b")

    assert content(file) == "c\n" and os.stat(str(file)).st_ino == inode


def test_appended_text_begins_a_line(file: File) -> None:
    file.write("no end")
    file.append("a\n")
    file.append("b\n")

    assert content(file) == "no end\na\nb\n"


def test_missing_file_is_not_created_by_a_change(file: File) -> None:
    with pytest.raises(FileNotFoundError):
        file.append("a\n")
    with pytest.raises(FileNotFoundError):
        file.remove_lines("a")
    assert not os.path.exists(str(file))


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    file = File(str(tmp_path / "none"), "hosts")
    with pytest.raises(FileNotFoundError):
        file.read()
    with pytest.raises(FileNotFoundError):
        file.write("a")


LINES = st.lists(st.sampled_from(["", "a", "x # t", "# t", "x # tt", "y t", "# t x", "é # t"]), max_size=9)


@given(LINES, st.booleans())
def test_lines_are_removed_by_their_end_and_a_part(tmp_path: Path, lines: list[str], ended: bool) -> None:
    """The result is compared, byte for byte, with that of a simple implementation."""
    file = File(str(tmp_path), "hosts")
    file.write("\n".join(lines) + ("\n" if ended else ""))
    whole = content(file).splitlines(keepends=True)

    file.remove_lines(" t", having="# ")

    assert content(file) == "".join(line for line in whole if not (line.endswith(" t\n") and "# " in line))


def test_bytes_that_are_not_text_are_kept(file: File) -> None:
    Path(str(file)).write_bytes(b"\xff\xfe\n")
    file.write(file.read() or "")

    assert Path(str(file)).read_bytes() == b"\xff\xfe\n"


def test_file_of_the_host_and_file_with_two_names_are_refused(
    file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a clone of a root file system by hard links, one file has several names."""
    file.write("a\n")
    other = f"{file}.other"
    os.link(str(file), other)
    with pytest.raises(OSError, match="another hard link"):
        file.write("b\n")
    os.unlink(other)
    monkeypatch.setattr(rootfs_file, "_own", {})
    monkeypatch.setattr(rootfs_file, "HOSTS_OWN", ("/nowhere", str(file)))
    with pytest.raises(OSError, match="the host's own"):
        file.read()

    assert content(file) == "a\n"


def test_endless_file_is_not_read(file: File) -> None:
    """The container may do anything to its file."""
    file.write("")
    os.truncate(str(file), 1 << 40)

    with pytest.raises(OSError, match="longer than"):
        file.read()
    with pytest.raises(OSError, match="longer than"):
        file.append("a\n")


def test_lines_are_removed_from_a_file_that_is_too_long(file: File) -> None:
    """The container may have made the file so long; the rest of it is neither read nor moved."""
    file.write("keep\n1 a # t\n2 b # t\n")
    os.truncate(str(file), 1 << 40)

    file.remove_lines(" t", having="# ")

    assert os.stat(str(file)).st_size == 1 << 40
    with open(str(file), "rb") as opened:
        assert opened.read(21) == b"keep\n#      \n#      \n"


def test_file_is_not_made_too_long(file: File) -> None:
    file.write("x" * ((4 << 20) - 10))
    with pytest.raises(OSError, match="longer than"):
        file.append("0123456789\n")
    file.append("012345678\n"[1:])

    assert len(content(file)) <= 4 << 20


def test_same_place_by_two_paths_is_equal(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    first, second = File(str(tmp_path), "etc/hosts"), File.at(f"{tmp_path}/etc/hosts")

    assert first.place() == second.place(), "both files are missing, in one folder"
    first.write("a")
    assert first.place() == second.place() and first != second
    assert first.place() != File(str(tmp_path), "etc/other").place()
    with pytest.raises(FileNotFoundError):
        File("/none", "hosts").place()


def test_file_that_replaced_a_written_one_is_not_changed(file: File) -> None:
    """A file can be replaced by an exchange or by a link in the path."""
    file.write("a\n")
    stored = File(file.base, file.name, file.identity)
    os.rename(str(file), f"{file}.old")
    with pytest.raises(FileNotFoundError):
        stored.write("b\n")
    Path(str(file)).write_text("other\n")

    for each in (file, stored):
        for change in (each.pin, lambda each=each: each.append("c\n"), lambda each=each: each.write("d\n")):
            with pytest.raises(OSError, match="another file is there now"):
                change()
    assert content(file) == "other\n"


def test_no_part_of_the_path_may_be_a_link(file: File, tmp_path: Path) -> None:
    file.write("a\n")
    os.rename(tmp_path / "etc", tmp_path / "real")
    os.symlink("real", tmp_path / "etc")

    for change in (file.read, file.pin, lambda: file.write("b\n"), lambda: file.remove_lines("a")):
        with pytest.raises(OSError, match="is a link"):
            change()
    assert (tmp_path / "real" / "hosts").read_text() == "a\n"
    assert File.at(str(file)).read() == "a\n", "links are followed in a trusted path"


IN_OPEN, IN_NONBLOCK, RENAME_EXCHANGE = 0x20, 0x800, 2


def test_special_file_is_never_opened(file: File, tmp_path: Path) -> None:
    """Another process keeps exchanging the file with a FIFO; opening a device may have an effect."""
    libc = ctypes.CDLL(None, use_errno=True)
    file.write("")
    special = f"{tmp_path}/fifo"
    os.mkfifo(special)
    watch = libc.inotify_init1(IN_NONBLOCK)
    assert libc.inotify_add_watch(watch, os.fsencode(special), IN_OPEN) > 0
    exchanging = os.fork()
    if not exchanging:
        names = os.fsencode(str(file)), os.fsencode(special)
        for _ in range(1_000_000):  # ends by itself if the test is killed
            libc.renameat2(-100, names[0], -100, names[1], RENAME_EXCHANGE)
        os._exit(0)
    try:
        reasons: set[str] = set()
        for number in range(100_000):
            if number > 12_000 and reasons:  # without a reason, the other process has not run yet
                break
            try:
                File(file.base, file.name).append("a\n")
            except OSError as error:
                reasons.add(str(error.strerror))
    finally:
        os.kill(exchanging, 9)
        os.waitpid(exchanging, 0)

    with pytest.raises(BlockingIOError):
        os.read(watch, 4096)
    os.close(watch)
    assert reasons == {"it is not a regular file"}


def test_file_that_no_user_may_write_is_only_read(file: File) -> None:
    file.write("a\n")
    os.chmod(str(file), 0o444)

    assert file.read() == "a\n"
    with pytest.raises(PermissionError, match="its mode"):
        file.write("b\n")


def test_root_of_a_container_is_read_or_an_error(tmp_path: Path) -> None:
    """This process represents a container before pivot_root."""
    with pytest.raises(FileNotFoundError, match="not known"):
        ContainerEtc("c1", os.getpid(), Bundle({}, ""))
    with pytest.raises(OSError):
        ContainerEtc("c1", 1 << 22, Bundle({}, ""))

    (tmp_path / "rootfs" / "etc").mkdir(parents=True)
    etc = ContainerEtc("c1", os.getpid(), Bundle({"root": {"path": "rootfs"}}, f"{tmp_path}/config.json"))
    file = etc.file("hosts")
    assert str(file) == f"{tmp_path}/rootfs/etc/hosts" and etc.is_on_host(file) and not etc.is_begun
