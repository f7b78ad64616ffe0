# SPDX-License-Identifier: Apache-2.0
"""The keys of a configuration, by what plugins declare, and the problems that these declarations show."""

import difflib
from collections.abc import Iterator

from cnihook.protocol import invoke
from cnihook.types.config import LenientConf, NetConf, lookup
from cnihook.types.errors import CniError
from cnihook.types.fields import Field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cnihook.types.fields import Fields

_ALIKE = 0.8  # of 1.0, the least similarity to a known key for a misspelling

KEYS_OF_A_LIST = (
    Field("cniVersion", str, doc="version of the CNI specification"),
    Field("cniVersions", list, of=str, doc="versions, of which the runtime takes the highest that it knows"),
    Field("name", str, required=True, doc="name of the network"),
    Field("plugins", list, doc="the plugins, in the order of ADD"),
    Field("disableCheck", bool, doc="CHECK always succeeds"),
    Field("disableGC", bool, doc="GC is not run"),
    Field("loadOnlyInlinedPlugins", bool, doc="ignore the plugins in the folder of the network's name"),
    Field("cnihook", dict, doc="`annotations` and `dottedAliases`: what containers may request"),
    Field("nerdctlLabels", dict, of=str, doc="labels of the network, as nerdctl keeps them"),
)
_TYPE = Field("type", str, required=True, doc="type of the plugin")
_CAPABILITIES = Field("capabilities", dict, of=bool, doc="what the runtime passes to the plugin, by name")
# Keys without a description: the runtime adds them, or a single plugin's file has them as a list has.
_PASSED = (
    *(Field(name, str) for name in ("cniVersion", "name")),
    *(Field(name, dict) for name in ("prevResult", "cnihook", "ipam", "dns")),
)


def fields_of(plugin_type: str, ipam_type: str = "") -> "tuple[Field, ...]":
    """Return the keys of a built-in plugin's object, with those of its IPAM plugin in `ipam`."""
    types = list(filter(None, (plugin_type, ipam_type)))
    args = [field for name in types for field in invoke.traits(name).args]
    cni = Field("cni", dict, fields=args, doc="read by the plugins")
    own = [
        Field(
            "ipam", dict, fields=(_TYPE, *invoke.fields(ipam_type)), required=field.required, doc=field.doc
        )
        if ipam_type and field.name == "ipam"
        else field
        for field in invoke.fields(plugin_type)
    ]
    return (_TYPE, *own, _CAPABILITIES, Field("args", dict, fields=(cni,), doc="values for one container"))


def problems(conf: NetConf, plugin_type: str, ipam_type: str) -> "list[CniError]":
    """Return the problems of one plugin's configuration; both plugins are built in."""
    types = list(filter(None, (plugin_type, ipam_type)))
    fields = fields_of(plugin_type, ipam_type)
    by_name = {field.name: field for field in fields}
    capabilities = [field for name in types for field in invoke.traits(name).capabilities]
    more = [
        Field("runtimeConfig", dict, fields=capabilities),
        *(one for one in _PASSED if one.name not in by_name),
    ]
    errors = list(misspelled(conf.raw, conf.where, (*fields, *more)))
    ipam = conf.object("ipam")
    if ipam.raw and not ipam_type and "ipam" in by_name and not by_name["ipam"].required:
        hint = 'name the IPAM plugin, or write "ipam": {} for an interface without addresses'
        errors.append(ipam.refuse("type", "is missing", hint))
    return [*errors, *_relations(LenientConf(conf.raw, conf.where), fields)]


def misspelled(value: "Any", where: str, fields: "Fields") -> "Iterator[CniError]":
    """Yield an error for each key that is none of `fields`, and that resembles one of these.

    Any other key may be another program's: the specification permits such keys.
    """
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from misspelled(item, f"{where}[{index}]", fields)
    if not isinstance(value, dict) or not fields:
        return
    own = {field.name for field in fields}
    by_name = {field.folded: field for field in fields}
    for name in by_name:
        # The plugin's spelling first, which overrides the others.
        spellings = sorted((key for key in value if key.lower() == name), key=lambda key: key not in own)
        for key in spellings[1:]:
            if key not in own:
                hint = "plugins ignore the case of a key; remove one"
                yield NetConf(value, where).refuse(key, f"is {spellings[0]} once more", hint)
    for name, inner in value.items():
        field = by_name.get(name.lower())
        if field:
            yield from misspelled(inner, f"{where}: {name}", field.fields)
            continue
        for alike in difflib.get_close_matches(name.lower(), by_name, 1, _ALIKE):
            hint = f'write "{by_name[alike].name}", if that is meant'
            yield NetConf(value, where).refuse(name, "is a key that is not read", hint)


def _relations(conf: LenientConf, fields: "Fields") -> "Iterator[CniError]":
    """Yield an error for an item that names nothing, and for addresses of different IP versions."""
    for field in fields:
        if field.like:
            value, other = field.read(conf), lookup(conf.raw, field.like)
            if value and isinstance(other, str) and (":" in other) != (value.version == 6):
                problem = f"is wrong: {value} is not of the IP version of {field.like}, {other}"
                yield conf.refuse(field.name, problem)
        if field.fields and conf.has(field.name):
            for place, item in _objects(lookup(conf.raw, field.name), field.name):
                inner = LenientConf(item, f"{conf.where}: {place}")
                if not any(inner.has(each.name) or each.required for each in field.fields):
                    if field.type is list:
                        names = ", ".join(each.name for each in field.fields)
                        yield conf.refuse(place, "has none of its keys", f"it takes {names}")
                yield from _relations(inner, field.fields)


def _objects(value: "Any", place: str) -> "Iterator[tuple[str, dict[str, Any]]]":
    """Yield each object of a value, also of lists in it, with its place."""
    if isinstance(value, dict):
        yield place, value
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _objects(item, f"{place}[{index}]")
