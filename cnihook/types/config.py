# SPDX-License-Identifier: Apache-2.0
"""
The typed reader of a plugin's configuration.

It gives every key its type, default and range, and raises errors that name the key.
"""

from cnihook.fast.address import Address, IPNet
from cnihook.types.errors import CniError, KeyRefusedError, KeyRepeatedError
from cnihook.types.names import is_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins
    from collections.abc import Sequence
    from typing import Any

_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
}


def json_name(value: object) -> str:
    """Return the JSON name of the type of a value."""
    return _NAMES.get(type(value), "null")


def is_json(value: object, kind: type) -> bool:
    """Return True if a value that was read from JSON is of this type."""
    # not isinstance for others: true is an int to Python, not to JSON
    return type(value) is kind or (kind is dict and isinstance(value, dict))


def lookup(raw: "dict[str, Any]", key: str) -> "Any":
    """Return raw[key], or the last key that differs in case only: Go takes both, and users rely on it."""
    if key in raw:
        return raw[key]
    folded = key.lower()
    last = None
    for name, value in raw.items():
        if name.lower() == folded:
            last = value
    return last


class NetConf:
    """One JSON object of a configuration.

    A key that is absent or null has its default.  Every reader raises CniError with code 7 for a wrong
    value.  `where` names the place of the object in that error: "web.conflist: plugins[1] (portmap)".
    """

    __slots__ = ("raw", "where")
    is_lenient = False  # True if a wrong value counts as absent

    def __init__(self, raw: "dict[str, Any]", where: str = "") -> None:
        self.raw = raw
        self.where = where

    def refuse(self, key: str, problem: str, details: str = "") -> CniError:
        prefix = f"{self.where}: " if self.where else ""
        shown = key if key.isprintable() else repr(key)[1:-1]
        return KeyRefusedError(f'{prefix}"{shown}" {problem}', details, self.raw, key)

    def refuse_repeated(self, key: str) -> CniError:
        error = self.refuse(key, "is there more than once")
        return KeyRepeatedError(error.msg, "remove all but one", self.raw, key)

    def has(self, key: str) -> bool:
        return lookup(self.raw, key) is not None

    def names(self, key: str) -> bool:
        """Return True if the key is present; null counts, because Go writes it for an empty list."""
        return key in self.raw or key.lower() in map(str.lower, self.raw)

    def _typed(self, key: str, kind: type, default: "Any") -> "Any":
        value = lookup(self.raw, key)
        if value is None:
            return default
        if not is_json(value, kind):
            raise self.refuse(key, f"must be {_NAMES[kind]}, not {json_name(value)}")
        return value

    def string(self, key: str, *, default: str = "", choices: "Sequence[str]" = ()) -> str:
        value: str = self._typed(key, str, default)
        if not is_text(value):
            raise self.refuse(key, f"is not text: {value!r}")
        if choices and value not in choices:
            raise self.refuse(key, f"must be one of {', '.join(choices)}, not {value!r}")
        return value

    def boolean(self, key: str, *, default: bool = False) -> bool:
        value: bool = self._typed(key, bool, default)
        return value

    def loose_boolean(self, key: str) -> bool:
        """Return a boolean, which may also be a string.

        Version 0.4.0 of the specification had disableCheck as a string.
        """
        value = lookup(self.raw, key)
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if value is None or isinstance(value, bool):
            return bool(value)
        raise self.refuse(key, f"must be true or false, not {value!r}")

    def integer(self, key: str, *, default: int, low: int, high: int) -> int:
        value: int = self._typed(key, int, default)
        if not low <= value <= high:
            raise self.refuse(key, f"must be between {low} and {high}, not {value}")
        return value

    def object(self, key: str) -> "NetConf":
        """Return the object under `key`; an empty one if there is none."""
        return type(self)(self._typed(key, dict, {}), f"{self.where}: {key}" if self.where else key)

    def objects(self, key: str) -> "builtins.list[NetConf]":
        confs = []
        for index, item in enumerate(self._typed(key, list, [])):
            if not isinstance(item, dict):
                raise self.refuse(f"{key}[{index}]", f"must be an object, not {json_name(item)}")
            confs.append(
                type(self)(item, f"{self.where}: {key}[{index}]" if self.where else f"{key}[{index}]")
            )
        return confs

    def list(self, key: str) -> "builtins.list[Any]":
        value: builtins.list[Any] = self._typed(key, list, [])
        return value

    def strings(self, key: str) -> "builtins.list[str]":
        values = self.list(key)
        for index, value in enumerate(values):
            if not isinstance(value, str):
                raise self.refuse(f"{key}[{index}]", f"must be a string, not {json_name(value)}")
            if not is_text(value):
                raise self.refuse(f"{key}[{index}]", f"is not text: {value!r}")
        return values

    def address(self, key: str) -> "Address | None":
        value = self.string(key)
        try:
            return Address.parse(value) if value else None
        except ValueError as error:
            raise self.refuse(key, f"is wrong: {error}") from None

    def network(self, key: str) -> "IPNet | None":
        value = self.string(key)
        try:
            return IPNet.parse(value) if value else None
        except ValueError as error:
            raise self.refuse(key, f"is wrong: {error}") from None


class LenientConf(NetConf):
    """A configuration as a DEL reads it: a wrong value counts as absent.

    An ADD that was refused because of such a value must be undone all the same, with the plugins before it.
    """

    __slots__ = ()
    is_lenient = True

    def _typed(self, key: str, kind: type, default: "Any") -> "Any":
        value = lookup(self.raw, key)
        return value if is_json(value, kind) else default

    def string(self, key: str, *, default: str = "", choices: "Sequence[str]" = ()) -> str:
        try:
            return super().string(key, default=default, choices=choices)
        except CniError:
            return default

    def loose_boolean(self, key: str) -> bool:
        try:
            return super().loose_boolean(key)
        except CniError:
            return False

    def integer(self, key: str, *, default: int, low: int, high: int) -> int:
        try:
            return super().integer(key, default=default, low=low, high=high)
        except CniError:
            return default

    def objects(self, key: str) -> "builtins.list[NetConf]":
        return [type(self)(item, self.where) for item in self.list(key) if isinstance(item, dict)]

    def strings(self, key: str) -> "builtins.list[str]":
        return [item for item in self.list(key) if isinstance(item, str) and is_text(item)]

    def address(self, key: str) -> "Address | None":
        try:
            return super().address(key)
        except CniError:
            return None

    def network(self, key: str) -> "IPNet | None":
        try:
            return super().network(key)
        except CniError:
            return None
