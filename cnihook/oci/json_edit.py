# SPDX-License-Identifier: Apache-2.0
"""
A JSON text that is changed in places, while all the rest stays as it is, byte for byte.

A round trip through values would lose what Python has no value for: 1e400, -0, a repeated key, the digits of
1.10, `<` written as \\u003c.  It would also cost more: the parser is in C, and finds a place in a text of 50
kB in 0.2 ms.
"""

from cnihook.fast import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Key = str | int

_WHITE = " \t\r\n"


class JsonDocument:
    """A JSON object in text form.  A path is the keys and numbers that lead to a value.

    If a key is repeated, the last one counts, as for every other reader.
    """

    def __init__(self, text: str) -> None:
        """Parse `text`.  Raises ValueError if it is not JSON, or not an object."""
        self.text = text
        self._value: Any = fastjson.loads(text)
        if not isinstance(self._value, dict):
            raise ValueError("it is not an object")

    def get(self, *path: "Key") -> "Any":
        """Return the value at a path, which must not be changed; None if there is none."""
        if self._value is None:
            self._value = fastjson.loads(self.text)
        value = self._value
        for key in path:
            if isinstance(value, dict) and isinstance(key, str):
                value = value.get(key)
            elif isinstance(value, list) and isinstance(key, int) and key < len(value):
                value = value[key]
            else:
                return None
        return value

    def set(self, value: "Any", *path: "Key") -> None:
        """Replace the value at a path, or add it behind all others of its object or list."""
        *parent, key = path
        container = self._start(parent)
        items = list(_items(self.text, container))
        for item in reversed(items):
            if item.key == key:
                self._replace(item.value, item.end, self._layout(value, self._margin(item.value)))
                return
        name = f"{fastjson.dumps(key)}: " if isinstance(key, str) else ""
        if items:
            last = items[-1]
            gap = self.text[last.gap : last.start]  # the new one is set off like the last one
            margin = gap.rpartition("\n")[2] if "\n" in gap else None
            self._replace(last.end, last.end, f",{gap}{name}{self._layout(value, margin)}")
            return
        margin = self._margin(container)
        if margin is None:
            inner = f"{name}{self._layout(value, None)}"
        else:
            below = margin + self._indent
            inner = f"\n{below}{name}{self._layout(value, below)}\n{margin}"
        self._replace(container + 1, _end(self.text, container) - 1, inner)

    def append(self, value: "Any", *path: "Key") -> None:
        """Append a value to the list at a path."""
        self.set(value, *path, len(self.get(*path)))

    def remove(self, *path: "Key") -> None:
        """Remove the value at a path."""
        *parent, key = path
        container = self._start(parent)
        items = list(_items(self.text, container))
        number = max(number for number, item in enumerate(items) if item.key == key)
        if number:  # together with the comma in front
            self._replace(items[number - 1].end, items[number].end, "")
        elif len(items) > 1:
            self._replace(items[0].start, items[1].start, "")
        else:
            self._replace(container + 1, _end(self.text, container) - 1, "")

    def _start(self, path: "list[Key]") -> int:
        at = _skip(self.text, 0)
        for key in path:
            at = [item.value for item in _items(self.text, at) if item.key == key][-1]
        return at

    def _replace(self, start: int, end: int, text: str) -> None:
        self.text = self.text[:start] + text + self.text[end:]
        self._value = None

    # Layout

    @property
    def _indent(self) -> str:
        """The indentation of each level; empty if all is on one line."""
        start = _skip(self.text, 0) + 1
        return self.text[start : _skip(self.text, start)].rpartition("\n")[2]

    def _margin(self, at: int) -> "str | None":
        """Return the white space before the line with this place; None if all is on one line."""
        if not self._indent:
            return None
        start = self.text.rfind("\n", 0, at) + 1
        return self.text[start : _skip(self.text, start)]

    def _layout(self, value: "Any", margin: "str | None") -> str:
        if margin is None:
            return fastjson.dumps(value)
        first, *lines = fastjson.dumps(value, indent=1).split("\n")
        inner = [line.lstrip(" ") for line in lines]
        levels = [len(line) - len(stripped) for line, stripped in zip(lines, inner, strict=True)]
        indented = [margin + self._indent * level + line for level, line in zip(levels, inner, strict=True)]
        return "\n".join([first, *indented])


class _Item:
    """One member of an object or list: where its text starts and ends, and the white space before it."""

    __slots__ = ("end", "gap", "key", "start", "value")

    def __init__(self, key: "Key", gap: int, start: int, value: int, end: int) -> None:
        self.key = key
        self.gap = gap
        self.start = start  # of its key, in an object
        self.value = value
        self.end = end


def _items(text: str, container: int) -> "Iterator[_Item]":
    gap = container + 1
    at = _skip(text, gap)
    number = 0
    while text[at] not in "}]":
        start = at
        key: Key = number
        if text[container] == "{":
            key, at = fastjson.scan(text, at)
            at = _skip(text, _skip(text, at) + 1)  # past the colon
        end = _end(text, at)
        yield _Item(key, gap, start, at, end)
        number += 1
        at = _skip(text, end)
        if text[at] == ",":
            gap = at + 1
            at = _skip(text, gap)


def _end(text: str, at: int) -> int:
    end: int = fastjson.scan(text, at)[1]
    return end


def _skip(text: str, at: int) -> int:
    while text[at] in _WHITE:
        at += 1
    return at
