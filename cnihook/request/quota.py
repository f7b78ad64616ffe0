# SPDX-License-Identifier: Apache-2.0
"""
The syntax of --quota and of the annotation cnihook.quota, in bytes:

    out=10G,in=50G,total=55G
    out=unlimited             nothing is limited, but the bytes are counted
"""

from cnihook.request.values import number_text, parse_number, refuse
from cnihook.types.fields import MOST
from cnihook.types.names import shown

_UNLIMITED = "unlimited"
_KEYS = {"out": "egress", "in": "ingress", "total": "total"}


def parse(text: str) -> "dict[str, int]":
    """Parse KEY=BYTES,... into the capability `quota`.  Raises CniError."""
    what = f"quota {shown(text)}"
    limits = {}
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        if not equals or key not in _KEYS:
            raise refuse(what, f"{part.strip()!r}", "it takes out=BYTES, in=BYTES and total=BYTES")
        number = MOST if value == _UNLIMITED else parse_number(value)
        if not 0 < number <= MOST:
            raise refuse(what, f"{value!r} is not a size", "such as 500M, 10G or 1T, in bytes, or unlimited")
        limits[_KEYS[key]] = number
    return limits


def to_text(limits: "dict[str, int]") -> str:
    """Return the value of --quota for these limits."""
    return ",".join(f"{key}={_text(limits[kind])}" for key, kind in _KEYS.items() if limits.get(kind))


def _text(limit: int) -> str:
    return _UNLIMITED if limit == MOST else number_text(limit)
