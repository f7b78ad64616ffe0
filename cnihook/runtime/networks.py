# SPDX-License-Identifier: Apache-2.0
"""Networks: named lists of plugins, read from files (SPEC.md, "Network configuration format")."""

import errno
import os

from cnihook.fast import fastjson, statefile
from cnihook.types import versions
from cnihook.types.config import LenientConf, NetConf, json_name, lookup
from cnihook.types.errors import INVALID_CONFIG, IO_FAILURE, CniError, invalid_config
from cnihook.types.names import check_network_name, check_plugin_type

# By name: to ask for its TRAITS would load the plugin of each network in the folder, 1 to 4 ms of a start.
_LOOPBACK = "loopback"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_FOLDER = "/etc/cni/net.d"
ENDINGS = (".conflist", ".conf", ".json")
# Errors that depend on the file.  Any other, such as EIO or EMFILE, only prevents reading it.
_UNUSABLE = (errno.ENOENT, errno.EACCES, errno.ELOOP, errno.ENOTDIR, errno.ENXIO)

BUILT_IN_SOURCE = "the built-in default"
# The network of a machine on which no network is configured.
BUILT_IN = b"""{
  "cniVersion": "1.0.0",
  "name": "cnihook",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cnihook0",
      "isGateway": true,
      "ipMasq": true,
      "capabilities": {"ips": true, "mac": true},
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.88.64.0/20"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}},
    {"type": "bandwidth", "capabilities": {"bandwidth": true, "emulate": true, "quota": true}},
    {"type": "firewall"}
  ]
}"""


class NetworkNotFoundError(CniError, KeyError):
    """An error: no configuration has this name.  `problems` are the files that could not be read."""

    def __init__(self, name: str, folder: str, known: "list[str]", problems: "list[CniError]") -> None:
        from cnihook.fast import similar  # not at the top: for this error only

        hint = similar.hint(name, known) or "there is none"
        if problems:
            hint += f"; not readable: {'; '.join(map(str, problems))}"
        super().__init__(INVALID_CONFIG, f"no network {name!r} in {folder}", hint)
        self.problems = problems


class Network:
    """One network configuration, a list of plugins.  A single plugin's file is a list of one."""

    __slots__ = (
        "disable_check", "disable_gc", "dotted_aliases", "name", "plugins", "raw", "requested", "source",
        "takes_annotations", "text", "version",
    )  # fmt: skip

    def __init__(
        self, raw: "dict[str, Any]", text: bytes, source: str, plugins: "list[dict[str, Any]]", name: str
    ) -> None:
        conf = NetConf(raw, source)
        self.raw = raw
        self.text = text  # the content of its file; the record of an attachment keeps it
        self.source = source
        self.name = name
        self.plugins = plugins
        self.requested: list[str] = []  # keys with a value that a container requests: 0.ipam.routes
        self.version = versions.negotiate(raw, source)
        self.disable_check = conf.loose_boolean("disableCheck")
        self.disable_gc = conf.loose_boolean("disableGC")
        own = _own_settings(conf)
        # True if annotations may request this network, or anything on it.
        self.takes_annotations = own.boolean("annotations", default=True)
        # True if other containers may use a container's name with a dot, which could hide a name in DNS.
        self.dotted_aliases = own.boolean("dottedAliases", default=False)

    def __repr__(self) -> str:
        types = ", ".join(plugin["type"] for plugin in self.plugins)
        return f"<Network {self.name!r}: {types}; from {self.source}>"

    def __eq__(self, other: object) -> bool:
        """Return True for a network with the same configuration, also if it is from another file."""
        if not isinstance(other, Network):
            return NotImplemented
        return (self.name, self.raw) == (other.name, other.raw)

    def __hash__(self) -> int:
        return hash(self.name)

    def where(self, index: int) -> str:
        """Return the place of one of its plugins, for error messages."""
        plugin_type = self.plugins[index].get("type")
        if "plugins" not in self.raw:
            return f"{self.source} ({plugin_type})"
        return f"{self.source}: plugins[{index}] ({plugin_type})"

    @property
    def created(self) -> str:
        """The time at which `cnihook network create` wrote the file; empty for a file of another origin."""
        return LenientConf(self.raw, self.source).object("cnihook").string("created")

    @property
    def capabilities(self) -> "list[str]":
        """The capabilities that its plugins enable, each once, in order."""
        enabled: dict[str, None] = {}
        for plugin in self.plugins:
            switches = lookup(plugin, "capabilities") or {}
            enabled.update((name, None) for name, is_on in switches.items() if is_on is True)
        return list(enabled)

    @property
    def is_loopback(self) -> bool:
        return [plugin["type"] for plugin in self.plugins] == [_LOOPBACK]


