# SPDX-License-Identifier: Apache-2.0
"""runtime.networks: which networks a folder of configurations has, with any other files in it."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cnihook.runtime import networks
from cnihook.types.errors import INVALID_CONFIG, CniError
from tests.unit import child
from tests.unit.test_networks import LOOPBACK, MYNET, conflist, single

GOOD = json.dumps(single(name="good")).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder whose last file is the network `good`; no other file may hide it."""
    net_d = tmp_path / "net.d"
    net_d.mkdir()
    (net_d / "99-good.conf").write_bytes(GOOD)
    return net_d


def names(folder: Path) -> list[str]:
    found, problems = networks.load_folder(str(folder))
    assert problems == []
    return [network.name for network in found]


def problem(folder: Path) -> str:
    """Return the only problem of the folder, after checking that `good` is still loaded."""
    found, problems = networks.load_folder(str(folder))
    assert [network.name for network in found] == ["good"]
    (error,) = problems
    assert error.code == INVALID_CONFIG
    assert len(str(error).splitlines()) == 1
    return str(error)


def test_files_with_the_three_endings_are_read_in_order(folder: Path) -> None:
    (folder / "10-mynet.conf").write_bytes(MYNET)
    (folder / "99-loopback.conf").write_bytes(LOOPBACK)
    (folder / "05-z.conflist").write_text(json.dumps(conflist(name="z")))
    (folder / "50-m.json").write_text(json.dumps(single(name="m")))
    (folder / "B.conf").write_text(json.dumps(single(name="b")))

    assert names(folder) == ["z", "mynet", "m", "good", "loopback", "b"]


def test_lists_and_single_plugins_are_recognized_by_content(folder: Path) -> None:
    """A list with the ending .conf is the most common mistake."""
    for number, (value, ending) in enumerate(
        (value, ending) for value in (conflist(), single()) for ending in ("conf", "conflist", "json")
    ):
        (folder / f"{number}.{ending}").write_text(json.dumps({**value, "name": f"n{number}"}))

    found, problems = networks.load_folder(str(folder))

    assert problems == []
    assert [network.name for network in found] == ["n0", "n1", "n2", "n3", "n4", "n5", "good"]
    assert all([plugin["type"] for plugin in network.plugins] == ["bridge"] for network in found)


@pytest.mark.parametrize(
    "name",
    ["a.CONF", "a.conf.bak", "a.conf~", "a.yaml", "conf", "aconf", ".a.conf.swp", "a.conflist.rpmsave"],
)
def test_other_files_are_ignored(folder: Path, name: str) -> None:
    (folder / name).write_text("broken")

    assert names(folder) == ["good"]


def test_missing_folder_has_no_networks(tmp_path: Path) -> None:
    assert networks.load_folder(str(tmp_path / "none")) == ([], [])
    (tmp_path / "file").touch()
    assert networks.load_folder(str(tmp_path / "file")) == ([], [])


def test_empty_folder_has_no_networks(tmp_path: Path) -> None:
    assert networks.load_folder(str(tmp_path)) == ([], [])


def fifo_with_a_writer(path: Path) -> int:
    os.mkfifo(path)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK)


MAKE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.touch(),
    "truncated": lambda path: path.write_bytes(MYNET[:-9]),
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe"),
    "huge": lambda path: path.write_bytes(b" " * (8 << 20) + b"{"),
    "nested": lambda path: path.write_bytes(b'{"a":' * 200_000),
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path),
    "FIFO": lambda path: os.mkfifo(path),
    "socket": lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
    "device": lambda path: path.symlink_to("/dev/null"),
    "path traversal": lambda path: path.write_text(json.dumps(single(name="../../etc/x"))),
    "no name": lambda path: path.write_text(json.dumps({"plugins": [{"type": "bridge"}]})),
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE.keys())
def test_file_that_is_not_a_configuration_is_named_and_hides_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Any]
) -> None:
    """Nor must it block: every container's start reads this folder."""
    monkeypatch.chdir(folder)  # the path of a socket has at most 107 bytes
    make(Path("00-bad.conf"))

    assert problem(folder).startswith(f"{folder}/00-bad.conf: ")


def test_fifo_with_a_writer_is_named_and_hides_no_other(folder: Path) -> None:
    writer = fifo_with_a_writer(folder / "00-bad.conf")
    try:
        assert problem(folder).startswith(f"{folder}/00-bad.conf: ")
    finally:
        os.close(writer)


def test_folder_with_the_name_of_a_file_is_ignored(folder: Path) -> None:
    (folder / "00-bad.conf").mkdir()

    assert names(folder) == ["good"]


