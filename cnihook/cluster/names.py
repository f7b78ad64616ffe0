# SPDX-License-Identifier: Apache-2.0
"""
The names of containers across hosts: this host's into the store, those of the others into hosts files.

    names/HOST/CONTAINER    the names and addresses of a container, with the lease of its host's agent

The start of a container takes no part in this.  The agent hears of it from the entry that it makes (see
cnihook/names/entries.py), and looks at all entries once a second at most.  A host that is gone loses its
names with its lease.  While the store does not answer, the names stay as they are.
"""

import ipaddress
import os
import queue
import threading

from cnihook.cluster.follower import BackOff
from cnihook.cluster.model import LONGEST
from cnihook.cluster.store import StoreError
from cnihook.fast import fastjson
from cnihook.linux import inotify
from cnihook.linux.flock import LockBusyError
from cnihook.names import entries, other_hosts
from cnihook.names.entries import OTHERS
from cnihook.protocol import locks
from cnihook.request import reserved, values
from cnihook.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cnihook.cluster.model import Settings
    from cnihook.cluster.store import Keys, Store

PERIOD = 1.0  # seconds: this host's names are written, and those of the others are read, so often at most
MOST_LINES = 10_000  # of the other hosts, in a hosts file
_MOST_ADDRESSES = 4  # of a container on a network