def _own_settings(conf: NetConf) -> NetConf:
    """Return the object "cnihook" of a network.  Raises CniError if a key is unknown, null or repeated.

    Such a key would leave the network open to annotations.
    """
    own = conf.object("cnihook")
    for key in fastjson.repeated(own.raw):
        raise own.refuse_repeated(key)
    for key, value in own.raw.items():
        if key.lower() not in ("annotations", "dottedaliases", "created") or value is None:
            problem = "is null" if value is None else "is unknown"
            raise own.refuse(key, problem, 'it takes "annotations" and "dottedAliases"')
    return own


def parse(text: bytes, source: str, folder: str = "") -> Network:
    """Return the network in the text of a file, which holds a list or a single plugin.

    `folder`: plugins that are not inlined are in FOLDER/NAME/*.conf.  Raises CniError that begins with
    `source`.
    """
    try:
        raw = fastjson.loads(text.decode(), marks=True)
    except ValueError as error:
        raise invalid_config(f"{source}: error parsing configuration: {error}") from None
    if not isinstance(raw, dict):
        raise invalid_config(f"{source}: a network configuration is an object, not {json_name(raw)}")
    return from_raw(raw, text, source, folder)


def from_raw(raw: "dict[str, Any]", text: bytes, source: str, folder: str = "") -> Network:
    """Return the network in an object that the caller has read already, as parse() does."""
    if "cnihook" in fastjson.repeated(raw):
        raise NetConf(raw, source).refuse_repeated("cnihook")
    if "plugins" in raw or not NetConf(raw, source).has("type"):
        return _parse_list(raw, text, source, folder)

    # Go reads the keys of a plugin, but not those of a list, in any case, and null as an absent key.
    plugin = _plugin(raw, source)
    name = lookup(raw, "name")
    if name is None and plugin["type"] == _LOOPBACK:
        name = "loopback"  # 99-loopback.conf has been written without a name since 2016
    _check_name(name, source)
    versions_of_it = {
        "cniVersion": lookup(raw, "cniVersion") or "",
        "cniVersions": lookup(raw, "cniVersions"),
    }
    return Network({**raw, **versions_of_it}, text, source, [plugin], name)


def _check_name(name: object, source: str) -> None:
    if name is None:
        raise invalid_config(f'{source}: error parsing configuration: no name: the key "name" is missing')
    if not isinstance(name, str):
        raise invalid_config(f'{source}: "name" must be a string, not {json_name(name)}')
    check_network_name(name, source)


def _plugin(raw: object, where: str) -> "dict[str, Any]":
    if not isinstance(raw, dict):
        raise invalid_config(f"{where}: a plugin's configuration is an object, not {json_name(raw)}")
    conf = NetConf(raw, where)
    plugin_type = conf.string("type")
    if not plugin_type:
        raise invalid_config(f"{where}: error parsing configuration: missing 'type'")
    try:
        check_plugin_type(plugin_type)
    except CniError as error:
        raise error.wrapped(where) from None
    capabilities = conf.object("capabilities")
    for key in capabilities.raw:
        capabilities.boolean(key)
    ipam = conf.object("ipam")
    if ipam.has("type"):
        ipam.string("type")
    conf.object("dns")
    return raw if raw.get("type") == plugin_type else {**raw, "type": plugin_type}


