# SPDX-License-Identifier: Apache-2.0
"""
JSON without `import json`, which costs 7 ms for its Python layer and the modules behind it.

CPython's scanner is in C and can be imported alone (0.2 ms).  Text that it rejects is parsed again by json
itself, which is slower, but reports what is wrong and where.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _no_constant(name: str) -> "Any":
    raise ValueError(f"{name} is not a JSON value")  # Python's parser would accept NaN and Infinity


def _number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large for a number")
    return value


def _integer(text: str) -> int:
    """Parse an integer for an error message: Python's own names a function of Python."""
    if len(text) > 4300:  # as many digits as int() takes
        raise ValueError(f"a number of {len(text)} digits is too long")
    return int(text)


class _Context:
    """The attributes that the C scanner reads from a json.JSONDecoder."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = staticmethod(_number)
    parse_int = int
    parse_constant = staticmethod(_no_constant)
    memo: "dict[str, str]" = {}


class Repeated(dict):  # type: ignore[type-arg]  # subscripting costs at run time
    """An object in which some keys are repeated.  The last one counts, as in Go."""

    keys_repeated: "tuple[str, ...]" = ()


def repeated(value: object) -> "tuple[str, ...]":
    """Return the keys that an object has more than once, if it was read with `marks`."""
    return value.keys_repeated if isinstance(value, Repeated) else ()


def _mark(pairs: "list[tuple[str, Any]]") -> "dict[str, Any]":
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    counts = dict.fromkeys(value, 0)
    for key, _value in pairs:
        counts[key] += 1
    marked = Repeated(value)
    marked.keys_repeated = tuple(key for key, count in counts.items() if count > 1)
    return marked


class _MarkingContext(_Context):
    object_pairs_hook = staticmethod(_mark)  # type: ignore[assignment]


def loads(text: str, *, marks: bool = False) -> "Any":
    """Return the value that `text` holds.  Raises ValueError with the reason, the line and the column.

    With `marks`, repeated() returns the keys that an object has more than once.  That costs 0.2 microseconds
    for each object.
    """
    text = text.strip(" \t\r\n")
    context = _MarkingContext if marks else _Context
    try:
        from _json import make_scanner

        value, end = make_scanner(context)(text, 0)  # type: ignore[arg-type]  # its attributes are read
        if end == len(text):
            return value
    except RecursionError:
        raise ValueError("nested too deep") from None
    except (ImportError, StopIteration, ValueError, SystemError):
        pass  # SystemError: CPython 3.11 tries to raise json's own error, and json is not loaded

    import json

    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_number, parse_int=_integer)
    except RecursionError:
        raise ValueError("nested too deep") from None


def scan(text: str, at: int) -> "tuple[Any, int]":
    """Return the value that begins at this place, and where it ends, in a text that loads() has accepted."""
    try:
        from _json import make_scanner
    except ImportError:
        import json

        return json.JSONDecoder(parse_float=_number).raw_decode(text, at)
    result: tuple[Any, int] = make_scanner(_Context)(text, at)  # type: ignore[arg-type]
    return result


def dumps(value: "Any", *, indent: int = 0) -> str:
    """Return `value` as ASCII JSON: on one line, or indented as the reference prints results.

    Raises ValueError for a number that JSON has no form for, and for a value that is nested too deep.
    """
    try:
        return _dump(value, indent, 0)
    except RecursionError:
        import json  # goes as deep as loads() does

    try:
        return json.dumps(value, separators=(",", ":"))
    except RecursionError:
        raise ValueError("nested too deep") from None


def _dump(value: "Any", indent: int, level: int) -> str:
    if value is None or value is True or value is False:
        return "null" if value is None else "true" if value else "false"
    if isinstance(value, str):
        from _json import encode_basestring_ascii

        text = encode_basestring_ascii(value)
        return text.replace("\x7f", "\\u007f") if "\x7f" in text else text  # a control character, too
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"{value} has no form in JSON")
        return float.__repr__(value)

    if isinstance(value, dict):
        ends = "{}"
        colon = ": " if indent else ":"
        parts = [
            f"{_dump(str(key), 0, 0)}{colon}{_dump(item, indent, level + 1)}" for key, item in value.items()
        ]
    elif isinstance(value, (list, tuple)):
        ends = "[]"
        parts = [_dump(item, indent, level + 1) for item in value]
    else:
        raise TypeError(f"{type(value).__name__} has no form in JSON")

    if not parts or not indent:
        return ends[0] + ",".join(parts) + ends[1]
    inner = "\n" + " " * (indent * (level + 1))
    return ends[0] + inner + ("," + inner).join(parts) + "\n" + " " * (indent * level) + ends[1]
