# SPDX-License-Identifier: Apache-2.0
"""
Names that a container has looked up and that its policy does not allow, for `cnihook denied`.

    /run/cnihook/resolver/denied/ID
    {"names": {"example.com": {"count": 3, "first": 1764547200.1, "last": 1764547260.9, "reason": "…"}},
     "more": 0}

The file has the newest names, and the number of others.  The resolver replaces it at most twice a second.
"""

import os
import time

from cnihook.fast import fastjson, statefile

FOLDER = "/run/cnihook/resolver/denied"
NOT_LISTED = "not listed"

_MOST = 256  # names of one container
_LONGEST = 1 << 20  # bytes of a file


class Denial:
    """A name, how often it was looked up, and why it was denied; times in seconds of the epoch."""

    __slots__ = ("count", "first", "last", "name", "reason")

    def __init__(self, name: str, reason: str, count: int, first: float, last: float) -> None:
        self.name = name
        self.reason = reason
        self.count = count
        self.first = first
        self.last = last


class Table:
    """The denials of one container, as the resolver collects them."""

    def __init__(self, container_id: str) -> None:
        self._container_id = container_id
        denials, self._more = _read(container_id)
        self._denials = {denial.name: denial for denial in denials}
        self.is_changed = False

    def add(self, name: str, reason: str) -> None:
        now = time.time()
        denial = self._denials.pop(name, None) or Denial(name, reason, 0, now, now)
        denial.count += 1
        denial.last = now
        denial.reason = reason
        self._denials[name] = denial  # the newest is the last one
        if len(self._denials) > _MOST:
            del self._denials[next(iter(self._denials))]
            self._more += 1
        self.is_changed = True

    def write(self) -> None:
        os.makedirs(FOLDER, mode=0o700, exist_ok=True)
        names = {
            denial.name: {
                "count": denial.count,
                "first": denial.first,
                "last": denial.last,
                "reason": denial.reason,
            }
            for denial in self._denials.values()
        }
        text = fastjson.dumps({"names": names, "more": self._more})
        statefile.replace(_path(self._container_id), text.encode())  # no ID begins with a dot
        self.is_changed = False


def read(container_id: str) -> "list[Denial]":
    """Return the denials of a container, the newest last; an empty list if there is no usable file."""
    return _read(container_id)[0]


def _read(container_id: str) -> "tuple[list[Denial], int]":
    """Return the denials, and the number of names that had no place."""
    try:
        data = statefile.content(_path(container_id), longest=_LONGEST)
        if data is None:
            return [], 0
        content = fastjson.loads(data.decode())
        denials = [
            Denial(name, str(one["reason"]), int(one["count"]), float(one["first"]), float(one["last"]))
            for name, one in content["names"].items()
        ]
        return denials, int(content["more"])
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        return [], 0


def forget(container_id: str) -> None:
    try:
        os.unlink(_path(container_id))
    except FileNotFoundError:
        pass


def _path(container_id: str) -> str:
    return f"{FOLDER}/{container_id[:255]}"
