# SPDX-License-Identifier: Apache-2.0
"""
The store that the hosts of a network share: keys and values, changed by comparison only.

A value is compared with what the caller has read, not with a revision: a store that lost its data counts
from 1 again, and a revision could be the same by chance.  Values hold random claims, so they cannot.
"""

from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from threading import Event as Flag

PREFIX = "/cnihook/v1/"


class StoreError(Exception):
    """The store refuses a request, and would refuse it again; the text is one line."""


class StoreUnavailableError(StoreError):
    """The store does not answer, or has no quorum: the request may succeed later."""


class CompactedError(StoreError):
    """The events since a revision are not known any more: list again."""


@dataclass(frozen=True)
class Span:
    """The keys from `first`, without `end`."""

    first: str
    end: str

    def __contains__(self, key: str) -> bool:
        return self.first <= key < self.end


@dataclass(frozen=True)
class Item:
    """A key with its value."""

    key: str
    value: bytes
    revision: int
    lease: int = 0


@dataclass(frozen=True)
class Event:
    """A change of a key; without a value it was deleted."""

    key: str
    value: "bytes | None"
    revision: int


class Store:
    """The operations of each store.  All raise StoreError; a write that raises it may have been made."""

    def items(self, span: Span) -> "tuple[list[Item], int]":
        """Return the items of a span, in their order, and the store's revision; never an old state."""
        raise NotImplementedError

    def watch(self, span: Span, revision: int, stop: "Flag") -> "Iterator[list[Event]]":
        """Yield the changes after a revision, those that were made at once together, until `stop` is set.

        Yields an empty list when the watch has begun.  Raises CompactedError if changes were missed.
        """
        raise NotImplementedError

    def create(
        self, key: str, value: bytes, *, lease: int = 0, given: "Mapping[str, bytes | None] | None" = None
    ) -> int:
        """Write a key that does not exist, if each key of `given` has this value; None: does not exist.

        Returns the store's revision with the key, or 0 if nothing was written.
        """
        raise NotImplementedError

    def replace(self, key: str, value: bytes, expected: bytes, *, lease: int = 0) -> bool:
        """Write a key that has the expected value."""
        raise NotImplementedError

    def delete(self, key: str, expected: bytes) -> bool:
        """Delete a key that has the expected value."""
        raise NotImplementedError

    def grant(self, ttl: int) -> int:
        """Return a new lease of `ttl` seconds: keys written with it end with it."""
        raise NotImplementedError

    def keep_alive(self, lease: int) -> bool:
        """Begin the time of a lease again.  Returns False if the store does not know the lease."""
        raise NotImplementedError

    def revoke(self, lease: int) -> None:
        """End a lease, and delete the keys that were written with it."""
        raise NotImplementedError

    def get(self, key: str) -> "Item | None":
        """Return one item."""
        items, _revision = self.items(one(key))
        return items[0] if items else None


def one(key: str) -> Span:
    """Return the span of one key."""
    return Span(key, f"{key}\0")


def under(prefix: str) -> Span:
    """Return the span of the keys that begin with an ASCII prefix."""
    return Span(prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))


@dataclass(frozen=True)
class Keys:
    """The keys of one network."""

    network: str

    @property
    def root(self) -> str:
        """The prefix of all of them."""
        return f"{PREFIX}{self.network}/"

    @property
    def config(self) -> str:
        """The key of the settings."""
        return f"{self.root}config"

    @property
    def watched(self) -> Span:
        """The blocks and the settings, in one span: the parts that change the routes of a host."""
        return Span(f"{self.root}blocks/", f"{self.config}\0")

    def block(self, part: str) -> str:
        """Return the key of a block, by how Settings.key() names it."""
        return f"{self.root}blocks/{part}"

    def quarantine(self, part: str) -> str:
        """Return the key that keeps a block from being claimed."""
        return f"{self.root}quarantine/{part}"

    @property
    def quarantined(self) -> Span:
        """The keys of all blocks in quarantine."""
        return under(self.quarantine(""))

    def live(self, host: str) -> str:
        """Return the key that a running agent keeps alive."""
        return f"{self.root}live/{host}"

    def names(self, host: str, container_id: str = "") -> str:
        """Return the key with the names of a container; without its ID, the prefix of those of a host."""
        return f"{self.root}names/{host}/{container_id}"

    @property
    def named(self) -> Span:
        """The names of all containers."""
        return under(f"{self.root}names/")
