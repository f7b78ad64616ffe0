# SPDX-License-Identifier: Apache-2.0
"""The files of a network on this host, which can be damaged, and the lease that shows its agent."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cnihook.cluster import local, state
from cnihook.cluster.claims import Own
from cnihook.cluster.etcd_http import Access
from cnihook.cluster.liveness import PATIENCE, Liveness, SecondHostError
from cnihook.cluster.model import Block, Member, Settings
from cnihook.cluster.peers import Peers
from cnihook.cluster.state import Membership, State, StateError
from cnihook.cluster.store import Keys, StoreUnavailableError
from cnihook.ipam import block
from cnihook.linux import flock
from tests.support.cluster.dict_store import Database, DictStore

KEYS = Keys("wide")
CONFIG = {"subnets": ["10.60.0.0/16"], "blocks": [24], "transport": "none", "mtu": 1450, "epoch": "e1"}
SETTINGS = Settings.from_json(json.dumps(CONFIG).encode())
MEMBER = Member("a" * 32, "h1", "c1", "192.0.2.1")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    monkeypatch.setattr(block, "FOLDER", str(tmp_path / "cluster"))
    monkeypatch.setattr(state, "RUN", str(tmp_path / "run"))
    return State("wide")


def test_files_are_read_as_they_were_written(files: State) -> None:
    with pytest.raises(StateError, match="has not joined the network wide"):
        files.membership()
    assert files.own() == Own() and files.peers() is None and files.status() == {}
    access = Access(("https://192.0.2.9:2379",), ca="/a", cert="/c", key="/k", user_file="/u")
    membership = Membership(access, "a" * 32, "c1", "192.0.2.1")
    files.write_membership(membership)
    files.write_own(Own("e1", "10.60.7.0-24"), SETTINGS)
    peers = Peers(SETTINGS, {"10.60.7.0-24": Block(7, MEMBER)}, 9, frozenset({"10.60.7.0-24"}))
    files.write_peers(peers)
    files.write_status({"connected": True})
    assert files.membership() == membership and files.own() == Own("e1", "10.60.7.0-24")
    assert files.peers() == peers and files.status() == {"connected": True} and state.networks() == ["wide"]
    assert block.subnets("wide", starts=True) == ["10.60.7.0/24"]
    files.fence("another host has it")
    assert files.own() == Own("e1", "10.60.7.0-24", fenced="another host has it")
    files.remove()
    assert state.networks() == [] and not Path(files.folder).exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"blocks": 7}', '{"config": {}, "blocks": {"x": 1}}'])
@pytest.mark.parametrize("name", ["member.json", "block.json", "snapshot.json"])
def test_damaged_file_is_named_on_one_line(files: State, name: str, text: str) -> None:
    Path(files.folder).mkdir(parents=True)
    Path(files.folder, name).write_text(text)
    read: Any = {"member.json": files.membership, "block.json": files.own, "snapshot.json": files.peers}[
        name
    ]
    if name == "block.json" and "blocks" in text:
        assert read() == Own()  # host-local refuses it
        return
    with pytest.raises(StateError, match=f"{name}: ") as error:
        read()
    assert str(error.value).isprintable()


class Host:
    """A host's thread, which the test steps."""

    def __init__(self, database: Database, address: str) -> None:
        self.address = address
        self.store = DictStore(database)
        self.live = Liveness(
            self.store, KEYS, "a" * 32, lambda: self.address, "0", lambda _message: None, threading.Event()
        )

    def shown(self) -> str:
        item = self.store.get(KEYS.live("a" * 32))
        return json.loads(item.value)["address"] if item else ""


def test_agent_keeps_its_key_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database()
    first = Host(database, "192.0.2.1")
    first.live.step()
    assert first.shown() == "192.0.2.1"
    again = Host(database, "192.0.2.1")  # the agent was killed, and has started again
    again.live.step()
    database.leases.clear()  # the store has lost its leases
    database.write(KEYS.live("a" * 32), None)
    again.live.step()
    assert again.shown() == "192.0.2.1"
    again.address = "192.0.2.7"
    again.live.step()
    assert again.shown() == "192.0.2.7"
    again.live.end()
    assert again.shown() == ""


def test_second_host_with_the_same_machine_id_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of an earlier address of this host ends with its lease; that of another host does not."""
    now = 1000.0
    monkeypatch.setattr("cnihook.cluster.liveness.time", SimpleNamespace(monotonic=lambda: now))
    database = Database()
    first, copy = Host(database, "192.0.2.1"), Host(database, "192.0.2.2")
    first.live.step()
    copy.live.step()
    now += PATIENCE - 1
    copy.live.step()
    now += 2
    with pytest.raises(SecondHostError, match=r"at 192\.0\.2\.1, has the machine ID of this one"):
        copy.live.step()
    first.live.step()
    assert copy.shown() == "192.0.2.1"
    first.store.revoke(database.granted)
    copy.live.step()
    assert copy.shown() == "192.0.2.2"
    copy.store.cut = True
    with pytest.raises(StoreUnavailableError):
        copy.live.step()


def test_other_hosts_and_figures_need_no_store(files: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the agent does not run, what it wrote last is known, but not which hosts are live."""
    hosts = {
        SETTINGS.key(number): Block(number, Member(f"{number:032x}", f"h{number}", "c", f"192.0.2.{number}"))
        for number in (1, 2, 3, 4)
    }
    parts = list(hosts)
    files.write_own(Own("e1", parts[0]), SETTINGS)
    files.write_peers(Peers(SETTINGS, hosts, 9, frozenset({parts[3]})))
    written = {"connected": True, "since": 7, "revision": 9, "blocks": 4, "programmed": 8, "problems": {}}
    files.write_status(written | {"unconfirmed": parts[3:], "absent": parts[2:]})
    assert [(one.name, one.state) for one in local.others("wide")] == [
        ("h4", "unconfirmed"), ("h2", "unknown"), ("h3", "unknown")
    ]  # fmt: skip
    idle = {"agent_running": 0, "connected": 0, "revision": 9, "hosts": 4, "hosts_unconfirmed": 1}
    assert local.figures("wide") == idle | {"kernel_timestamp_seconds": 8, "fenced": 0}

    monkeypatch.setattr(flock, "is_held", lambda name: name == "cluster-wide")
    assert [(one.name, one.state) for one in local.others("wide")] == [
        ("h3", "not-live"), ("h4", "unconfirmed"), ("h2", "live")
    ]  # fmt: skip
    files.fence("another host has it")
    figures = local.figures("wide")
    assert (figures["connected"], figures["hosts_live"], figures["fenced"]) == (1, 2, 1)
    assert figures["connection_timestamp_seconds"] == 7 and figures["problems"] == 0

    # Values of any type are read without an error.
    values: list[object] = ["x", None, -1, [], {}, True]
    for value in values:
        files.write_status(dict.fromkeys([*written, "unconfirmed", "absent"], value))
        assert local.figures("wide")["agent_running"] == 1
    Path(files.folder, block.FILE).write_text("{")
    assert "fenced" not in local.figures("wide")


def test_commands_import_nothing_of_it_without_such_networks() -> None:
    code = "import sys, cnihook.cli.metrics, cnihook.cli.graph, cnihook.cli.networks.ls\n"
    code += "print([name for name in sys.modules if name.startswith('cnihook.cluster')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
