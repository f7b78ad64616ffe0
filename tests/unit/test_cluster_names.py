# SPDX-License-Identifier: Apache-2.0
"""The names of containers across hosts: what a host writes into the store, and what it takes from there."""

import json
import threading
from ipaddress import ip_network
from pathlib import Path

import pytest

from cnihook.cluster import names
from cnihook.cluster.model import LONGEST, Settings
from cnihook.cluster.names import Names
from cnihook.cluster.store import Event, Keys, StoreUnavailableError, under
from cnihook.names import entries, other_hosts
from cnihook.names.entries import OTHERS, Entry
from cnihook.names.rootfs_file import File
from cnihook.runtime.records import Record
from tests.support.cluster.dict_store import Database, DictStore

KEYS = Keys("wide")
HOST, OTHER = "a" * 32, "b" * 32
SETTINGS = Settings(
    (ip_network("10.60.0.0/16"), ip_network("fd00:60::/56")), (24, 64), "vxlan", 1450, "e1", ""
)


class Host:
    """One host, whose agent has the lease `lease`; the test steps its thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = Database()
        self.store = DictStore(self.database)
        self.lease: int | None = self.store.grant(30)
        self.names = Names(
            self.store, KEYS, HOST, SETTINGS, lambda: self.lease, lambda *_problem: None, threading.Event()
        )

    def start(self, container_id: str, address: str, *aliases: str) -> File:
        file = File.at(str(self.folder / container_id))
        file.write("127.0.0.1\tlocalhost")
        Record("wide", container_id, "eth0", config=b"{}").write()
        Entry("wide", container_id, "eth0", [address], [container_id], list(aliases), file).write()
        return file

    def step(self) -> str:
        self.names.take({key: item.value for key, item in self.database.items.items()})
        return self.names.step()

    def written(self) -> dict[str, tuple[list[str], int]]:
        """Return the names of each container in the store, with their lease."""
        items = self.store.items(under(KEYS.names(HOST)))[0]
        return {item.key[-2:]: (json.loads(item.value)["names"], item.lease) for item in items}

    def write_other(self, container_id: str, address: str, *aliases: str) -> None:
        """Write names of another host."""
        value = json.dumps({"addresses": [address], "names": aliases}).encode()
        self.database.write(KEYS.names(OTHER, container_id), value)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(entries, "FOLDER", str(tmp_path / "names"))
    monkeypatch.setattr("cnihook.runtime.records.FOLDER", str(tmp_path / "results"))
    monkeypatch.setattr("cnihook.linux.flock.FOLDER", str(tmp_path / "run"))
    return Host(tmp_path)


def test_names_are_written_with_the_lease_of_the_agent(host: Host) -> None:
    assert host.names.step() == "" and host.written() == {}  # the store is not known yet
    host.start("c1", "10.60.0.2", "db", "db.example.test", "_srv")
    host.start("c2", "10.60.0.3", *(f"{number:063}" for number in range(64)))
    host.step()
    assert host.written()["c1"] == (["c1", "db", "_srv"], host.lease)  # a name with a dot stays on its host
    assert all(len(item.value) <= LONGEST for item in host.database.items.values())
    revision = host.database.revision
    host.step()
    assert host.database.revision == revision  # nothing has changed

    host.lease = 0
    host.start("c1", "10.60.0.2", "web")
    host.step()
    assert host.database.revision == revision
    host.lease = host.store.grant(30)
    host.step()
    assert host.written()["c1"] == (["c1", "web"], host.lease) and host.written()["c2"][1] == host.lease
    host.store.cut = True
    host.start("c3", "10.60.0.4")
    with pytest.raises(StoreUnavailableError):
        host.step()
    host.store.cut = False
    Record("wide", "c2", "eth0", config=b"{}").remove()
    host.step()
    assert host.written().keys() == {"c1", "c3"}

    # A fenced host takes back what it wrote, and nothing of a host with its machine ID.
    host.database.write(KEYS.names(HOST, "c9"), b'{"addresses": [], "names": []}')
    host.lease = None
    host.step()
    assert host.written().keys() == {"c9"}


def test_names_of_other_hosts_are_in_all_hosts_files(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    file = host.start("c1", "10.60.0.2", "db")
    host.write_other("far", "10.60.9.2", "far", "DB", "far2")
    host.write_other("wrong", "fd00:60::9%0 x\n10.60.9.9 y", "wrong")
    host.step()
    line = f"10.60.9.2\tfar far2\t# cnihook: {OTHERS} on wide\n"  # without the name that it has itself
    assert file.read() == f"127.0.0.1\tlocalhost\n{line}"
    second = host.start("c2", "10.60.0.3")
    host.step()
    host.write_other("farther", "10.60.9.3", "farther")
    host.step()
    assert (second.read() or "").count(OTHERS) == 2 and "DB" in (second.read() or "")
    host.names.take([Event(KEYS.names(OTHER, "farther"), None, 9)])
    host.names.step()
    assert "farther" not in (second.read() or "")

    monkeypatch.setattr(names, "MOST_LINES", 1)
    assert host.step() == "the containers of other hosts need 2 lines, and 1 are used"
    assert (second.read() or "").count(OTHERS) == 1
    other_hosts.remove("wide")
    assert file.read() == "127.0.0.1\tlocalhost\n" and second.read() == "127.0.0.1\tlocalhost\n"
    assert not (host.folder / "names" / "wide" / OTHERS).exists()
