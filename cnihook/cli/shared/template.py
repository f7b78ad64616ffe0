# SPDX-License-Identifier: Apache-2.0
"""The templates of --format: fields in Go's form, as docker has them, or in Python's form.

json                          each item as a line of JSON
{{.Container}}\\t{{.Ports}}     the fields of docker's templates, without functions except json
{{.IPAM.Driver}}              a field of a field
table {{.Container}}\\t{{.Age}} the same as a table with a head
{container:>12} {ports}       Python's replacement fields
"""

import json
import re
import string
from collections.abc import Iterable, Sequence

from cnihook.cli.shared import table
from cnihook.cli.shared.table import Cell, Column
from cnihook.fast import similar
from cnihook.fast.errors_text import printable
from cnihook.types.errors import invalid_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Item = dict[str, Any]

HELP = """\
TEMPLATE is `json`, for a line of JSON each; or fields of docker's templates, as in
'{{.Container}}\\t{{.Ports}}', with `table` in front for a table with a head; or names in single braces,
as in '{container:>12} {ports}'.  \\t and \\n are a tab and a new line.  Go's functions are not supported,
except `{{json .Ports}}`.
"""

_TABLE = "table "
_FIELD = re.compile(r"\{\{\s*(json\s+)?\.((?:\w+(?:\.\w+)*)?)\s*\}\}")


def show(text: str, items: "Sequence[Item]") -> None:
    """Print items, which have the same names, by a template.  Raises CniError."""
    try:
        Template(text, [*items[0]] if items else None).print(items)
    except ValueError as error:
        raise invalid_config(f"--format: {error}") from None


class Template:
    """A template for items with these names; None: any.  Raises ValueError for one that is malformed."""

    def __init__(self, text: str, names: "Sequence[str] | None") -> None:
        self._is_table = text.startswith(_TABLE)
        self._text = text.removeprefix(_TABLE).replace("\\t", "\t").replace("\\n", "\n")
        self._is_json = text == "json"
        self._is_go = self._is_table or "{{" in text
        if self._is_json:
            return
        if self._is_go:
            self._check_go(names)
            return
        for _, name, spec, _ in string.Formatter().parse(self._text):
            if name is not None:
                _check(name, f"{{{name}}}", names)
            format("", spec or "")

    def _check_go(self, names: "Sequence[str] | None") -> None:
        rest = _FIELD.sub("", self._text)
        if "{{" in rest or "}}" in rest:
            raise ValueError("between {{ and }} there may be .NAME, json .NAME or json . only")
        for as_json, name in _FIELD.findall(self._text):
            if name or not as_json:
                _check(name.partition(".")[0], f"{{{{.{name}}}}}", names)

    def print(self, items: "Iterable[Item]") -> None:
        if self._is_table:
            columns = [Column(_FIELD.sub(lambda field: _title(field[2]), part)) for part in self._parts()]
            table.show(columns, [[Cell(_replaced(part, one)) for part in self._parts()] for one in items])
            return
        for one in items:
            if self._is_json:
                print(_json(one))
            elif self._is_go:
                print(_replaced(self._text, one))
            else:
                print(self._text.format_map({name: _text(value) for name, value in one.items()}))

    def _parts(self) -> "list[str]":
        return self._text.split("\t")


def _check(name: str, written: str, names: "Sequence[str] | None") -> None:
    if names is not None and not {name, name.lower()} & {*names}:
        raise ValueError(f"no {written}; {similar.hint(name, names)}")


def _title(path: str) -> str:
    """Return the title of a column: IPAM DRIVER for .IPAMDriver, DRIVER for .IPAM.Driver."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", path.rpartition(".")[2]).upper()


def _replaced(text: str, one: "Item") -> str:
    def value(field: "re.Match[str]") -> str:
        whole: Any = one
        for name in filter(None, field[2].split(".")):
            keys = [*whole] if isinstance(whole, dict) else []
            key = name if name in keys else name.lower()  # docker's names have capitals
            if key not in keys:
                raise ValueError(f"no {{{{.{field[2]}}}}}; {similar.hint(name, keys)}")
            whole = whole[key]
        if field[1]:
            return _json(whole)
        return str(whole).lower() if isinstance(whole, bool) else _text(whole)

    return _FIELD.sub(value, text)


def _json(value: object) -> str:
    return json.dumps(value).replace("\x7f", "\\u007f")


def _text(value: object) -> str:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return printable(",".join(value))
    if isinstance(value, dict | list):
        return _json(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else printable(str(value))
