# SPDX-License-Identifier: Apache-2.0
"""A thread that follows the store: a list, then a watch from its revision, which is resumed after a cut."""

import random
import threading
from dataclasses import dataclass

from cnihook.cluster.store import CompactedError, StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cnihook.cluster.store import Event, Item, Keys, Store

LONGEST_PAUSE = 30.0  # seconds between two tries


@dataclass(frozen=True)
class Listed:
    """All of a network at one revision, and the blocks in quarantine, by the last part of their keys."""

    items: "list[Item]"
    revision: int
    quarantine: "Mapping[str, bytes]"


@dataclass(frozen=True)
class Connected:
    """A watch has begun: the state that was reported before is the newest one."""


@dataclass(frozen=True)
class Lost:
    """The store does not answer, or refuses."""

    reason: str


class BackOff:
    """The pauses between tries: chosen by chance below a limit that doubles.

    A store that returns has all hosts at once, so they spread their tries.
    """

    def __init__(self, first: float = 0.5) -> None:
        self._first = first
        self._limit = first

    def reset(self) -> None:
        self._limit = self._first

    def next(self) -> float:
        """Return the seconds until the next try."""
        pause = random.uniform(0, self._limit)
        self._limit = min(self._limit * 2, LONGEST_PAUSE)
        return pause


class Follower(threading.Thread):
    """A thread that posts Listed, lists of events, Connected and Lost."""

    def __init__(
        self, store: "Store", keys: "Keys", post: "Callable[[object], object]", stop: threading.Event
    ) -> None:
        super().__init__(name=f"follow {keys.network}", daemon=True)
        self._store = store
        self._keys = keys
        self._post = post
        self._stop_all = stop
        self._cut = threading.Event()  # ends the watch
        self._revision = 0
        self._config: tuple[bytes, int] | None = None

    def list_again(self) -> None:
        """List the whole again, soon."""
        self._revision = 0
        self._cut.set()

    def end(self) -> None:
        """End the watch; the caller has set `stop`."""
        self._cut.set()

    def run(self) -> None:
        pause = BackOff()
        while not self._stop_all.is_set():
            self._cut.clear()
            try:
                if not self._revision or not self._is_the_same():
                    self._list()
                for events in self._store.watch(self._keys.watched, self._revision, self._cut):
                    pause.reset()
                    self._follow(events)
                continue  # list_again() or end()
            except CompactedError:
                self._revision = 0
            except StoreError as error:
                self._post(Lost(str(error)))
            self._stop_all.wait(pause.next())

    def _list(self) -> None:
        prefix = self._keys.quarantine("")
        kept, _revision = self._store.items(self._keys.quarantined)
        items, revision = self._store.items(self._keys.watched)
        quarantine = {item.key.removeprefix(prefix): item.value for item in kept}
        self._config = next(
            ((item.value, item.revision) for item in items if item.key == self._keys.config), None
        )
        self._post(Listed(items, revision, quarantine))
        self._revision = revision

    def _follow(self, events: "list[Event]") -> None:
        if not events:
            self._post(Connected())
            return
        for event in events:
            self._revision = max(self._revision, event.revision)
            if event.key == self._keys.config:
                self._config = None if event.value is None else (event.value, event.revision)
        self._post(events)

    def _is_the_same(self) -> bool:
        """Return True if the store can be resumed: it has the settings that it had.

        A store that lost its data may have reached the old revision again.
        """
        item = self._store.get(self._keys.config)
        return item is not None and self._config == (item.value, item.revision)
