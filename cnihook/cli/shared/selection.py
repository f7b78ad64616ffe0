# SPDX-License-Identifier: Apache-2.0
"""The options --filter, --sort and --reverse of commands that list attachments."""

import argparse
from collections.abc import Sequence
from fnmatch import fnmatchcase

from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.listing import Row
from cnihook.fast import similar
from cnihook.fast.natural import natural

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HELP = """\
--filter takes a name and a value, which may contain * and ?.  Values of the same name are alternatives.
An address matches without its length, too, and a published port by the number on the host.
"""


def add_arguments(parser: Parser, names: "Sequence[str]") -> None:
    """Add the options.  `names`: the keys of Row.to_json() that they take."""

    def condition(text: str) -> "tuple[str, str]":
        name, equals, pattern = text.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
        return key(name), pattern

    def key(name: str) -> str:
        if name not in names:
            raise argparse.ArgumentTypeError(f"no {name!r}; {similar.hint(name, names)}")
        return name

    parser.add_argument(
        "-f",
        "--filter",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        type=condition,
        help="list only what has this value, repeatable",
    )
    parser.add_argument(
        "--sort", metavar="NAME", type=key, help="sort by this value (default: by container, as attached)"
    )
    parser.add_argument("--reverse", action="store_true", help="reverse the order")


def select(options: argparse.Namespace, listed: "Sequence[Row]") -> "list[Row]":
    """Return what the options select, in their order."""
    patterns: dict[str, list[str]] = {}
    for name, pattern in options.filter:
        patterns.setdefault(name, []).append(pattern)
    selected = [one for one in listed if not patterns or _matches(one.to_json(), patterns)]
    if options.sort:
        selected.sort(key=lambda one: _order(one.to_json()[options.sort]))
    return selected[::-1] if options.reverse else selected


def _matches(one: "dict[str, Any]", patterns: "dict[str, list[str]]") -> bool:
    return all(
        any(fnmatchcase(text, pattern) for text in _forms(one[name]) for pattern in alternatives)
        for name, alternatives in patterns.items()
    )


def _forms(value: object) -> "list[str]":
    """Return the texts by which a value can be selected."""
    if isinstance(value, bool):
        return ["yes", "true"] if value else ["no", "false"]
    if isinstance(value, list):
        forms = []
        for item in map(str, value):
            host = item.partition("->")[0]
            forms += [item, item.partition("/")[0], host, host.rpartition(":")[2]]
        return forms or [""]
    return ["" if value is None else str(value)]


def _order(value: object) -> "tuple[bool, float, Any]":
    if isinstance(value, (int, float)):
        return True, value, []
    text = ",".join(value) if isinstance(value, list) else str(value or "")
    return bool(text), 0, natural(text)
