# SPDX-License-Identifier: Apache-2.0
"""
The agent of one network on this host: it claims a block, and makes the routes to the blocks of the others.

    follower    the store: a list, then changes
    liveness    the key that shows that this agent runs
    kernel      routes or links that were lost
    names       the names of containers, which have their own thread (see names.py)

These are threads that post to a queue.  The agent acts on the whole of what it knows after each message, so
it does not matter which messages came, or how often.  It keeps no container from starting: host-local reads
block.json, whether an agent runs or not.  At its end nothing is removed.
"""

import os
import queue
import threading
import time
from dataclasses import replace

import cnihook
from cnihook.cluster import claims, transport
from cnihook.cluster.claims import FullError
from cnihook.cluster.follower import BackOff, Connected, Follower, Listed, Lost
from cnihook.cluster.liveness import Liveness, SecondHostError, Seen
from cnihook.cluster.model import Block, Member, ModelError, Settings
from cnihook.cluster.names import Names
from cnihook.cluster.peers import Peers, follow
from cnihook.cluster.state import State, StateError, machine_id
from cnihook.cluster.store import Keys, Store, StoreError
from cnihook.cluster.underlay import address_towards
from cnihook.cluster.view import View
from cnihook.linux.flock import Lock
from cnihook.log import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnihook.cluster.state import Membership
    from cnihook.cluster.transport import Transport

_SNAPSHOT_SHARE = 50  # a snapshot waits so many times as long as the last one took: 50 ms for 5,000 blocks
_ADDRESS_PERIOD = 5.0  # seconds until this host's address is looked at again
_UNCONFIRMED_PERIOD = 600.0  # seconds until blocks that are not in the store are looked at again


