# SPDX-License-Identifier: Apache-2.0
"""The store in a real etcd: transactions, watches that are cut in all ways, leases, TLS, a user."""

import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from cnihook.cluster import etcd as etcd_module
from cnihook.cluster import etcd_http
from cnihook.cluster.etcd import EtcdStore
from cnihook.cluster.etcd_http import Access
from cnihook.cluster.store import (
    CompactedError,
    Event,
    Keys,
    StoreError,
    StoreUnavailableError,
    under,
)
from tests.support.cluster.etcd import Certificates, Etcd, free_port
from tests.support.wait import patience

pytestmark = pytest.mark.needs("etcd", "openssl")

KEYS = Keys("wide")
BLOCKS = under(KEYS.block(""))


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with Etcd(tmp_path_factory.mktemp("etcd")) as server:
        yield server


class Watcher:
    """A watch in a thread: what it yields, then the error that ended it."""

    def __init__(self, store: EtcdStore, revision: int) -> None:
        self.seen: Queue[list[Event] | StoreError | None] = Queue()
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(store, revision), daemon=True)
        self._thread.start()
        first = self.next()
        assert first == [] or isinstance(first, StoreError)
        self.first = first

    def _run(self, store: EtcdStore, revision: int) -> None:
        try:
            for events in store.watch(KEYS.watched, revision, self.stop):
                self.seen.put(events)
            self.seen.put(None)
        except StoreError as error:
            self.seen.put(error)

    def next(self) -> list[Event] | StoreError | None:
        return self.seen.get(timeout=patience())


