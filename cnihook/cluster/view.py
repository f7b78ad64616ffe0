# SPDX-License-Identifier: Apache-2.0
"""The store of a network as one host knows it: the settings and the blocks, at one revision."""

from dataclasses import replace

from cnihook.cluster.model import Block, Member, ModelError, Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnihook.cluster.store import Event, Item, Keys


class View:
    """The items of a network, listed once and kept up to date by events.

    settings: None if the store has none, or has wrong ones
    wrong: the keys with a value that cannot be used, and why
    """

    def __init__(self, keys: "Keys", items: "Iterable[Item]", revision: int) -> None:
        self._keys = keys
        self._blocks = keys.block("")
        self._values: dict[str, bytes] = {}
        self._members: dict[str, Block] = {}  # by the last part of the key; their index is not known yet
        # The same with their indexes, which cost 20 us each, and the subnets to which these belong.
        self._resolved: dict[str, Block] = {}
        self._places: object = None
        self.settings: Settings | None = None
        self.wrong: dict[str, str] = {}
        self.revision = revision
        for item in items:
            self._set(item.key, item.value, item.revision)

    def apply(self, events: "Iterable[Event]") -> None:
        """Follow the changes that were made at once."""
        for event in events:
            self._set(event.key, event.value, event.revision)
            self.revision = max(self.revision, event.revision)

    def value(self, key: str) -> "bytes | None":
        """Return the value of a key as it is in the store."""
        return self._values.get(key)

    def member(self, part: str) -> "Member | None":
        """Return the host that has a block; None if the block is free or its value is wrong."""
        block = self._members.get(part)
        return block.member if block else None

    def claimed(self, claim: str) -> "list[str]":
        """Return the blocks with this claim."""
        return [part for part, block in self._members.items() if block.member.claim == claim]

    def is_free(self, part: str) -> bool:
        """Return True if the block's key does not exist."""
        return self._keys.block(part) not in self._values

    def blocks(self, settings: Settings) -> "dict[str, Block]":
        """Return all blocks of a network with these settings, by the last part of their keys."""
        places = settings.subnets, settings.blocks
        if self._places != places:
            self._places, self._resolved = places, {}
        for part, block in self._members.items():
            if part in self._resolved:
                continue
            try:
                index = settings.index_of_key(part)
            except ModelError as error:
                self.wrong[self._keys.block(part)] = str(error)
            else:
                self._resolved[part] = replace(block, index=index)
        return dict(self._resolved)

    def _set(self, key: str, value: "bytes | None", revision: int) -> None:
        self.wrong.pop(key, None)
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = value
        try:
            if key == self._keys.config:
                self.settings = None
                if value is not None:
                    self.settings = Settings.from_json(value)
            elif key.startswith(self._blocks):
                part = key.removeprefix(self._blocks)
                self._members.pop(part, None)
                self._resolved.pop(part, None)
                if value is not None:
                    self._members[part] = Block(-1, Member.from_json(value), revision)
        except ModelError as error:
            self.wrong[key] = str(error)