def _parse_list(raw: "dict[str, Any]", text: bytes, source: str, folder: str) -> Network:
    if "plugins" not in raw and "name" not in raw:
        raise invalid_config(f'{source}: error parsing configuration: no name, no "type", no "plugins"')
    if "name" not in raw:
        raise invalid_config(f"{source}: error parsing configuration list: no name")
    _check_name(raw["name"], source)
    inlined_only = NetConf(raw, source).loose_boolean("loadOnlyInlinedPlugins")
    listed = raw.get("plugins")
    if listed is None:
        if inlined_only:
            raise invalid_config(f"{source}: `loadOnlyInlinedPlugins` is true, and no 'plugins' key")
        listed = []
    elif not isinstance(listed, list):
        raise invalid_config(f"{source}: invalid 'plugins' type: it must be a list, not {json_name(listed)}")
    elif not listed:
        raise invalid_config(f"{source}: no plugins in list")
    plugins = [_plugin(item, f"{source}: plugins[{index}]") for index, item in enumerate(listed)]
    beside = _not_inlined(f"{folder}/{raw['name']}") if folder and not inlined_only else []
    if beside:
        # The record of an attachment must hold all plugins, because those files may change.
        plugins += beside
        raw = {**raw, "plugins": plugins, "loadOnlyInlinedPlugins": True}
        try:
            text = fastjson.dumps(raw).encode()
        except ValueError as error:
            raise invalid_config(f"{source}: error parsing configuration list: {error}") from None
    for index, plugin in enumerate(plugins):
        conf = NetConf(plugin, f"{source}: plugins[{index}]")
        if conf.has("cnihook"):
            raise conf.refuse("cnihook", "has no effect on a plugin", 'put it next to the list\'s "name"')
    if not plugins:
        raise invalid_config(f'{source}: no plugin configs found: it has neither "type" nor "plugins"')
    return Network(raw, text, source, plugins, raw["name"])


def _not_inlined(folder: str) -> "list[dict[str, Any]]":
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".conf"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unreadable(folder, error) from None
    plugins = []
    for name in names:
        path = f"{folder}/{name}"
        try:
            plugins.append(_plugin(fastjson.loads(read_file(path).decode(), marks=True), path))
        except ValueError as error:
            raise invalid_config(f"{path}: error parsing configuration: {error}") from None
    return plugins


def read_file(path: str) -> bytes:
    """Return the content of a regular file.  Raises CniError, with the code IO_FAILURE if reading failed."""
    try:
        text = statefile.content(path, follow=True)
        if text is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return text
    except statefile.UnusableFileError as problem:
        raise invalid_config(f"{path}: {problem}") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: str, error: OSError) -> CniError:
    code = INVALID_CONFIG if error.errno in _UNUSABLE else IO_FAILURE
    return CniError(code, f"{path}: {error.strerror}")


def load_file(path: str) -> Network:
    return parse(read_file(path), path, os.path.dirname(path))


def file_names(folder: str) -> "list[str]":
    """Return the paths of a folder's configurations, sorted; none if the folder does not exist."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(ENDINGS))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unreadable(folder, error) from None
    return [path for name in names if not os.path.isdir(path := f"{folder}/{name}")]


def load_folder(folder: str) -> "tuple[list[Network], list[CniError]]":
    """Return every network of a folder, sorted by file name, and an error for each file that is not used.

    A folder that does not exist has no network.  If two networks have the same name, the first one is used.
    """
    networks: dict[str, Network] = {}
    problems = []
    try:
        paths = file_names(folder)
    except CniError as error:
        return [], [error]
    for path in paths:
        try:
            network = load_file(path)
            first = networks.setdefault(network.name, network)
            if first is not network:
                problem = f"{path}: network {network.name} is already defined in {first.source}"
                problems.append(invalid_config(problem, "this one is not used"))
        except CniError as error:
            problems.append(error)
    return list(networks.values()), problems


def ipam_type(plugin: "dict[str, Any]") -> str:
    """Return the type of a plugin's IPAM plugin; empty if it has none."""
    return NetConf(plugin).object("ipam").string("type")


def built_in() -> Network:
    return parse(BUILT_IN, BUILT_IN_SOURCE)
