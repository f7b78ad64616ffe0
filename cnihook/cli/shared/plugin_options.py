# SPDX-License-Identifier: Apache-2.0
"""The options of the built-in plugins as Markdown, from what the plugins declare."""

from collections.abc import Iterator

from cnihook.fast.address import Address, IPNet
from cnihook.protocol import invoke
from cnihook.types.fields import MOST, Field, Traits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.types.fields import Fields

_TITLES = {
    "interface": "Interfaces", "loopback": "Interfaces", "ipam": "Addresses", "chained": "Chained plugins",
}  # fmt: skip
_NAMES = {
    bool: "boolean", int: "integer", str: "string", dict: "object", Address: "IP address",
    IPNet: "ADDRESS/PREFIX",
}  # fmt: skip
_PLURALS = {
    bool: "booleans", str: "strings", dict: "objects", list: "lists of objects", Address: "IP addresses",
    IPNet: "ADDRESS/PREFIX",
}  # fmt: skip
# What a plugin takes without a capability, and the key of CNI_ARGS for it.
_CNI_ARGS = {"ips": "IP", "mac": "MAC"}


def sections() -> str:
    """Return the sections of all plugins, for pages/plugin-options.md."""
    types: dict[str, list[str]] = {title: [] for title in _TITLES.values()}
    for plugin_type in invoke.built_in_types():
        types[_TITLES[invoke.traits(plugin_type).kind]].append(plugin_type)
    parts = []
    for title, names in types.items():
        parts.append(f"## {title}\n")
        parts += (f"### {name}\n\n{_text(name)}" for name in names)
    return "\n".join(parts)


def page_of(plugin_type: str) -> str:
    """Return the page of one plugin, for `cnihook man`."""
    return f"# {plugin_type}\n\n{_text(plugin_type)}"


def purpose(plugin_type: str) -> str:
    """Return what a plugin does, in one line: the beginning of its module's docstring."""
    first = (invoke.load(plugin_type).__doc__ or "").strip().split("\n\n")[0]
    text = " ".join(first.split()).removeprefix(plugin_type).lstrip(": ").rstrip(".")
    return text[1:].replace("):", ":", 1) if text.startswith("(") else text  # "sbr (its full name): ..."


def _text(plugin_type: str) -> str:
    fields, traits = invoke.fields(plugin_type), invoke.traits(plugin_type)
    text = purpose(plugin_type)
    parts = [f"{text[0].upper()}{text[1:]}.\n"]
    if traits.kind == "ipam":
        parts.append(f'These are keys of `ipam`, whose `type` is "{plugin_type}".\n')
    if fields:
        parts.append(
            _table(("key", "type", "default", "meaning"), map(_row, *zip(*_paths(fields), strict=True)))
        )
    else:
        parts.append("It has no options.\n")
    if passed := list(_passed(traits)):
        parts.append(_table(("request for one container", "type", "from", "meaning"), iter(passed)))
    return "\n".join(parts)


def _table(header: "tuple[str, ...]", rows: "Iterator[tuple[str, ...]]") -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "".join(
        f"| {' | '.join(cells)} |\n".replace("| --- ", "|---").replace("|  |", "| |") for cells in lines
    )


def _paths(fields: "Fields", above: str = "") -> "Iterator[tuple[str, Field]]":
    """Yield each field with its place: `routes[].dst`."""
    for field in fields:
        path = f"{above}{field.name}"
        yield path, field
        brackets = "" if field.type is not list else "[][]" if field.of is list else "[]"
        yield from _paths(field.fields, f"{path}{brackets}.")


def _row(path: str, field: Field) -> "tuple[str, ...]":
    return f"`{path}`", type_name(field), _default(field), field.doc


def type_name(field: Field) -> str:
    if field.choices:
        return ", ".join(f"`{choice}`" for choice in field.choices)
    if field.of:
        return f"{'list' if field.type is list else 'object'} of {_PLURALS[field.of]}"
    name = _NAMES[field.type]
    if field.type is int and field.high < MOST:
        return f"{name}, {field.low} to {field.high}"
    return name


def _default(field: Field) -> str:
    if field.required:
        return "required"
    if field.default in (None, ""):
        return ""
    return f"`{str(field.default).lower() if field.type is bool else field.default}`"


def _passed(traits: Traits) -> "Iterator[tuple[str, ...]]":
    """Yield what the plugin takes for one container, with the places where it may be."""
    args = {field.name: field for field in traits.args}
    for name, field in {field.name: field for field in (*traits.capabilities, *traits.args)}.items():
        places = ["capability"] if any(one.name == name for one in traits.capabilities) else []
        places += ["`args.cni`"] if name in args else []
        places += [f"`CNI_ARGS` {_CNI_ARGS[name]}"] if name in traits.takes else []
        for path, inner in _paths([field]):
            yield f"`{path}`", type_name(inner), ", ".join(places), inner.doc
