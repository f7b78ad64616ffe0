# SPDX-License-Identifier: Apache-2.0
"""
Policies as TOML, with the same keys as in JSON.

    /run/cnihook/policy-toml/web.json   {"stamp": [...], "policy": {...}}, of /etc/cnihook/policy.d/web.toml

A start reads the second file, because the import of tomllib takes 10 ms.  `stamp` shows if
the first has changed since; then the start reads that one.
"""

import os

from cnihook.fast import fastjson, statefile
from cnihook.types.errors import invalid_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENDING = ".toml"
_FOLDER = "/run/cnihook/policy-toml"


def decode(text: bytes, where: str) -> "dict[str, Any]":
    """Return the value of a text as JSON would have it.  Raises CniError."""
    import tomllib

    try:
        raw = tomllib.loads(text.decode())
    except ValueError as error:
        raise invalid_config(f"{where}: is not TOML: {error}") from None
    except RecursionError:
        raise invalid_config(f"{where}: is nested too deeply") from None
    _check(raw, where)
    return raw


def _check(value: "Any", where: str) -> None:
    if isinstance(value, dict):
        for key, each in value.items():
            _check(each, f"{where}: {key}")
    elif isinstance(value, list):
        for each in value:
            _check(each, where)
    elif not isinstance(value, (str, int, float)):
        raise invalid_config(f"{where}: a date or a time is not a value of a policy")


def stamp_of(path: str) -> "list[int]":
    """Return what changes with a file.  Raises OSError."""
    status = os.stat(path)
    return [status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino]


def load(path: str, stamp: "list[int]") -> "dict[str, Any] | None":
    """Return the value of a file that has not changed since store(); None if there is none."""
    try:
        stored = fastjson.loads((statefile.read(_stored(path)) or b"").decode())
        policy = stored["policy"] if stored["stamp"] == stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return policy if isinstance(policy, dict) else None


def store(path: str, stamp: "list[int]", policy: "dict[str, Any]") -> None:
    """Keep the value of a file for the next start, if that is possible."""
    text = fastjson.dumps({"stamp": stamp, "policy": policy})
    try:
        os.makedirs(_FOLDER, mode=0o700, exist_ok=True)
        statefile.replace(_stored(path), text.encode())
    except OSError:
        pass  # the next start reads TOML, too


def forget(path: str) -> None:
    statefile.discard(_stored(path))
    try:
        os.rmdir(_FOLDER)
    except OSError:
        pass  # others are there


def _stored(path: str) -> str:
    return f"{_FOLDER}/{os.path.basename(path).removesuffix(ENDING)}.json"