class Agent:
    """Runs until `stop` is set.  Raises StateError or LockBusyError if it cannot begin."""

    def __init__(self, state: State, store: Store, membership: "Membership", stop: threading.Event) -> None:
        self.network = state.network
        self._state = state
        self._store = store
        self._membership = membership
        self._stop = stop
        self._keys = Keys(state.network)
        self._queue: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._host = machine_id()
        self._own = state.own()
        self._peers: Peers | None = None
        self._view: View | None = None
        self._quarantine: Mapping[str, bytes] | None = None  # of a list that self._peers does not know yet
        self._transport: Transport | None = None
        self._is_connected = False
        self._since = time.time()  # of the last change of _is_connected
        self._problems: dict[str, str] = {}  # what went wrong last, by its subject
        self._retry_at: dict[str, float] = {}
        self._back_off = {"store": BackOff(), "kernel": BackOff()}
        self._is_snapshot_old = False
        self._snapshot_at = 0.0
        self._live: Liveness | None = None
        self._live_hosts: frozenset[str] | None = None  # those whose agents run
        self._programmed = 0.0  # when the kernel was last as it should be
        self._names: Names | None = None
        self._used_address = ""
        self._reported: object = None
        self.ready = threading.Event()  # the routes of the snapshot are made, or it has ended

    def run(self) -> None:
        try:
            self._run()
        finally:
            self.ready.set()

    def _run(self) -> None:
        with Lock(f"cluster-{self.network}", timeout=5, purpose=f"agent of {self.network}"):
            self._begin()
            self.ready.set()
            follower = Follower(self._store, self._keys, self._queue.put, self._stop)
            self._live = live = Liveness(
                self._store,
                self._keys,
                self._host,
                self._address,
                cnihook.__version__,
                self._queue.put,
                self._stop,
            )
            threads = [follower, threading.Thread(target=self._watch_kernel, daemon=True)]
            if not self._own.fenced:
                threads.append(live)
            for thread in threads:
                thread.start()
            self._later("address", _ADDRESS_PERIOD)
            while not self._stop.is_set():
                self._receive(follower)
                self._act(follower)
            follower.end()
            live.wake()
            if self._is_connected:
                live.end()
            self._write_snapshot()

    def stop(self) -> None:
        """End soon; a signal handler may call it."""
        self._stop.set()
        self._queue.put(None)

    # Input

    def _begin(self) -> None:
        """Make the routes of the snapshot, before the store answers."""
        try:
            self._peers = self._state.peers()
        except StateError as error:
            self._report("snapshot", str(error))
        if self._peers:
            self._own = replace(self._own, revision=self._peers.revision)
        if self._membership.host != self._host:
            self._fence("this host is a copy of the one that joined: its machine ID is another one")
        self._program()
        self._write_status()

    def _receive(self, follower: Follower) -> None:
        """Wait for messages or for the time of a retry, and take all that are there."""
        due = min(self._retry_at.values(), default=None)
        timeout = None if due is None else max(0.0, due - time.monotonic())
        try:
            self._take(self._queue.get(timeout=timeout), follower)
            while True:
                self._take(self._queue.get_nowait(), follower)
        except queue.Empty:
            pass

    def _take(self, message: object, follower: Follower) -> None:
        if isinstance(message, Listed):
            self._view = View(self._keys, message.items, message.revision)
            self._quarantine = message.quarantine
            self._due("view", "store", "kernel")
        elif isinstance(message, list):
            if self._view:
                self._view.apply(message)
                self._due("view", "store", "kernel")
        elif isinstance(message, Connected):
            self._connect(is_connected=True)
            self._report("store", "")
            self._due("store", "address")
            if self._live:
                self._live.wake()
        elif isinstance(message, Lost):
            self._connect(is_connected=False)
            self._report("store", message.reason)
        elif isinstance(message, Seen):
            self._live_hosts = message.hosts
        elif isinstance(message, SecondHostError):
            self._fence(str(message))
        elif message == "kernel":
            self._due("kernel")
        elif message == "lease" and self._names:
            self._names.wake()

    def _watch_kernel(self) -> None:
        while not self._stop.is_set():
            try:
                for _event in transport.events(self._stop):
                    self._queue.put("kernel")
            except OSError as error:
                self._report("events of the kernel", str(error))
                self._stop.wait(5)

    # Action

    def _act(self, follower: Follower) -> None:
        now = time.monotonic()
        if self._retry_at.get("list", now + 1) <= now:
            del self._retry_at["list"]
            follower.list_again()
        if self._retry_at.get("view", now + 1) <= now and self._view:
            del self._retry_at["view"]
            self._peers = follow(self._peers, self._view, self._quarantine)
            self._quarantine = None
            if self._peers and self._peers.unconfirmed:
                self._later("list", _UNCONFIRMED_PERIOD)
            self._begin_names()
        if self._retry_at.get("address", now + 1) <= now:
            self._look_at_address()
        if self._retry_at.get("store", now + 1) <= now:
            del self._retry_at["store"]
            self._settle(follower)
        if self._retry_at.get("kernel", now + 1) <= now:
            del self._retry_at["kernel"]
            self._program()
            self._is_snapshot_old = True
            self._retry_at.setdefault("snapshot", self._snapshot_at)
        if self._retry_at.get("snapshot", now + 1) <= now:
            del self._retry_at["snapshot"]
            self._write_snapshot()
        self._write_status()

    def _begin_names(self) -> None:
        peers, live = self._peers, self._live
        if not self._names and live and peers and peers.settings.names:

            def lease() -> "int | None":
                return None if self._own.fenced else live.lease

            self._names = Names(
                self._store, self._keys, self._host, peers.settings, lease, self._report, self._stop
            )
            self._names.start()

    def _look_at_address(self) -> None:
        """Write this host's address into the store if it has changed; no event of the store shows that."""
        self._later("address", _ADDRESS_PERIOD)
        address = self._address()
        if address and address != self._used_address:
            self._used_address = address
            self._due("store", "kernel")
            if self._live:
                self._live.wake()

    def _settle(self, follower: Follower) -> None:
        """Claim, keep or give up the block."""
        if not self._view or not self._is_connected or self._own.fenced:
            return
        member = self._member()
        if not member:
            return
        before = self._own
        try:
            self._own = claims.settle(self._store, self._keys, self._view, before, member)
        except FullError as error:
            self._report("block", str(error))
            self._later("list", 60.0)
            return
        except StoreError as error:
            self._report("block", str(error))
            self._later("store", self._back_off["store"].next())
            return
        if self._own.fenced:
            self._fence(self._own.fenced)
            return
        if (self._own.key, self._own.epoch) != (before.key, before.epoch):
            self._write_own()
            self._due("store")  # the value in the store may be an earlier one of this host
        if not self._own.key and self._view.settings:
            self._later("list", self._back_off["store"].next())  # another host was faster
            return
        waits = "" if self._own.key else "the store has no settings of the network"
        self._report("block", waits)
        self._back_off["store"].reset()

    def _write_own(self) -> None:
        """Write the block; host-local uses it from then on."""
        settings = self._view.settings if self._view else None
        settings = settings or (self._peers.settings if self._peers else None)
        if settings:
            self._state.write_own(self._own, settings)
            self._note(f"this host has block {claims.shown(self._own.key)}")
            self._due("kernel")

    def _fence(self, reason: str) -> None:
        """Start no more containers; those that run stay."""
        self._own = replace(self._own, fenced=reason)
        self._state.fence(reason)
        self._report("block", f"this host is fenced: {reason}")
        self._due("kernel")
        if self._names:
            self._names.wake()

    def _program(self) -> None:
        """Make the kernel as it should be, whatever it was."""
        peers = self._peers
        if not peers:
            return
        own, others = self._split(peers)
        try:
            changes = self._transport_of(peers.settings).program(
                own, others, may_delete=bool(self._view and self._view.settings)
            )
        except (OSError, transport.TransportError) as error:
            self._report("kernel", str(error))
            self._later("kernel", self._back_off["kernel"].next())
            return
        self._back_off["kernel"].reset()
        self._report("kernel", "")
        self._programmed = time.time()
        if changes:
            self._note(
                f"kernel: {changes.added} added, {changes.replaced} replaced, {changes.deleted} deleted"
            )

    def _split(self, peers: Peers) -> "tuple[Block | None, list[Block]]":
        """Return this host's block, and those of the others that it may have routes to."""
        others = [block for part, block in peers.blocks.items() if part != self._own.key]
        others = [block for block in others if block.member.host != self._host]
        if not self._own.key or self._own.fenced:
            return None, others
        member = self._member()
        try:
            index = peers.settings.index_of_key(self._own.key)
        except ModelError:
            return None, others
        return (Block(index, member) if member else None), others

    def _member(self) -> "Member | None":
        """Return this host as the others have to know it."""
        settings = (self._view and self._view.settings) or (self._peers and self._peers.settings)
        address = self._address()
        if not settings or not address:
            return None
        try:
            credentials = self._transport_of(settings).credentials()
            return Member(self._host, os.uname().nodename, self._membership.claim, address, **credentials)
        except (OSError, transport.TransportError, ModelError) as error:
            self._report("member", str(error))
            return None

    def _transport_of(self, settings: Settings) -> "Transport":
        if not self._transport or self._transport.settings != settings:
            self._transport = transport.of(settings, self.network, self._state.folder)
        return self._transport

    def _address(self) -> str:
        """Return the address that other hosts use: the operator's choice, or that towards etcd."""
        return self._membership.address or address_towards(self._membership.access.endpoints)

    # Output

    def _write_snapshot(self) -> None:
        if self._peers and self._is_snapshot_old:
            began = time.monotonic()
            try:
                self._state.write_peers(self._peers)
                self._is_snapshot_old = False
                ended = time.monotonic()
                self._snapshot_at = ended + (ended - began) * _SNAPSHOT_SHARE
                self._report("snapshot", "")
            except OSError as error:
                self._report("snapshot", f"{error.filename}: {error.strerror}")

    def _write_status(self) -> None:
        """Write what `status`, `metrics` and `graph` show, if it has changed."""
        wrong = dict(self._view.wrong) if self._view else {}
        blocks, live = (self._peers.blocks if self._peers else {}), self._live_hosts
        is_known = self._is_connected and live is not None
        absent = sorted(part for part, one in blocks.items() if one.member.host not in (live or ()))
        value = {
            "pid": os.getpid(),
            "agent": cnihook.__version__,
            "connected": self._is_connected,
            "since": int(self._since),
            "revision": self._view.revision if self._view else 0,
            "blocks": len(blocks),
            "absent": absent if is_known else None,
            "unconfirmed": sorted(self._peers.unconfirmed) if self._peers else [],
            "programmed": int(self._programmed),
            "problems": dict(self._problems) | dict(list(wrong.items())[:10]),
        }
        if value != self._reported:
            try:
                self._state.write_status(value)
                self._reported = value
            except OSError as error:
                self._report("status", f"{error.filename}: {error.strerror}")

    def _connect(self, *, is_connected: bool) -> None:
        if self._is_connected != is_connected:
            self._is_connected, self._since = is_connected, time.time()

    def _report(self, subject: str, problem: str) -> None:
        """Keep a problem for the status, and log it once; empty: there is none any more."""
        if problem == self._problems.get(subject, ""):
            return
        if problem:
            self._problems[subject] = problem
        else:
            del self._problems[subject]
        self._note(f"{subject}: {problem or 'works again'}")

    def _note(self, text: str) -> None:
        warn(f"agent: {self.network}: {text}")

    def _due(self, *subjects: str) -> None:
        self._retry_at.update(dict.fromkeys(subjects, 0.0))

    def _later(self, subject: str, seconds: float) -> None:
        self._retry_at[subject] = time.monotonic() + seconds
