# SPDX-License-Identifier: Apache-2.0
"""
JSON Schemas (draft 2020-12) of networks and of plugins' options, from what the plugins declare.

They are for editors: types, bounds and descriptions while one writes.  `cnihook validate` checks more, such
as options that exclude each other.  A schema cannot say that the case of a key does not matter.
"""

from cnihook.cli.shared import declared
from cnihook.fast.address import Address, IPNet
from cnihook.protocol import invoke
from cnihook.types import versions
from cnihook.types.fields import MOST, Field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cnihook.types.fields import Fields

    Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_JSON_TYPES = {bool: "boolean", int: "integer", str: "string", dict: "object", list: "array"}
_PATTERNS = {Address: r"^[0-9A-Fa-f:.]+$", IPNet: r"^[0-9A-Fa-f:.]+/[0-9]{1,3}$"}


def of_network() -> "Schema":
    """Return the schema of a network's file: a list of plugins, or a single plugin."""
    keys = _properties(declared.KEYS_OF_A_LIST)
    keys["cniVersion"]["enum"] = list(versions.ALL)
    keys["plugins"] |= {"items": {"$ref": "#/$defs/plugin"}, "minItems": 1}
    types = [name for name in invoke.built_in_types() if invoke.traits(name).kind != "ipam"]
    plugin: Schema = {"type": "object", "required": ["type"], "properties": {"type": _type(types)}}
    plugin["allOf"] = _by_type(types)
    return {
        "$schema": DIALECT,
        "title": "CNI network",
        "type": "object",
        "required": ["name"],
        "properties": {name: keys[name] for name in ("cniVersion", "cniVersions", "name", "cnihook")},
        "if": {"required": ["plugins"]},
        "then": {"properties": keys},
        "else": {"$ref": "#/$defs/plugin"},
        "$defs": {"plugin": plugin, **{name: _plugin(name) for name in invoke.built_in_types()}},
    }


def of_plugin(plugin_type: str) -> "Schema":
    """Return the schema of a plugin's object; that of `ipam` for an IPAM plugin."""
    schema: Schema = {"$schema": DIALECT, "title": f"CNI plugin {plugin_type}", **_plugin(plugin_type)}
    if "ipam" in schema["properties"]:
        schema["$defs"] = {name: _plugin(name) for name in _ipam_types()}
    return schema


def _plugin(plugin_type: str) -> "Schema":
    schema = _object(declared.fields_of(plugin_type))
    schema["properties"]["type"]["const"] = plugin_type
    if invoke.traits(plugin_type).kind == "ipam":
        del schema["properties"]["args"], schema["properties"]["capabilities"]
    ipam = schema["properties"].get("ipam")
    if ipam:
        ipam["properties"]["type"] |= _type(_ipam_types())
        ipam["allOf"] = _by_type(_ipam_types())
        if "ipam" not in schema.get("required", ()):
            del ipam["required"]
            ipam |= {"if": {"minProperties": 1}, "then": {"required": ["type"]}}
    return schema


def _ipam_types() -> "list[str]":
    return [name for name in invoke.built_in_types() if invoke.traits(name).kind == "ipam"]


def _type(types: "list[str]") -> "Schema":
    """Return the schema of a plugin's type: any name, because an executable may have it."""
    return {"type": "string", "examples": types}


def _by_type(types: "list[str]") -> "list[Schema]":
    return [
        {
            "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
            "then": {"$ref": f"#/$defs/{name}"},
        }
        for name in types
    ]


def _object(fields: "Fields") -> "Schema":
    schema: Schema = {"type": "object", "properties": _properties(fields)}
    if required := [field.name for field in fields if field.required]:
        schema["required"] = required
    return schema


def _properties(fields: "Fields") -> "dict[str, Schema]":
    return {field.name: _schema(field) for field in fields}


def _schema(field: Field) -> "Schema":
    schema = _value(field.type)
    if field.fields and field.type is dict:
        schema = _object(field.fields)
    elif field.of and field.type is dict:
        schema["additionalProperties"] = _value(field.of)
    elif field.of:
        items = _object(field.fields) if field.fields else _value(field.of)
        schema["items"] = {"type": "array", "items": items, "minItems": 1} if field.of is list else items
    elif field.type is int:
        schema["minimum"] = field.low
        if field.high < MOST:
            schema["maximum"] = field.high
    if field.choices:
        schema["enum"] = list(field.choices)
    if field.doc:
        schema["description"] = field.doc
    if field.default not in (None, ""):
        schema["default"] = field.default
    return schema


def _value(kind: type) -> "Schema":
    if kind in _PATTERNS:
        return {"type": "string", "pattern": _PATTERNS[kind]}
    return {"type": _JSON_TYPES[kind]}