def unprivileged(folder: Path) -> list[str]:
    """Return the names and the problems that a user without root's access gets."""
    folder.parent.chmod(0o755)
    code = """\
from cnihook.runtime import networks
networks.parse(networks.BUILT_IN, "")  # so that all is loaded while it can be read
os.chdir(sys.argv[1])  # the folders above are pytest's, which keeps them to itself
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
found, problems = networks.load_folder(sys.argv[2])
for one in found:
    print(one.name)
for error in problems:
    print(error)
"""
    return child.finish(child.start(folder.parent, code, folder.name)).splitlines()


def test_unreadable_file_is_named_and_hides_no_other(folder: Path) -> None:
    folder.chmod(0o755)
    (folder / "00-bad.conf").write_bytes(MYNET)
    (folder / "00-bad.conf").chmod(0)

    assert unprivileged(folder) == ["good", "net.d/00-bad.conf: Permission denied"]


def test_unreadable_folder_is_named(folder: Path) -> None:
    folder.chmod(0)

    assert unprivileged(folder) == ["net.d: Permission denied"]


def test_first_of_two_networks_with_the_same_name_is_used(folder: Path) -> None:
    (folder / "98-other.conf").write_text(json.dumps(single(name="good", type="ptp")))

    found, problems = networks.load_folder(str(folder))

    assert [plugin["type"] for network in found for plugin in network.plugins] == ["ptp"]
    (error,) = problems
    assert error.msg.startswith(f"{folder}/99-good.conf: ")
    assert "98-other.conf" in error.msg and "good" in error.msg


def test_two_loopback_files_without_a_name_have_the_same_name(folder: Path) -> None:
    (folder / "10-loopback.conf").write_bytes(LOOPBACK)
    (folder / "20-loopback.conf").write_bytes(LOOPBACK)

    found, problems = networks.load_folder(str(folder))

    assert [network.name for network in found] == ["loopback", "good"]
    assert [str(error).startswith(f"{folder}/20-loopback.conf: ") for error in problems] == [True]


def test_all_malformed_files_are_named(folder: Path) -> None:
    for name in ("a.conf", "b.conflist", "c.json"):
        (folder / name).write_text("{")

    found, problems = networks.load_folder(str(folder))

    assert [network.name for network in found] == ["good"]
    assert [str(error).partition(": ")[0] for error in problems] == [
        f"{folder}/{name}" for name in ("a.conf", "b.conflist", "c.json")
    ]


def test_file_name_may_be_other_than_utf8(folder: Path) -> None:
    (folder / os.fsdecode(b"00-\xff.conf")).write_text("{")

    assert problem(folder).startswith(f"{folder}/00-")


# Plugins that are not inlined


def beside(folder: Path, name: str, content: bytes = b'{"type":"a"}') -> Path:
    (folder / "00-bad.conflist").write_text(json.dumps(conflist(name="bad")))
    path = folder / "bad" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def test_plugins_beside_a_list_belong_to_that_list_only(folder: Path) -> None:
    beside(folder, "a.conf")

    found, problems = networks.load_folder(str(folder))

    assert problems == []
    assert {network.name: len(network.plugins) for network in found} == {"bad": 2, "good": 1}


def test_malformed_plugin_beside_a_list_hides_no_other(folder: Path) -> None:
    path = beside(folder, "a.conf", b"{")

    assert problem(folder).startswith(f"{path}: ")


def test_folder_with_the_name_of_a_plugin_file_is_named(folder: Path) -> None:
    path = beside(folder, "b.conf").with_name("a.conf")
    path.mkdir()

    assert problem(folder).startswith(f"{path}: ")


def test_file_with_the_name_of_the_plugin_folder_is_ignored(folder: Path) -> None:
    (folder / "good").touch()
    (folder / "99-good.conf").write_text(json.dumps(conflist(name="good")))

    assert names(folder) == ["good"]


def test_unreadable_plugin_folder_hides_no_other(folder: Path) -> None:
    (folder / "00-bad.conflist").write_text(json.dumps(conflist(name="bad")))
    (folder / "bad").symlink_to("bad")

    assert f"{folder}/bad" in problem(folder)


def test_value_that_cannot_be_written_hides_no_other(folder: Path) -> None:
    beside(folder, "a.conf", b'{"type":"a","x":1e999}')

    assert str(folder) in problem(folder)


def test_file_of_any_size_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "10-huge.conflist"
    with path.open("wb") as file:
        file.truncate(1 << 36)  # a hole

    with pytest.raises(CniError, match="10-huge.conflist: is longer than 16 MiB"):
        networks.read_file(str(path))
