# SPDX-License-Identifier: Apache-2.0
"""
The syntax of --emulate and of the annotation cnihook.emulate.

    delay=80ms,jitter=5ms,loss=1%,in-rate=1M

A key alone is for what the container sends, as with `tc` on its interface; with "in-", for what it receives.
"""

from cnihook.links.shaping import EMULATED, check_emulated
from cnihook.request.values import number_text, parse_rate, refuse
from cnihook.types.config import NetConf
from cnihook.types.names import shown

_TIMES = {"us": 1, "ms": 1000, "s": 1_000_000}  # microseconds
_FORMS = {"delay": "TIME", "jitter": "TIME", "rate": "RATE"}
_MOST = {field.name: field.high for field in EMULATED[0].fields}
_KEYS = tuple(_MOST)


def parse(text: str) -> "dict[str, dict[str, int]]":
    """Parse KEY=VALUE,... into the capability `emulate`.  Raises CniError."""
    what = f"emulate {shown(text)}"
    emulated: dict[str, dict[str, int]] = {}
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        name = key.removeprefix("in-")
        if not equals or name not in _KEYS:
            raise refuse(what, f"{part.strip()!r}", f"it takes {_listed()}, each also with in- before it")
        direction = "egress" if name == key else "ingress"
        emulated.setdefault(direction, {})[name] = _number(name, value, what)
    check_emulated(NetConf(emulated, what))
    return emulated


def to_text(emulated: "dict[str, dict[str, int]]") -> str:
    """Return the value of --emulate for this capability."""
    return ",".join(
        f"{prefix}{name}={_text(name, effects[name])}"
        for prefix, effects in (("", emulated.get("egress", {})), ("in-", emulated.get("ingress", {})))
        for name in _KEYS
        if name in effects
    )


def _text(name: str, number: int) -> str:
    if name == "rate":
        return number_text(number)
    if name not in _FORMS:
        return f"{number / 10_000:g}%"
    unit = next(unit for unit in ("s", "ms", "us") if number % _TIMES[unit] == 0)
    return f"{number // _TIMES[unit]}{unit}"


def _listed() -> str:
    return ", ".join(f"{key}={_FORMS.get(key, 'SHARE')}" for key in _KEYS)


def _number(name: str, value: str, what: str) -> int:
    if name == "rate":
        return parse_rate(value, what)
    if name in _FORMS:
        unit = next((unit for unit in ("us", "ms", "s") if value.endswith(unit)), "")
        number = _decimal(value.removesuffix(unit), _TIMES[unit]) if unit else None
        if number is None:
            raise refuse(what, f"{value!r} is not a time", "such as 80ms, 1.5s or 500us")
    else:
        number = _decimal(value.removesuffix("%"), 10_000) if value.endswith("%") else None
        if number is None:
            raise refuse(what, f"{value!r} is not a share", "such as 1% or 0.5%, of all packets")
    if number > _MOST[name]:
        raise refuse(what, f"{name} of {value}: {_text(name, _MOST[name])} is the most")
    return number


def _decimal(text: str, unit: int) -> "int | None":
    """Return a number, possibly with decimals, times `unit`; None if it is malformed."""
    whole, _point, decimals = text.partition(".")
    digits = whole + decimals
    if not (whole and digits.isascii() and digits.isdigit() and len(digits) <= 12):
        return None
    return int(int(digits) * unit // 10 ** len(decimals))
