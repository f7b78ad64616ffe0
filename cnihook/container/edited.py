# SPDX-License-Identifier: Apache-2.0
"""
Edited network files: how they differ from what containers that run were attached with.

A record holds the configuration as it was attached, or as it was changed since; the folder of networks has
the present one.  The difference between the two is a list of keys.  What the plugin declares for a key
(types/fields.py) says what the other value means for the container:

    in-place   update() of the plugin makes the change
    re-attach  it takes a detach and an attach
    new-only   a running container has no use for it: another range of addresses
    refused    it cannot be changed under a container, or another runtime attached that
"""

from functools import cached_property

from cnihook.container import own_keys
from cnihook.protocol import invoke
from cnihook.runtime import networks
from cnihook.runtime.network_map import Networks
from cnihook.runtime.networks import Network, ipam_type
from cnihook.runtime.pending import Input, network_of
from cnihook.runtime.records import Record
from cnihook.types import Value
from cnihook.types.config import NetConf, lookup
from cnihook.types.errors import CniError
from cnihook.types.fields import IN_PLACE, NEW_ONLY, REATTACH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cnihook.runtime.update import Edit
    from cnihook.types.fields import Field, Fields

    Path = tuple[str, ...]
    _Differing = tuple[Path, tuple[Any, Any], str]

REFUSED = "refused"
# Keys of a network, with the attribute that holds the value and what another value means.
_OF_NETWORK = (
    ("cniVersion", "version", REATTACH),
    ("disableCheck", "disable_check", IN_PLACE),
    ("disableGC", "disable_gc", IN_PLACE),
    ("annotations", "takes_annotations", NEW_ONLY),
    ("dottedAliases", "dotted_aliases", NEW_ONLY),
)
# Keys of a plugin that are not its options.  A single plugin's file has those of the network as well.
_NOT_OPTIONS = {"name", "cniversion", "cniversions", "disablecheck", "disablegc", "cnihook", "type"}


class Difference(Value):
    """A key whose value in the file is not the one on record.

    `index`: of the plugin in the network; -1 for a key of the network itself.  A value is None if the key
    is absent.
    """

    __slots__ = ("change", "file", "index", "path", "plugin", "record")

    def __init__(
        self, index: int, plugin: str, path: "Path", record: "Any", file: "Any", change: str
    ) -> None:
        self.index = index
        self.plugin = plugin
        self.path = path
        self.record = record
        self.file = file
        self.change = change

    @property
    def key(self) -> str:
        return ".".join((self.plugin, *self.path) if self.plugin else self.path)


def is_behind(differences: "list[Difference]") -> bool:
    """Return True if a container lacks anything that its network's file gives to a new one."""
    return any(one.change != NEW_ONLY for one in differences)


