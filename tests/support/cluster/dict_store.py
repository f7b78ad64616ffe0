# SPDX-License-Identifier: Apache-2.0
"""A cluster's store in memory, for many hosts in one process; each connection to it can be cut."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from threading import Event as Flag

from cnihook.cluster.store import CompactedError, Event, Item, Span, Store, StoreUnavailableError


@dataclass
class Database:
    """The data that all connections share."""

    items: dict[str, Item] = field(default_factory=dict)
    events: list[list[Event]] = field(default_factory=list)
    revision: int = 1
    first: int = 1  # the oldest revision whose events are known
    leases: set[int] = field(default_factory=set)
    granted: int = 0

    def write(self, key: str, value: bytes | None, lease: int = 0) -> None:
        self.revision += 1
        if value is None:
            del self.items[key]
        else:
            self.items[key] = Item(key, value, self.revision, lease)
        self.events.append([Event(key, value, self.revision)])

    def reset(self) -> None:
        """Lose everything, as a store does that begins with an empty folder."""
        self.__init__()  # type: ignore[misc]

    def compact(self) -> None:
        """Forget the events until now."""
        self.events.clear()
        self.first = self.revision


class DictStore(Store):
    """One connection to a database.

    cut: no request arrives
    lost_answers: that many writes are made, and their answer is lost
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.cut = False
        self.lost_answers = 0

    def items(self, span: Span) -> tuple[list[Item], int]:
        self._connect()
        items = [item for key, item in sorted(self.database.items.items()) if key in span]
        return items, self.database.revision

    def watch(self, span: Span, revision: int, stop: Flag) -> Iterator[list[Event]]:
        """Yield what happened since, and end there: a test calls it again."""
        self._connect()
        if not self.database.first <= revision <= self.database.revision:
            raise CompactedError(f"revision {revision} is not known")
        yield []
        for events in list(self.database.events):
            events = [event for event in events if event.revision > revision and event.key in span]
            if events and not stop.is_set():
                yield events

    def create(
        self, key: str, value: bytes, *, lease: int = 0, given: Mapping[str, bytes | None] | None = None
    ) -> int:
        written = self._write({**(given or {}), key: None}, key, value, lease)
        return self.database.revision if written else 0

    def replace(self, key: str, value: bytes, expected: bytes, *, lease: int = 0) -> bool:
        return self._write({key: expected}, key, value, lease)

    def delete(self, key: str, expected: bytes) -> bool:
        return self._write({key: expected}, key, None)

    def grant(self, ttl: int) -> int:
        self._connect()
        self.database.granted += 1
        self.database.leases.add(self.database.granted)
        return self.database.granted

    def keep_alive(self, lease: int) -> bool:
        self._connect()
        return lease in self.database.leases

    def revoke(self, lease: int) -> None:
        self._connect()
        self.database.leases.discard(lease)
        for key in [key for key, item in self.database.items.items() if lease and item.lease == lease]:
            self.database.write(key, None)

    def _connect(self) -> None:
        if self.cut:
            raise StoreUnavailableError("the connection is cut")

    def _write(
        self, given: Mapping[str, bytes | None], key: str, value: bytes | None, lease: int = 0
    ) -> bool:
        self._connect()
        items = self.database.items
        if any((items[name].value if name in items else None) != wanted for name, wanted in given.items()):
            return False
        self.database.write(key, value, lease)
        if self.lost_answers:
            self.lost_answers -= 1
            raise StoreUnavailableError("the answer is lost")
        return True
