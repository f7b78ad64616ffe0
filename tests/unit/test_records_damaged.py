# SPDX-License-Identifier: Apache-2.0
"""DamagedRecordError records, and records that cannot be read: what is still used, and what is reported."""

import json
import os
import socket
from pathlib import Path

import pytest

from cnihook.runtime import records
from cnihook.runtime.identity import ProcessIdentity
from cnihook.runtime.records import DamagedRecordError
from tests.unit import child
from tests.unit.test_records import CONFIG, LIBCNIS, RESULT, plant, record

BROKEN = {
    "empty": "",
    "truncated": LIBCNIS[:100],
    "no UTF-8": b"\xff\xfe{}",
    "zeros": b"\0" * 512,
    "a list": "[]",
    "null": "null",
    "another kind": LIBCNIS.replace("cniCacheV1", "cniCacheV2"),
    "no kind": LIBCNIS.replace('"kind"', '"kin"'),
    "no container": LIBCNIS.replace('"containerId"', '"id"'),
    "empty ifname": LIBCNIS.replace('"eth0"', '""'),
    "network is a number": LIBCNIS.replace('"networkName":"mynet"', '"networkName":7'),
    "config is a number": LIBCNIS.replace('"config":"', '"config":7,"c":"'),
    "config is not base64": LIBCNIS.replace('"config":"', '"config":"\u00fc'),
    "network is half a character": LIBCNIS.replace('"networkName":"mynet"', r'"networkName":"\ud800"'),
    "ifname has a NUL": LIBCNIS.replace('"eth0"', r'"eth0\u0000"'),
    "nested for ever": "[" * 100_000,
    "process without a number": LIBCNIS.replace('{"kind"', '{"cnihook":{"pid":"x"},"kind"'),
    "process is a list": LIBCNIS.replace('{"kind"', '{"cnihook":[],"kind"'),
    "network is a path": LIBCNIS.replace('"networkName":"mynet"', '"networkName":"../../mynet"'),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_damaged_record_is_reported_and_hides_no_other(state: Path, content: str | bytes) -> None:
    """A crash of the machine leaves such a file (an empty one), and it must not stop a DEL."""
    broken = plant(state, "mynet-c1-eth0", content)
    record("other", "c1", "eth1").write()

    with pytest.raises(DamagedRecordError):
        records.find("mynet", "c1", "eth0")
    damaged: list[DamagedRecordError] = []
    assert [one.network for one in records.of_container("c1", damaged=damaged)] == ["other"]
    assert [one.path for one in damaged] == [str(broken)]
    assert damaged[0].identities() == [("mynet", "c1", "eth0")]
    assert [one.network for one in records.all_records()] == ["other"]
    assert [one.path for one in records.damaged()] == [str(broken)]


def test_result_alone_is_not_a_record(state: Path) -> None:
    """libcni wrote such files before 0.8."""
    plant(state, "mynet-c1-eth0", json.dumps(RESULT))

    assert records.find("mynet", "c1", "eth0") is None
    assert (records.all_records(), records.damaged()) == ([], [])


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "dangling link", "link to itself", "socket"])
def test_special_file_is_not_opened(state: Path, kind: str) -> None:
    """Reading a FIFO would never end."""
    path = plant(state, "mynet-c1-eth0", "")
    path.unlink()
    (state / "elsewhere").write_text(LIBCNIS)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(str(path))
    else:
        target = {"link": state / "elsewhere", "dangling link": state / "nowhere", "link to itself": path}
        path.symlink_to(target[kind])
    record("other", "c1", "eth1").write()

    assert [one.network for one in records.of_container("c1")] == ["other"]
    (one,) = records.damaged()
    assert (one.path, one.record) == (str(path), None)
    if kind != "folder":
        record().write()
        assert records.find("mynet", "c1", "eth0")


def test_record_that_cannot_be_read_is_an_error(state: Path) -> None:
    """An error does not mean that the record is absent: the attachment would be lost."""
    code = """\
import os, resource
records.Record("mynet", "c1", "eth0", config=b"").write()
held = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1] + 1, held[-1] + 1))
for look in (
    lambda: records.read(f"{records.FOLDER}/mynet-c1-eth0"),
    lambda: records.find("mynet", "c1", "eth0"),
    lambda: records.of_container("c1"),
    lambda: records.all_records(),
    lambda: records.damaged(),
):
    try:
        print(look())
    except OSError as error:
        print(error.strerror)
"""
    assert child.finish(child.start(state, code)) == "Too many open files\n" * 5


def test_damaged_record_of_another_runtime_is_recognized(state: Path) -> None:
    """Only that runtime may release its attachment."""
    plant(state, "mynet-c1-eth0", LIBCNIS[:-20])
    boot = ProcessIdentity("boot", 1, 2, (3, 4))
    record("own", process=boot, result=RESULT).write()
    path = state / "results" / "own-c1-eth0"
    path.write_bytes(path.read_bytes()[:80])
    plant(state, "zeros-c1-eth0", b"\0" * 100)

    assert [one.is_foreign for one in records.damaged()] == [True, False, False]


def test_file_name_gives_all_identities_that_fit_it(state: Path) -> None:
    plant(state, "a-b-c-eth0", "")

    (one,) = records.damaged()
    assert set(one.identities()) == {("a", "b", "c-eth0"), ("a", "b-c", "eth0"), ("a-b", "c", "eth0")}
    assert records.identities_on_file() == set(one.identities())


@pytest.mark.parametrize(
    "changed",
    [
        '"netns":7,"n"',
        r'"netns":"a\u0000b","n"',
        '"result":[],"r"',
        '"capabilityArgs":"x","c"',
        '"cniArgs":7,"a"',
        '"cniArgs":[["a"],["b","c","d"]],"a"',
    ],
)
def test_other_fields_are_read_if_one_is_wrong(state: Path, changed: str) -> None:
    """An attachment can still be removed if its configuration and identity are known."""
    key = changed[1:].partition('"')[0]
    text = (
        LIBCNIS.replace(f'"{key}"', changed) if f'"{key}"' in LIBCNIS else LIBCNIS[:-1] + f",{changed}:1}}"
    )
    plant(state, "mynet-c1-eth0", text)

    record = records.find("mynet", "c1", "eth0")
    assert record and record.config == CONFIG
