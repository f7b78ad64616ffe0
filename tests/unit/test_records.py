# SPDX-License-Identifier: Apache-2.0
"""runtime.records: libcni's own files, read and written whole or not at all."""

import base64
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnihook.runtime import attachment, records
from cnihook.runtime.identity import ProcessIdentity
from cnihook.runtime.records import Record
from cnihook.types.errors import CniError
from tests.support.plugins.cni import CHECKOUT
from tests.unit import child

CONFIG = b'{"cniVersion":"1.0.0","name":"mynet","plugins":[{"type":"bridge"}]}\n'
RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3/24"}]}

# As libcni 1.1 wrote it, one line.
LIBCNIS = (
    '{"kind":"cniCacheV1","containerId":"c1","config":"CONFIG","ifName":"eth0","networkName":"mynet",'
    '"netns":"/run/netns/c1","cniArgs":[["IgnoreUnknown","1"],["K8S_POD_NAME","a=b"]],'
    '"capabilityArgs":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]},'
    '"result":{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.3/24"}]}}'
).replace("CONFIG", base64.b64encode(CONFIG).decode())


def record(network: str = "mynet", container_id: str = "c1", ifname: str = "eth0", **fields: Any) -> Record:
    return Record(network, container_id, ifname, config=CONFIG, **fields)


def plant(state: Path, name: str, content: str | bytes) -> Path:
    """Write a file into the folder of the records, and return its path."""
    path = state / "results" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def names(state: Path) -> list[str]:
    return sorted(os.listdir(state / "results"))


def test_written_as_libcni_writes_it(state: Path) -> None:
    record(
        netns="/run/netns/c1",
        cni_args={"IgnoreUnknown": "1", "K8S_POD_NAME": "a=b"},
        capability_args={"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]},
        result=RESULT,
    ).write()

    assert names(state) == ["mynet-c1-eth0"]
    assert json.loads((state / "results" / "mynet-c1-eth0").read_text()) == json.loads(LIBCNIS)


SANDBOX = {"interfaces": [{"name": "br0"}, {"name": "eth0", "sandbox": "/run/netns/c1"}]}


@pytest.mark.parametrize(
    ("result", "netns"),
    [
        (SANDBOX, "/run/netns/c1"),
        ({"interfaces": [{"name": "eth1", "sandbox": "/run/netns/c1"}]}, ""),
        ({"interfaces": [7, {"name": "eth0", "sandbox": 7}]}, ""),
        ({"interfaces": {}}, ""),
        ({"cniVersion": "0.2.0", "ip4": {"ip": "10.1.2.3/24"}}, ""),
    ],
)
def test_namespace_is_that_of_the_result_in_a_record_of_libcni_before_1_2(
    state: Path, result: dict[str, Any], netns: str
) -> None:
    """Such a record has no key for it.  GC must not take a running container for one that has ended."""
    fields = {key: value for key, value in json.loads(LIBCNIS).items() if key != "netns"}
    plant(state, "mynet-c1-eth0", json.dumps(fields | {"result": result}))

    record = records.find("mynet", "c1", "eth0")
    assert record and record.netns == netns
    assert attachment.is_gone(record) is bool(netns), "there is no such file"


def test_empty_fields_are_omitted(state: Path) -> None:
    record().write()

    assert json.loads((state / "results" / "mynet-c1-eth0").read_text()).keys() == {
        "kind", "containerId", "config", "ifName", "networkName"
    }  # fmt: skip


def test_libcnis_record_is_read(state: Path) -> None:
    plant(state, "mynet-c1-eth0", LIBCNIS)

    record = records.find("mynet", "c1", "eth0")
    assert record
    assert (record.config, record.netns, record.result) == (CONFIG, "/run/netns/c1", RESULT)
    assert record.cni_args == {"IgnoreUnknown": "1", "K8S_POD_NAME": "a=b"}
    assert record.capability_args["portMappings"][0]["hostPort"] == 8080
    assert (record.process, record.sequence) == (None, 0), "no process is on record"
    assert [one.ifname for one in records.of_container("c1")] == ["eth0"]


JSON = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3)
NUMBERS = st.integers(0, 2**40)
PROCESSES = st.none() | st.builds(
    ProcessIdentity, st.text(max_size=5), NUMBERS, NUMBERS, st.tuples(NUMBERS, NUMBERS), NUMBERS
)
PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=10)


@settings(max_examples=40)  # each of them waits for the disk
@given(st.binary(max_size=50), PATHS, st.none() | JSON, JSON, PROCESSES, st.integers(0, 9))
def test_written_record_is_read_back(
    config: bytes, netns: str, result: Any, capabilities: Any, process: Any, sequence: int
) -> None:
    Record(
        "mynet", "c1", "eth0", config=config, netns=netns, result=result, capability_args=capabilities,
        process=process, sequence=sequence,
    ).write()  # fmt: skip

    record = records.find("mynet", "c1", "eth0")
    assert record
    assert (record.config, record.netns, record.result) == (config, netns, result)
    assert (record.capability_args, record.cni_args) == (capabilities, {})
    if process is None:
        assert (record.process, record.sequence) == (None, 0)
    else:
        assert record.process and record.process.to_json() == process.to_json()
        assert record.sequence == sequence


def test_only_root_can_read(state: Path) -> None:
    """CNI_ARGS and configurations may contain secrets."""
    umask = os.umask(0)
    try:
        record().write()
    finally:
        os.umask(umask)

    assert (state / "results").stat().st_mode & 0o777 == 0o700
    assert (state / "results" / "mynet-c1-eth0").stat().st_mode & 0o777 == 0o600


