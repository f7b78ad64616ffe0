# SPDX-License-Identifier: Apache-2.0
"""The Nodes of Kubernetes as a cluster's store, by HTTP from a server that stands for the API server."""

import threading
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from cnihook.cluster import claims, kubernetes_api
from cnihook.cluster.claims import Own
from cnihook.cluster.kubernetes_api import Api
from cnihook.cluster.model import Member, Settings
from cnihook.cluster.nodes import NodesStore
from cnihook.cluster.store import CompactedError, Event, Keys, StoreError, StoreUnavailableError
from cnihook.cluster.view import View
from tests.support.cluster.api_server import ApiServer, node
from tests.support.wait import wait_for

KEYS = Keys("pods")
ONE = f"{1:032x}"
SETTINGS = Settings((ip_network("10.244.0.0/16"),), (24,), "vxlan", 1450, "0", "")


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as api:
        for number in (1, 2, 3):
            api.put(node(number, f"10.244.{number}.0/24"))
        yield api


@pytest.fixture
def account(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("first\n")
    return tmp_path


@pytest.fixture
def store(server: ApiServer, account: Path) -> NodesStore:
    return nodes_store(server, account)


def nodes_store(server: ApiServer, account: Path, settings: Settings = SETTINGS) -> NodesStore:
    return NodesStore(Api(server.url, str(account)), "pods", settings, "n1", ONE)


def blocks(store: NodesStore) -> dict[str, Member]:
    items, _revision = store.items(KEYS.watched)
    return {
        item.key.removeprefix(KEYS.block("")): Member.from_json(item.value)
        for item in items
        if item.key != KEYS.config
    }


class Watch:
    """A watch in a thread: the events that came, and how it ended."""

    def __init__(self, server: ApiServer, store: NodesStore, revision: int) -> None:
        self.stop = threading.Event()
        self.events: list[Event] = []
        self.error: StoreError | None = None
        self._came = threading.Condition()
        before = len(server.watches)
        self._thread = threading.Thread(target=self._run, args=(store, revision))
        self._thread.start()
        server.wait_for_watches(before + 1)

    def _run(self, store: NodesStore, revision: int) -> None:
        try:
            for events in store.watch(KEYS.watched, revision, self.stop):
                with self._came:
                    self.events += events
                    self._came.notify()
        except StoreError as error:
            self.error = error

    def take(self, count: int = 1) -> list[tuple[str, Member | None]]:
        """Return the next events: the last part of each key, and its host."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.events) >= count, 30)
            events, self.events = self.events, []
        return [
            (event.key.rpartition("/")[2], Member.from_json(event.value) if event.value else None)
            for event in events
        ]

    def end(self, *, by_stop: bool = True) -> StoreError | None:
        if by_stop:
            self.stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.error


def test_nodes_are_listed_in_pages(
    server: ApiServer, store: NodesStore, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nodes without a range, or with one of another network, have no block."""
    monkeypatch.setattr(kubernetes_api, "_PAGE", 2)
    server.put(node(4))
    server.put(node(5, "10.99.0.0/24"))

    assert {part: member.name for part, member in blocks(store).items()} == {
        "10.244.1.0-24": "n1", "10.244.2.0-24": "n2", "10.244.3.0-24": "n3",
    }  # fmt: skip
    assert server.lists == 3
    member = blocks(store)["10.244.2.0-24"]
    assert (member.host, member.address, member.mac) == (f"{2:032x}", "172.16.0.2", "")
    assert store.items(KEYS.watched)[1] == server.revision
    assert capfd.readouterr().err.count("node n5: ") == 1, "reported once"
    config = store.get(KEYS.config)
    assert config and config.value == SETTINGS.to_json()


def test_ranges_of_both_versions_must_be_one_block(server: ApiServer, account: Path) -> None:
    both = Settings((ip_network("10.244.0.0/16"), ip_network("fd00::/48")), (24, 64), "vxlan", 1450, "0", "")
    server.put(node(2, "fd00:0:0:2::/64", "10.244.2.0/24"))
    server.put(node(3, "10.244.3.0/24", "fd00:0:0:4::/64"))

    assert list(blocks(nodes_store(server, account, both))) == ["10.244.2.0-24"]


def test_changes_of_a_block_are_events_and_others_are_not(server: ApiServer, store: NodesStore) -> None:
    _items, revision = store.items(KEYS.watched)
    watch = Watch(server, store, revision)

    heartbeat = server.nodes["n2"]
    heartbeat["status"]["conditions"] = [{"type": "Ready", "lastHeartbeatTime": "now"}]
    server.put(heartbeat)
    server.put(node(4, "10.244.4.0/24"))
    ((part, member),) = watch.take()
    assert part == "10.244.4.0-24" and member and member.address == "172.16.0.4"
    server.put(node(9, name="n4"))  # its range is gone
    assert watch.take() == [("10.244.4.0-24", None)]
    server.delete("n3")
    assert watch.take() == [("10.244.3.0-24", None)]
    # The server ends each watch after some time; the next one begins where the last one ended.
    server.end_watches()
    server.wait_for_watches(2)
    server.put(node(5, "10.244.5.0/24"))
    assert [part for part, _member in watch.take()] == ["10.244.5.0-24"]
    assert watch.end() is None


def test_cut_watch_resumes_at_the_last_bookmark(server: ApiServer, store: NodesStore) -> None:
    """A revision without a bookmark may be forgotten long before the next change of a node."""
    _items, revision = store.items(KEYS.watched)
    watch = Watch(server, store, revision)
    server.put(node(4, "10.244.4.0/24"))
    watch.take()
    last = server.revision
    server.bookmark()
    bookmark = server.revision
    wait_for(lambda: store.items(KEYS.quarantined)[1] == bookmark, "the bookmark")

    server.cut()
    server.wait_for_watches(2)
    assert server.watches == [revision, bookmark]
    server.delete("n4")
    assert watch.take() == [("10.244.4.0-24", None)]
    assert watch.end() is None

    # The caller knows only the revision of the last event.
    last = server.revision
    server.bookmark()
    watch = Watch(server, store, last)
    wait_for(lambda: store.items(KEYS.quarantined)[1] == server.revision, "the second bookmark")
    watch.end()
    watch = Watch(server, store, last)
    assert watch.end() is None
    assert server.watches[2:] == [last, server.revision]


def test_forgotten_revision_requires_another_list(server: ApiServer, store: NodesStore) -> None:
    _items, revision = store.items(KEYS.watched)
    watch = Watch(server, store, revision)
    server.expire()
    assert isinstance(watch.end(by_stop=False), CompactedError)

    with pytest.raises(CompactedError, match="too old resource version"):
        list(store.watch(KEYS.watched, revision, threading.Event()))

    assert len(blocks(store)) == 3
    watch = Watch(server, store, store.items(KEYS.watched)[1])
    assert watch.end() is None


def test_token_is_read_again_after_its_rotation(server: ApiServer, store: NodesStore, account: Path) -> None:
    assert len(blocks(store)) == 3
    server.tokens = {"second"}
    with pytest.raises(StoreUnavailableError, match="Unauthorized"):
        store.items(KEYS.watched)

    (account / "token").write_text("second")

    assert len(blocks(store)) == 3
    watch = Watch(server, store, store.items(KEYS.watched)[1])
    assert watch.end() is None


def test_server_that_is_away_is_unavailable(account: Path) -> None:
    with ApiServer() as server:
        store = nodes_store(server, account)
        assert blocks(store) == {}

    with pytest.raises(StoreUnavailableError, match="refused"):
        store.items(KEYS.watched)
    with pytest.raises(StoreUnavailableError):
        list(store.watch(KEYS.watched, 100, threading.Event()))


def test_agent_has_the_block_of_its_node_and_writes_its_annotation(
    server: ApiServer, store: NodesStore
) -> None:
    """Other annotations stay.  After that, the others see the MAC address."""
    member, key = store.own()
    assert (member.host, member.address, key) == (ONE, "172.16.0.1", "10.244.1.0-24")
    member = Member(**{**vars(member), "mac": "02:00:00:00:00:01"})

    def settle(own: Own) -> Own:
        items, revision = store.items(KEYS.watched)
        return claims.settle(store, KEYS, View(KEYS, items, revision), own, member)

    own = settle(Own())
    assert (own.key, own.fenced) == ("10.244.1.0-24", "")
    server.refuse = 409  # the node has changed in between
    assert (
        settle(own).fenced == "" and "cnihook.io/pods" not in server.nodes["n1"]["metadata"]["annotations"]
    )
    server.refuse = 403
    with pytest.raises(StoreError, match="refused"):
        settle(own)
    assert settle(own).fenced == ""
    assert server.nodes["n1"]["metadata"]["annotations"].keys() == {"other", "cnihook.io/pods"}
    before = server.revision
    assert settle(own).fenced == "" and server.revision == before
    other = NodesStore(store._api, "pods", SETTINGS, "n2", f"{2:032x}")
    assert blocks(other)["10.244.1.0-24"] == member

    # A node without a range waits, with the reason; one that was installed again is not another host.
    waiting = NodesStore(store._api, "pods", SETTINGS, "n4", f"{4:032x}")
    server.put(node(4))
    items, revision = waiting.items(KEYS.watched)
    with pytest.raises(StoreError, match="node n4: has no spec.podCIDRs .* --allocate-node-cidrs"):
        claims.settle(waiting, KEYS, View(KEYS, items, revision), Own(), waiting.own()[0])
    again = NodesStore(store._api, "pods", SETTINGS, "n1", f"{99:032x}")
    assert blocks(again)["10.244.1.0-24"].host == f"{99:032x}"


def test_nodes_live_without_a_lease(store: NodesStore) -> None:
    lease = store.grant(30)
    assert store.get(KEYS.live(ONE)) is None
    assert store.create(KEYS.live(ONE), b"{}", lease=lease) and store.keep_alive(lease)
    store.revoke(lease)
    assert store.items(KEYS.quarantined)[0] == []
    with pytest.raises(StoreError, match="kubectl delete node"):
        store.delete(KEYS.block("10.244.1.0-24"), b"")


@pytest.mark.parametrize(
    "damage",
    [
        {"spec": {"podCIDRs": ["x"]}},
        {"spec": {"podCIDRs": "10.244.2.0/24"}},
        {"spec": []},
        {"status": None},
        {"status": {"addresses": {}}},
        {"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}},
        {"metadata": {"name": "n2", "annotations": {"cnihook.io/pods": "{}"}}},
    ],
    ids=str,
)
def test_damaged_node_has_no_route(server: ApiServer, store: NodesStore, damage: dict[str, Any]) -> None:
    server.put({**node(2, "10.244.2.0/24"), **damage})

    items, revision = store.items(KEYS.watched)

    blocks = View(KEYS, items, revision).blocks(SETTINGS)
    hosts = sorted(block.member.name for block in blocks.values())
    assert hosts == ["n1", "n3"]