class Names(threading.Thread):
    """The thread that does it for one network.

    lease: returns the lease of this host's agent, 0 while it has none, None if no name may be in the store
    report: is called with the subject and what is wrong, and with an empty text afterwards
    stop: ends it; the names in the store end with their lease, and those in hosts files stay
    """

    def __init__(
        self,
        store: "Store",
        keys: "Keys",
        host: str,
        settings: "Settings",
        lease: "Callable[[], int | None]",
        report: "Callable[[str, str], object]",
        stop: threading.Event,
    ) -> None:
        super().__init__(name=f"names {keys.network}", daemon=True)
        self._store = store
        self._keys = keys
        self._own = keys.names(host)
        self._settings = settings
        self._lease = lease
        self._report = report
        self._queue: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._stop_all = stop
        self._seen: dict[str, bytes] | None = None  # the store, once it was listed
        self._written: dict[str, int] = {}  # the keys that this thread has written, with their leases
        self._shown: object = None  # what is in the hosts files
        self._pause = BackOff()
        self._retry: float | None = None

    def run(self) -> None:
        for function in (self._follow, self._watch_entries):
            threading.Thread(target=function, daemon=True).start()
        while not self._stop_all.is_set():
            self._receive()
            try:
                self._report("names", self.step())
                self._pause.reset()
                self._retry = None
            except (StoreError, LockBusyError, CniError) as error:
                self._fail(str(error))
            except OSError as error:
                self._fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
            self._stop_all.wait(PERIOD)

    def wake(self) -> None:
        """Look again now: the agent has another lease, or may not use its block any more."""
        self._queue.put(None)

    def take(self, message: object) -> None:
        """Follow the store: a dict is all of it, a list has its changes."""
        if isinstance(message, dict):
            self._seen = message
        elif isinstance(message, list) and self._seen is not None:
            for event in message:
                if event.value is None:
                    self._seen.pop(event.key, None)
                else:
                    self._seen[event.key] = event.value

    def step(self) -> str:
        """Write this host's names, and take over those of the others.

        Returns what is wrong with these.  Raises StoreError, LockBusyError, OSError and CniError.
        """
        if self._seen is None:
            return ""
        here = self._containers()
        self._publish(self._seen, here)
        names = {name.lower() for _addresses, names in here.values() for name in names}
        return self._take_over(self._seen, names)

    def _fail(self, problem: str) -> None:
        self._report("names", problem)
        self._retry = self._pause.next()

    # Input

    def _receive(self) -> None:
        """Wait for a message or for the time of a retry, and take all that are there."""
        try:
            self.take(self._queue.get(timeout=self._retry))
            while True:
                self.take(self._queue.get_nowait())
        except queue.Empty:
            pass

    def _follow(self) -> None:
        """List the names, and follow their changes; after a cut again.  The agent reports what is wrong."""
        pause = BackOff()
        while not self._stop_all.is_set():
            try:
                items, revision = self._store.items(self._keys.named)
                self._queue.put({item.key: item.value for item in items})
                for events in self._store.watch(self._keys.named, revision, self._stop_all):
                    pause.reset()
                    self._queue.put(events)
            except StoreError:
                self._stop_all.wait(pause.next())

    def _watch_entries(self) -> None:
        folder = f"{entries.FOLDER}/{self._keys.network}"
        events = inotify.IN_CLOSE_WRITE | inotify.IN_DELETE | inotify.IN_DELETE_SELF
        while not self._stop_all.is_set():
            try:
                other_hosts.known(self._keys.network)
                fd = inotify.watch(folder, events)
                try:
                    self._queue.put(None)
                    while os.read(fd, 65536) and os.path.exists(folder):
                        self._queue.put(None)
                finally:
                    os.close(fd)
            except (OSError, LockBusyError):
                self._stop_all.wait(5)

    def _containers(self) -> "dict[str, tuple[list[str], list[str]]]":
        """Return the addresses and names of each container of this host on the network."""
        with locks.names(f"names for other hosts on {self._keys.network}"):
            return {
                entry.container_id: (entry.addresses[:_MOST_ADDRESSES], entry.all_names)
                for entry in entries.of_network(self._keys.network, but=OTHERS)
                if entry.all_names and entry.addresses and entry.stands
            }

    # Output

    def _publish(self, seen: "dict[str, bytes]", here: "dict[str, tuple[list[str], list[str]]]") -> None:
        lease = self._lease()
        if lease == 0:
            return
        target = {}
        if lease is not None:
            target = {f"{self._own}{one}": _value(*details) for one, details in here.items()}
        for key in [key for key in self._written if key not in target]:
            old = seen.get(key)
            if old is None or self._store.delete(key, old):
                del self._written[key]
                seen.pop(key, None)
        for key, value in target.items():
            old = seen.get(key)
            if lease is None or (old, self._written.get(key)) == (value, lease):
                continue
            if old is None:
                is_written = bool(self._store.create(key, value, lease=lease))
            else:
                is_written = self._store.replace(key, value, old, lease=lease)
            if is_written:  # else the event of another change is on its way
                seen[key], self._written[key] = value, lease

    def _take_over(self, seen: "dict[str, bytes]", here: "set[str]") -> str:
        """Write the names of the other hosts into the hosts files, if something has changed.

        Returns what is wrong.
        """
        refused = reserved.names_of_host()
        lines: list[str] = []
        for key in sorted(seen):
            if not key.startswith(self._own):
                lines += self._lines(seen[key], refused)
        shared = sorted(here.intersection(name.lower() for line in lines for name in line.split()[1:]))
        if self._shown != (lines, shared):
            other_hosts.set_names(self._keys.network, lines[:MOST_LINES])
            self._shown = lines, shared
        if len(lines) > MOST_LINES:
            return f"the containers of other hosts need {len(lines)} lines, and {MOST_LINES} are used"
        return ""

    def _lines(self, value: bytes, refused: "set[str]") -> "list[str]":
        """Return the lines for one container of another host; none if its value is wrong."""
        try:
            content = fastjson.loads(value[: LONGEST + 1].decode())
            names = [name for name in map(_checked, content["names"]) if name.lower() not in refused]
            addresses = [ipaddress.ip_address(one) for one in content["addresses"] if _is_plain(one)]
        except (ValueError, TypeError, KeyError):
            return []
        nets = self._settings.subnets
        right = [one for one in addresses[:_MOST_ADDRESSES] if any(one in net for net in nets)]
        text = " ".join(filter(None, names))
        return [f"{one} {text}" for one in right if text]


def _checked(name: object) -> str:
    """Return a name that may lead to another host; empty for any other one.

    One with a dot may be that of a server in DNS, which no other host may take over.
    """
    try:
        return values.parse_alias(name) if isinstance(name, str) and "." not in name else ""
    except CniError:
        return ""


def _is_plain(address: object) -> bool:
    return isinstance(address, str) and "%" not in address  # any text may follow it in an IPv6 address


def _value(addresses: "list[str]", names: "Iterable[str]") -> bytes:
    """Return the value for a container: as many of its names as a value may have."""
    names = [name for name in names if _checked(name)]
    while True:
        text = fastjson.dumps({"addresses": addresses, "names": names}).encode()
        if len(text) <= LONGEST:
            return text
        names.pop()
