# SPDX-License-Identifier: Apache-2.0
"""
A thread that keeps this host's key below live/, with a lease, so that others can see which agents run.

It is information only: no route and no block depends on it.  But it shows a second host with the same
machine ID, such as a copy of a virtual machine: the key is there, with another address, and is kept alive.

The thread also reads the keys of the others.  No agent watches them: if all agents of a large network were
restarted, each one would receive an event of each other one.
"""

import secrets
import threading
import time
from dataclasses import dataclass

from cnihook.cluster.store import StoreError, under
from cnihook.fast import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cnihook.cluster.store import Keys, Store

TTL = 30  # seconds
PERIOD = 10.0  # seconds between two renewals
# Seconds in which a lease that is not renewed has surely ended, also if the leader of etcd has changed.
PATIENCE = 2 * TTL + 10.0
# Seconds between two reads of all keys, for each key: of 5,000 hosts, ten read 5,000 keys in each second.
_PAUSE = 0.1


class SecondHostError(StoreError):
    """Another host uses this host's machine ID; the text is one line."""


@dataclass(frozen=True)
class Seen:
    """The machine IDs of the hosts whose agents run."""

    hosts: "frozenset[str]"


class Liveness(threading.Thread):
    """Calls `post` with Seen, with "lease" for a new lease, with a SecondHostError once; then it ends."""

    def __init__(
        self,
        store: "Store",
        keys: "Keys",
        host: str,
        address: "Callable[[], str]",
        version: str,
        post: "Callable[[object], object]",
        stop: threading.Event,
    ) -> None:
        super().__init__(name=f"live {keys.network}", daemon=True)
        self._store = store
        self._prefix = keys.live("")
        self._key = keys.live(host)
        self._address = address
        self._version = version
        self._post = post
        self._stop_all = stop
        self._run = secrets.token_hex(8)
        self._lease = 0
        self._shown = ""  # the address in the key
        self._value = b""
        self._other_since = 0.0
        self._look_at = 0.0
        self._wake = threading.Event()

    def run(self) -> None:
        while not self._stop_all.is_set():
            try:
                self.step()
                self._look()
            except SecondHostError as error:
                self._post(error)
                return
            except StoreError:
                self._other_since = 0.0  # and the follower reports it
            self._wake.wait(PERIOD if self._lease else 1.0)
            self._wake.clear()

    @property
    def lease(self) -> int:
        """The lease of the key; 0 without one."""
        return self._lease

    def wake(self) -> None:
        """Look again now: the store is back, this host's address has changed, or `stop` is set."""
        self._wake.set()

    def step(self) -> None:
        """Renew the lease, or write the key with another one.  Raises StoreError."""
        address = self._address()
        if self._lease and self._store.keep_alive(self._lease):
            if address in ("", self._shown):
                return
            self._store.revoke(self._lease)
        self._lease = 0
        if not address:
            return
        item = self._store.get(self._key)
        if item and _address_of(item.value) != address:
            self._judge(_address_of(item.value))
            return
        lease = self._store.grant(TTL)
        value = {"address": address, "agent": self._version, "run": self._run}
        text = fastjson.dumps(value).encode()
        if item:  # of an earlier run of this agent
            is_written = self._store.replace(self._key, text, item.value, lease=lease)
        else:
            is_written = bool(self._store.create(self._key, text, lease=lease))
        if is_written:
            self._lease, self._shown, self._other_since = lease, address, 0.0
            self._value = text
            self._post("lease")
        else:
            self._store.revoke(lease)

    def _look(self) -> None:
        """Read which agents run, if the store lists this one.  Raises StoreError."""
        now = time.monotonic()
        if now >= self._look_at:
            items, _revision = self._store.items(under(self._prefix))
            self._look_at = now + len(items) * _PAUSE
            if any(item.key == self._key for item in items):
                self._post(Seen(frozenset(item.key.removeprefix(self._prefix) for item in items)))

    def end(self) -> None:
        """Delete the key: this agent stops.

        The lease goes on for its time, so that the names of this host outlast a restart of its agent.
        """
        if self._lease:
            try:
                self._store.delete(self._key, self._value)
            except StoreError:
                pass  # it ends by itself

    def _judge(self, other: str) -> None:
        """Wait until the other's lease must have ended.  Raises SecondHostError if it has not.

        This host may have had another address, and its own lease from then is still there.
        """
        now = time.monotonic()
        self._other_since = self._other_since or now
        if now - self._other_since > PATIENCE:
            raise SecondHostError(
                f"another host, at {other or 'an unknown address'}, has the machine ID of this one"
            )


def _address_of(value: bytes) -> str:
    try:
        content = fastjson.loads(value[:4096].decode())
    except ValueError:
        return ""
    address = content.get("address") if isinstance(content, dict) else ""
    return address[:64] if isinstance(address, str) and address.isprintable() else ""