def test_transactions_compare_and_lists_have_pages(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    store = etcd.store()
    revision = store.create(KEYS.config, b"one")
    assert revision and not store.create(KEYS.config, b"two")
    first = KEYS.block("10.60.0.0-24")
    quarantine = KEYS.quarantine("10.60.0.0-24")
    assert not store.create(first, b"a", given={KEYS.config: b"two"})
    assert not store.create(first, b"a", given={KEYS.config: b"one", quarantine: b""})
    assert store.create(first, b"a", given={KEYS.config: b"one", quarantine: None}) == revision + 1
    assert not store.replace(first, b"b", b"wrong") and store.replace(first, b"b", b"a")
    assert not store.delete(first, b"a")
    for number in range(1, 6):
        store.create(KEYS.block(f"10.60.{number}.0-24"), b"")
    monkeypatch.setattr(etcd_module, "_PAGE", 2)
    items, revision = store.items(KEYS.watched)
    assert [item.key.rpartition("/")[2] for item in items] == [f"10.60.{n}.0-24" for n in range(6)] + [
        "config"
    ]
    assert items[0].value == b"b" and items[1].value == b"" and revision == items[5].revision
    assert store.get(first) == items[0] and store.get(quarantine) is None
    assert store.items(BLOCKS)[0] == items[:6]
    for item in items:
        assert store.delete(item.key, item.value)


def test_watch_resumes_from_a_revision_and_ends_at_stop(etcd: Etcd) -> None:
    store = etcd.store()
    _items, revision = store.items(KEYS.watched)
    first = KEYS.block("10.60.0.0-24")
    store.create(first, b"a")
    store.create(KEYS.live("x"), b"unseen")
    watcher = Watcher(store, revision)
    assert watcher.next() == [Event(first, b"a", revision + 1)]
    store.delete(first, b"a")
    assert watcher.next() == [Event(first, None, revision + 3)]
    watcher.stop.set()
    assert watcher.next() is None
    store.delete(KEYS.live("x"), b"unseen")


def test_lease_ends_with_its_keys(etcd: Etcd) -> None:
    store = etcd.store()
    lease = store.grant(60)
    store.create(KEYS.live("x"), b"", lease=lease)
    item = store.get(KEYS.live("x"))
    assert item and item.lease == lease and store.keep_alive(lease)
    store.revoke(lease)
    assert store.get(KEYS.live("x")) is None and not store.keep_alive(lease)


def test_watch_ends_if_the_server_is_stopped_killed_or_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped server acknowledges everything and answers nothing; an empty one has no such revision."""
    monkeypatch.setattr(etcd_module, "_PROBE", 0.5)
    monkeypatch.setattr(etcd_http, "TIMEOUT", 0.5)
    with Etcd(tmp_path) as server:
        store = server.store()
        revision = store.create(KEYS.config, b"one")
        watcher = Watcher(store, revision)
        server.pause()
        error = watcher.next()
        assert isinstance(error, StoreUnavailableError) and str(error).endswith("no answer within 0.5 s")
        with pytest.raises(StoreUnavailableError, match=r"no answer within 0\.5 s"):
            store.get(KEYS.config)
        server.go_on()
        monkeypatch.setattr(etcd_http, "TIMEOUT", 5.0)
        watcher = Watcher(store, revision)
        server.kill()
        error = watcher.next()
        assert isinstance(error, StoreUnavailableError) and "\n" not in str(error)
        with pytest.raises(StoreUnavailableError, match="Connection refused"):
            store.create(KEYS.config, b"two")
        server.start()
        watcher = Watcher(store, revision)
        assert watcher.first == []
        assert store.replace(KEYS.config, b"two", b"one")
        assert watcher.next() == [Event(KEYS.config, b"two", revision + 1)]
        server.empty()
        assert isinstance(watcher.next(), StoreUnavailableError)
        watcher = Watcher(store, revision + 1)
        assert isinstance(watcher.first or watcher.next(), CompactedError)


def test_compacted_revision_is_named(etcd: Etcd) -> None:
    store = etcd.store()
    revision = store.create(KEYS.config, b"one")
    store.replace(KEYS.config, b"two", b"one")
    store.delete(KEYS.config, b"two")
    call(etcd, "kv/compaction", {"revision": str(revision + 1)})
    watcher = Watcher(store, revision - 1)
    assert isinstance(watcher.first or watcher.next(), CompactedError)


def test_other_servers_are_tried(etcd: Etcd) -> None:
    dead = [f"http://127.0.0.1:{free_port()}" for _ in range(3)]
    store = EtcdStore(Access((*dead, etcd.url)))
    revision = store.create(KEYS.config, b"one")
    assert revision and store.delete(KEYS.config, b"one")
    assert Watcher(EtcdStore(Access((*dead, etcd.url))), revision).first == []
    with pytest.raises(StoreUnavailableError) as error:
        EtcdStore(Access(tuple(dead))).get("x")
    assert all(url in str(error.value) for url in dead) and "\n" not in str(error.value)


def test_tls_and_a_user_whose_token_the_server_forgets(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    user_file = tmp_path / "user"
    user_file.write_text("root:secret\n")
    tls = {"ca": certificates.ca, "cert": certificates.client, "key": f"{certificates.client}.key"}
    with Etcd(tmp_path, options=certificates.options) as server:
        with pytest.raises(StoreUnavailableError, match="certificate verify failed"):
            server.store().get("x")
        with pytest.raises(StoreUnavailableError):
            server.store(ca=certificates.ca).get("x")
        with pytest.raises(StoreError, match=r"missing\.pem: .*No such file"):
            server.store(ca=f"{tmp_path}/missing.pem").get("x")
        plain = server.store(**tls)
        plain.create(KEYS.config, b"one")
        gateway = plain._gateway
        gateway.write("/v3/auth/user/add", {"name": "root", "password": "secret"})
        gateway.write("/v3/auth/role/add", {"name": "root"})
        gateway.write("/v3/auth/user/grant", {"user": "root", "role": "root"})
        gateway.write("/v3/auth/enable", {})
        with pytest.raises(StoreError, match="permission denied"):
            plain.get(KEYS.config)
        named = server.store(
            ca=certificates.ca,
            cert=certificates.named,
            key=f"{certificates.named}.key",
            user_file=str(user_file),
        )
        with pytest.raises(StoreError, match="common name"):
            named.get(KEYS.config)
        store = server.store(**tls, user_file=str(user_file))
        item = store.get(KEYS.config)
        assert item and item.value == b"one"
        assert Watcher(store, item.revision).first == []
        server.kill()
        server.start()  # it has forgotten the token
        assert store.replace(KEYS.config, b"two", b"one")
        assert Watcher(server.store(**tls, user_file=str(user_file)), item.revision).first == []
        user_file.write_text("root:wrong\n")
        with pytest.raises(StoreError, match="authentication failed"):
            server.store(**tls, user_file=str(user_file)).get(KEYS.config)
        user_file.write_text("root\n")
        with pytest.raises(StoreError, match="must be one line, USER:PASSWORD"):
            server.store(**tls, user_file=str(user_file)).get(KEYS.config)


@pytest.mark.parametrize(
    ("access", "reason"),
    [
        ({"endpoints": ()}, "needs 1 to 16 URLs"),
        ({"endpoints": ("127.0.0.1:2379",)}, "is not a URL"),
        ({"endpoints": ("http://user:word@192.0.2.1",)}, "is not a URL"),
        ({"endpoints": ("http://192.0.2.1:99999",)}, "is not a URL"),
        ({"endpoints": ("http://192.0.2.1",), "cert": "a"}, "a certificate needs its key"),
    ],
)
def test_wrong_access_is_refused(access: dict[str, Any], reason: str) -> None:
    with pytest.raises(StoreError, match=reason):
        Access(**access)


def call(etcd: Etcd, path: str, body: dict[str, str]) -> None:
    request = urllib.request.Request(f"{etcd.url}/v3/{path}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=10) as response:
        response.read()
