# SPDX-License-Identifier: Apache-2.0
"""
Templates of Go, as far as docker's and podman's users write them for --format.

    {{.Name}}  {{.IPAM.Driver}}  {{json .Containers}}  {{json .}}  table {{.Name}}\\t{{.Driver}}

`table` prints a heading.  Outside of braces, \\t and \\n are a tab and a new line.
"""

import re
from collections.abc import Sequence

from cnihook.cli.shared import table
from cnihook.cli.shared.arguments import as_json
from cnihook.cli.shared.table import Cell, Column
from cnihook.fast.errors_text import printable
from cnihook.types.errors import invalid_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ACTION = re.compile(r"\{\{(.*?)\}\}", re.S)
_FIELD = re.compile(r"\s*(json\s+)?\.((?:\w+(?:\.\w+)*)?)\s*")
_TABLE = "table "


def show(template: str, objects: "Sequence[dict[str, Any]]") -> None:
    """Print each object by a template.  Raises CniError for what it cannot express or does not have."""
    if template.startswith(_TABLE):
        columns = template.removeprefix(_TABLE).replace("\\t", "\t").split("\t")
        titles = [_ACTION.sub(lambda match: _title(match[1]), column) for column in columns]
        rows = [[Cell(_expand(column, one)) for column in columns] for one in objects]
        table.show([Column(title) for title in titles], rows)
        return
    for one in objects:
        print(_expand(template.replace("\\t", "\t").replace("\\n", "\n"), one))


def _title(action: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", action.strip().rpartition(".")[2]).upper()


def _expand(template: str, value: "dict[str, Any]") -> str:
    return _ACTION.sub(lambda match: _action(match[1], value), template)


def _action(action: str, value: "Any") -> str:
    field = _FIELD.fullmatch(action)
    if not field:
        raise invalid_config(
            f"--format: {{{{{action}}}}} is not known",
            "there are {{.Name}}, {{.Name.Name}} and {{json .Name}}",
        )
    for name in filter(None, field[2].split(".")):
        if not isinstance(value, dict) or name not in value:
            names = ", ".join(f".{key}" for key in value) if isinstance(value, dict) else "none"
            raise invalid_config(f"--format: there is no .{name}", f"there are: {names}")
        value = value[name]
    if field[1] or isinstance(value, dict | list):
        return as_json(value, None)
    if isinstance(value, bool):
        return str(value).lower()
    return printable(str(value))