def test_unknown_keys_are_ignored(state: Path) -> None:
    plant(state, "mynet-c1-eth0", LIBCNIS.replace('{"kind"', '{"future":{"a":[1]},"kind"'))

    assert records.find("mynet", "c1", "eth0")


def test_missing_record_and_missing_folder_are_accepted() -> None:
    assert records.find("mynet", "c1", "eth0") is None
    assert records.of_container("c1") == records.all_records() == []
    assert records.damaged() == []
    record().remove()


def test_records_with_the_same_file_name_are_distinguished() -> None:
    """Network a-b with container c, and network a with container b-c, share one file name."""
    record("a-b", "c").write()

    assert records.find("a-b", "c", "eth0")
    assert records.find("a", "b-c", "eth0") is None
    assert records.of_container("b-c") == []
    assert [one.network for one in records.of_container("c")] == ["a-b"]


def test_record_of_another_attachment_is_not_replaced() -> None:
    """The first attachment could never be removed without its record."""
    record("a-b", "c").write()

    with pytest.raises(CniError, match="a-b"):
        record("a", "b-c").write()
    assert records.find("a-b", "c", "eth0")


def test_only_the_records_of_the_container_are_listed() -> None:
    for network, container_id, ifname in [
        ("n", "c", "eth0"), ("n", "c1", "eth0"), ("n", "xc", "eth0"), ("c", "x", "eth0"), ("n", "x", "c"),
        ("n-c-n", "x", "eth0"),
    ]:  # fmt: skip
        record(network, container_id, ifname).write()

    assert [(one.network, one.container_id, one.ifname) for one in records.of_container("c")] == [
        ("n", "c", "eth0")
    ]


def test_records_come_in_the_order_of_attachment() -> None:
    for sequence, network in enumerate(["z", "m", "a"]):
        record(
            network,
            ifname=f"eth{sequence}",
            process=ProcessIdentity("boot", 1, 2, (3, 4)),
            sequence=sequence,
        ).write()

    assert [one.network for one in records.of_container("c1")] == ["z", "m", "a"]


def test_copy_of_a_record_is_not_a_second_attachment(state: Path) -> None:
    plant(state, "mynet-c1-eth0.bak", LIBCNIS)
    plant(state, "backup-c1-eth0", LIBCNIS)
    plant(state, "mynet-c1-eth0", LIBCNIS)

    assert len(records.of_container("c1")) == len(records.all_records()) == 1


def test_record_cannot_name_a_file_in_another_folder(state: Path) -> None:
    """The name in a damaged record becomes the path that is removed."""
    plant(state, "mynet-c1-eth0", LIBCNIS.replace('"networkName":"mynet"', '"networkName":"../../mynet"'))

    assert records.all_records() == records.of_container("c1") == []
    assert [one.identities() for one in records.damaged()] == [[("mynet", "c1", "eth0")]]


def test_record_is_replaced_in_one_step(state: Path) -> None:
    """A process that reads during the write gets the old or the new record."""
    record().write()
    before = (state / "results" / "mynet-c1-eth0").stat().st_ino
    record(result=RESULT).write()

    assert (state / "results" / "mynet-c1-eth0").stat().st_ino != before
    assert names(state) == ["mynet-c1-eth0"]


def test_write_that_fails_leaves_the_old_record(state: Path) -> None:
    record(result=RESULT).write()

    with pytest.raises(TypeError):
        record(result={"a": b"no JSON"}).write()

    assert names(state) == ["mynet-c1-eth0"]
    assert (found := records.find("mynet", "c1", "eth0")) and found.result == RESULT


def test_full_disk_leaves_the_old_record(state: Path) -> None:
    """The limit on a file's size has the effect of a full disk: the kernel writes a part, then fails."""
    record(result=RESULT).write()
    code = """\
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    records.Record("mynet", "c1", "eth0", config=b"x" * 20000).write()
except OSError as error:
    print("refused")
"""
    assert child.finish(child.start(state, code)) == "refused\n"

    assert names(state) == ["mynet-c1-eth0"]
    assert (found := records.find("mynet", "c1", "eth0")) and found.result == RESULT


def test_killed_writer_leaves_readable_records(state: Path) -> None:
    code = """\
print("on", flush=True)
while True:
    records.Record("mynet", "c1", "eth0", config=b"x" * 100_000).write()
"""
    record(result=RESULT).write()
    writer = child.start(state, code)
    child.line(writer)
    for _ in range(50):
        assert records.find("mynet", "c1", "eth0")
    writer.send_signal(signal.SIGKILL)
    writer.communicate()

    assert records.find("mynet", "c1", "eth0")
    assert len(records.all_records()) == 1
    assert records.damaged() == []


def test_long_name_is_refused_before_anything_is_written(state: Path) -> None:
    with pytest.raises(CniError, match="too long"):
        record("n" * 200, "c" * 200).write()

    assert not (state / "results").exists() or names(state) == []


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_entry_with_the_name_of_a_partial_file_is_removed(state: Path, kind: str) -> None:
    path = Path(records.FOLDER) / ".c1.new"
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        path.mkdir()
        (path / "file").touch()
    elif kind == "link":
        path.symlink_to("/nowhere")
    else:
        path.touch()
    assert records.partial() == ["c1"]

    records.discard_partial("c1")
    assert records.partial() == [] and not os.path.lexists(path)


def test_only_the_engine_writes_and_removes_records() -> None:
    """Any other module would need its own rule for when a record is kept."""
    writers = {
        str(path.relative_to(CHECKOUT / "cnihook"))
        for path in (CHECKOUT / "cnihook").rglob("*.py")
        if re.search(r"\brecord\.(write|remove)\(", path.read_text())
    }
    life = {"addition", "attachment", "ending", "engine", "update"}
    assert writers == {f"runtime/{module}.py" for module in life}