class Files:
    """The networks of a folder, beside the records of attachments to them.  They are read when needed."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    @cached_property
    def networks(self) -> Networks:
        return Networks(self._folder)

    def differences(self, record: Record) -> "list[Difference] | None":
        """Return the differences; None if the folder does not have the network, or the record is damaged."""
        network = self.networks.get(record.network)
        try:
            return None if network is None else differences(record, network)
        except CniError:
            return None

    def is_behind(self, record: Record) -> "bool | None":
        """Return the same as is_behind(); None if that cannot be determined."""
        different = self.differences(record)
        return None if different is None else is_behind(different)


def differences(record: Record, network: Network, given: "Input | None" = None) -> "list[Difference]":
    """Return the differences between a record and its network as the file has it now.

    `given`: an input that replaces that of the record.  Raises CniError if it does not hold a configuration.
    """
    own = given or Input.of(record)
    if own.config == network.text:
        return []
    compared = list(_compared(record, own, network_of(own, record), network))
    if record.process is None:
        for one in compared:
            one.change = REFUSED  # only the runtime that attached it can change it
    return compared


def edit_of(record: Record, network: Network) -> "Edit":
    """Return the edit of an attachment that makes every difference that can be made in place."""

    def edit(old: Input) -> Input:
        changes = [one for one in differences(record, network, old) if one.change == IN_PLACE]
        config = _merged(old.config, network, changes) if changes else old.config
        return Input(config, old.capability_args, old.own)

    return edit


def _compared(record: Record, given: Input, before: Network, after: Network) -> "Iterator[Difference]":
    types = [[plugin["type"] for plugin in network.plugins] for network in (before, after)]
    if types[0] != types[1]:
        yield Difference(-1, "", ("plugins",), ",".join(types[0]), ",".join(types[1]), REFUSED)
        return
    for key, attribute, change in _OF_NETWORK:
        old, new = getattr(before, attribute), getattr(after, attribute)
        if old != new:
            yield Difference(-1, "", (key,), old, new, change)
    requested = record.extra.get("requested")
    own = set(map(str, requested)) if isinstance(requested, list) else set()
    for index in range(len(before.plugins)):
        for one in _of_plugin(record, given, before, after, index):
            if f"{index}.{'.'.join(one.path)}" not in own:
                yield one


def _of_plugin(
    record: Record, given: Input, before: Network, after: Network, index: int
) -> "Iterator[Difference]":
    """Yield the differences of one plugin, whose type is the same."""
    old, new = before.plugins[index], after.plugins[index]
    plugin_type = old["type"]
    default = _Declared(plugin_type).change
    is_executable = _is_executable(plugin_type, record)

    def difference(path: "Path", values: "tuple[Any, Any]", change: str) -> Difference:
        change = change or default
        if is_executable and change != NEW_ONLY:
            # Of the chain, it can be removed and added again alone, unless it made the interface.
            change = IN_PLACE if index else REATTACH
        return Difference(index, plugin_type, path, *values, change)

    for path, values, change in _Declared(plugin_type).differing(old, new):
        yield difference(path, values, change)
    args = [NetConf(plugin).object("args").object("cni").raw for plugin in (old, new)]
    for path, values, change in _differing(invoke.traits(plugin_type).args, *args):
        yield difference(("args", "cni", *path), values, change)
    for name, values in _switched(old, new):
        changes = {field.name: field.change for field in invoke.traits(plugin_type).capabilities}
        is_used = name in given.capability_args
        yield difference(("capabilities", name), values, changes.get(name, "") if is_used else IN_PLACE)
    yield from _of_ipam(index, plugin_type, old, new)


def _switched(old: "dict[str, Any]", new: "dict[str, Any]") -> "Iterator[tuple[str, tuple[Any, Any]]]":
    """Yield the capabilities that only one of two configurations of a plugin enables."""
    capabilities = [lookup(plugin, "capabilities") or {} for plugin in (old, new)]
    for name in dict.fromkeys((*capabilities[0], *capabilities[1])):
        values = capabilities[0].get(name), capabilities[1].get(name)
        if (values[0] is True) != (values[1] is True):
            yield name, values


def _of_ipam(
    index: int, plugin_type: str, old: "dict[str, Any]", new: "dict[str, Any]"
) -> "Iterator[Difference]":
    types = ipam_type(old), ipam_type(new)
    if types[0] != types[1]:
        yield Difference(index, plugin_type, ("ipam", "type"), types[0] or None, types[1] or None, REATTACH)
        return
    declared = _Declared(types[0])
    own = [NetConf(plugin).object("ipam").raw for plugin in (old, new)]
    for path, values, change in declared.differing(*own):
        yield Difference(index, plugin_type, ("ipam", *path), *values, change or declared.change)


def _is_executable(plugin_type: str, record: Record) -> bool:
    try:
        return invoke.find(plugin_type, record.plugin_dirs) is not None
    except CniError:
        return True  # it is missing


def change_of(plugin_type: str) -> str:
    """Return what a change takes of a key that does not declare it itself."""
    traits = invoke.traits(plugin_type)
    is_served = traits.kind == "chained" and hasattr(invoke.load(plugin_type), "update")
    return traits.change or (IN_PLACE if is_served else REATTACH)


class _Declared:
    """The keys that a plugin declares.  One that declares nothing may read any key."""

    def __init__(self, plugin_type: str) -> None:
        self._is_known = bool(plugin_type) and invoke.is_built_in(plugin_type)
        self._fields: Fields = invoke.fields(plugin_type) if self._is_known else ()
        self.change = change_of(plugin_type)

    def differing(self, old: "dict[str, Any]", new: "dict[str, Any]") -> "Iterator[_Differing]":
        if self._is_known:
            yield from _differing([field for field in self._fields if field.name != "ipam"], old, new)
            return
        for key in dict.fromkeys((*old, *new)):
            if key.lower() not in (*_NOT_OPTIONS, "capabilities", "ipam") and old.get(key) != new.get(key):
                yield (key,), (old.get(key), new.get(key)), ""


def _differing(fields: "Fields", old: "dict[str, Any]", new: "dict[str, Any]") -> "Iterator[_Differing]":
    """Yield each key that differs, its two values, and what its field declares of a change."""
    for field in fields:
        values = lookup(old, field.name), lookup(new, field.name)
        if values[0] == values[1] or _reads_alike(field, *values):
            continue
        objects = [{} if value is None else value for value in values]
        if field.type is dict and all(isinstance(value, dict) for value in objects):
            for key in dict.fromkeys((*objects[0], *objects[1])):
                if objects[0].get(key) != objects[1].get(key):
                    yield (field.name, key), (objects[0].get(key), objects[1].get(key)), field.change
        else:
            yield (field.name,), values, field.change


def _reads_alike(field: "Field", old: "Any", new: "Any") -> bool:
    """Return True if a plugin reads the same from both, such as from a default and an absent key."""
    if field.type in (dict, list):
        return not old and not new
    try:
        values = [field.read(NetConf({field.name: value})) for value in (old, new)]
    except CniError:
        return False
    return bool(values[0] == values[1])


def _merged(config: bytes, network: Network, changes: "list[Difference]") -> bytes:
    """Return the text of a record's configuration with these keys as in the file.

    It is the text of the file if nothing else differs.
    """
    text = own_keys.with_values(config, [(one.index, one.path, one.file) for one in changes])
    return network.text if _same(networks.parse(text, network.source), network) else text


def _same(one: Network, other: Network) -> bool:
    names = ("version", "disable_check", "disable_gc", "plugins")
    return all(getattr(one, name) == getattr(other, name) for name in names)
