# SPDX-License-Identifier: Apache-2.0
"""
Addresses of allowed names, as elements with a timeout in the sets of policies.

    set n-1a2b3c4d4 { 93.184.215.14 timeout 5m expires 4m31s comment "example.com" }

The kernel is asked how long an element still lasts, because another program may have flushed the set.  An
element is renewed only if it ends too early: before Linux 6.12 it must be deleted and added again for that,
and a transaction that deletes delays other programs (see linux.nft).  Connections outlive an element.
"""

import errno
import time

from cnihook.fast.address import Address
from cnihook.linux import nft
from cnihook.nftables.table import FAMILY, NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

LONGEST_ANSWER = 60  # seconds that a container may keep an answer
_SHORTEST, _LONGEST = 300, 86400  # seconds that an address is open
_MOST = 256  # addresses of one pattern in its sets
_LONGEST_COMMENT = 128  # characters, for nft


class Openings:
    """Addresses that are open by names.  A restart of the process sets the count of the limit to zero."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, str], dict[Address, float]] = {}
        self._full: set[tuple[str, str]] = set()

    def add(
        self, matching: "Iterable[tuple[str, str]]", name: str, addresses: "Collection[Address]", ttl: int
    ) -> "list[str]":
        """Open the addresses of a name in the sets of the patterns that allow it.

        An answer of LONGEST_ANSWER seconds may be sent when it returns.  Returns the patterns that have
        reached the limit for the first time: their oldest addresses are closed.  Raises OSError.
        """
        seconds = min(max(ttl, _SHORTEST), _LONGEST)
        now = time.monotonic()
        newly_full = []
        for entry in matching:
            until = self._until.setdefault(entry, {})
            for address in addresses:
                until.pop(address, None)
                until[address] = now + seconds  # the newest is the last one
            if len(until) > _MOST:
                for address in [address for address, end in until.items() if end < now]:
                    del until[address]
            closed = list(until)[: max(len(until) - _MOST, 0)]
            for address in closed:
                del until[address]
            if closed and entry not in self._full:
                self._full.add(entry)
                newly_full.append(entry[1])
            self._change(entry[0], name, addresses, seconds, self._unused(entry[0], closed))
        return newly_full

    def keep(self, bases: "Collection[str]") -> None:
        """Forget all about sets that are not among these."""
        self._until = {entry: until for entry, until in self._until.items() if entry[0] in bases}
        self._full = {entry for entry in self._full if entry[0] in bases}

    def _unused(self, base: str, closed: "list[Address]") -> "list[Address]":
        """Return those addresses that no other pattern of the same sets needs."""
        others = [until for entry, until in self._until.items() if entry[0] == base]
        return [address for address in closed if not any(address in until for until in others)]

    def _change(
        self,
        base: str,
        name: str,
        addresses: "Collection[Address]",
        seconds: float,
        closed: "list[Address]",
    ) -> None:
        for attempt in range(2):
            messages = []
            for address in closed:
                if _remaining(base, address) is not None:
                    messages.append(nft.delete_element(NAME, f"{base}{address.version}", address))
            for address in addresses:
                remaining = _remaining(base, address)
                if remaining is not None and remaining + LONGEST_ANSWER >= seconds:
                    continue
                container = f"{base}{address.version}"
                if remaining is not None:
                    messages.append(nft.delete_element(NAME, container, address))
                comment = name[:_LONGEST_COMMENT]
                messages.append(nft.add_element(NAME, container, address, comment, timeout=seconds))
            try:
                nft.change(FAMILY, messages, f"open the addresses of {name}")
                return
            except OSError as error:
                # An element to delete may have expired just now.  A set that does not exist stays away.
                if error.errno != errno.ENOENT or attempt:
                    raise


def _remaining(base: str, address: Address) -> "float | None":
    return nft.remaining(FAMILY, NAME, f"{base}{address.version}", address)
