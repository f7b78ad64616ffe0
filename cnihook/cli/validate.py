# SPDX-License-Identifier: Apache-2.0
"""cnihook validate: report every problem of network configurations."""

import copy
import difflib
import os
from collections.abc import Callable, Iterator
from functools import partial

from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.fast import fastjson
from cnihook.protocol import invoke
from cnihook.protocol.call import Call, Invocation
from cnihook.request import bounds, bounds_file
from cnihook.runtime import chain, networks
from cnihook.runtime.networks import Network
from cnihook.types import config, versions
from cnihook.types.config import NetConf, json_name, lookup
from cnihook.types.errors import CniError, KeyRefusedError, KeyRepeatedError, invalid_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # By the id() of an object in a configuration: those of its keys that were read.
    Asked = dict[int, set[str]]

DESCRIPTION = """\
Report every problem of network configurations, and of the bounds on annotations in /etc/cnihook/config.json:
the file, the key, the reason.  All keys of built-in plugins are checked; a key that may be misspelled, or
that is there twice, is reported.  Other plugins are asked if they support the network's version.
"""
EPILOG = """\
exit codes:
  0  no problem
  1  a problem
  2  wrong usage
"""

_KEYS_OF_A_LIST = (
    "cniVersion cniVersions name plugins disableCheck disableGC loadOnlyInlinedPlugins cnihook".split()
)
_KEYS_OF_ANY_PLUGIN = (
    "cniVersion name type capabilities args ipam dns runtimeConfig prevResult cnihook".split()
)
_ALIKE = 0.8  # of 1.0, the least similarity to a known key for a misspelling
_TRIES = 100  # if a file has more problems, not all need to be reported


def parser() -> Parser:
    parser = Parser("validate", DESCRIPTION, EPILOG)
    parser.add_argument(
        "files", metavar="FILE", nargs="*", help="a configuration (default: all of the folder of networks)"
    )
    parser.add_argument("--json", action="store_true", help="print the problems as a list of JSON objects")
    parser.add_conf_dir()
    parser.add_plugin_dirs()
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    settings = arguments.settings_of(options)
    files = options.files or [*networks.file_names(settings.conf_dir), *bounds_files()]
    problems = [problem for path in files for problem in problems_of(path, settings.plugin_dirs)]
    if options.json:
        arguments.print_json(problems)
    else:
        for problem in problems:
            arguments.say("; ".join(filter(None, [problem["problem"], problem["hint"]])))
        if not problems:
            print(f"{len(files)} {'file' if len(files) == 1 else 'files'}: nothing found")
    return 1 if problems else 0


def bounds_files() -> list[str]:
    return [bounds.FILE] if os.path.lexists(bounds.FILE) else []


def problems_of(path: str, plugin_dirs: "list[str] | None") -> list[dict[str, str]]:
    return [
        {
            "file": path,
            "key": error.key if isinstance(error, KeyRefusedError) else "",
            "problem": error.msg if error.msg.startswith(path) else f"{path}: {error.msg}",
            "hint": error.details,
        }
        for error in _errors(path, plugin_dirs)
    ]


def _errors(path: str, plugin_dirs: "list[str] | None") -> list[CniError]:
    try:
        text = networks.read_file(path)
        raw: Any = fastjson.loads(text.decode(), marks=True)
        if path == bounds.FILE or (isinstance(raw, dict) and bounds_file.is_bounds(raw)):
            return _errors_of_bounds(text, path)
        if not isinstance(raw, dict):
            raise invalid_config(f"{path}: a network configuration is an object, not {json_name(raw)}")
    except CniError as error:
        return [error]
    except ValueError as error:
        return [invalid_config(f"{path}: error parsing configuration: {error}")]

    repeated = list(_repeated(raw, path))
    errors, network = _each(lambda: networks.from_raw(raw, text, path, os.path.dirname(path)))
    if isinstance(network, Network):
        if "plugins" in raw:
            errors += _misspelled(raw, path, {id(raw): set(_KEYS_OF_A_LIST)})
        unknown = _unknown_version(network)
        errors += unknown
        for index in range(len(network.plugins)):
            errors += _errors_of_plugin(network, index, plugin_dirs, bool(unknown))
    return repeated + [error for error in errors if not isinstance(error, KeyRepeatedError)]


def _repeated(value: "Any", where: str) -> "Iterator[CniError]":
    """Yield an error for each key that an object has more than once: all but the last have no effect."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _repeated(item, f"{where}[{index}]")
    elif isinstance(value, dict):
        for key in fastjson.repeated(value):
            yield NetConf(value, where).refuse_repeated(key)
        for key, item in value.items():
            yield from _repeated(item, f"{where}: {key}")


def _unknown_version(network: Network) -> list[CniError]:
    """Return an error if no plugin can support the network's version: one error for all of them."""
    try:
        versions.check_supported(network.version)
    except CniError as error:
        hint = f"there are {', '.join(versions.ALL)}"
        problem = f'is wrong: {error.msg}: "{network.version}" is not a version of the specification'
        return [NetConf(network.raw, network.source).refuse("cniVersion", problem, hint)]
    return []


def _errors_of_bounds(text: bytes, path: str) -> list[CniError]:
    raw = bounds_file.decode(text, path)
    return _each(lambda: bounds_file.parse(raw, path))[0]


def _errors_of_plugin(
    network: Network, index: int, plugin_dirs: "list[str] | None", any_version: bool
) -> list[CniError]:
    """Return what is wrong with one plugin.  `any_version`: ignore the network's version."""
    where = network.where(index)
    conf = NetConf(copy.deepcopy(chain.derive(network, index, {}, None)), where)
    if any_version:
        conf.raw["cniVersion"] = versions.CURRENT
    request = Invocation("validate", "", "eth0", plugin_dirs=plugin_dirs)
    errors: list[CniError] = []
    read_keys: "Asked" = {id(conf.raw): set(_KEYS_OF_ANY_PLUGIN)}
    complete = True  # every key that is read is known
    ipam_type = conf.object("ipam").string("type")
    for plugin_type, place in ((conf.string("type"), where), (ipam_type, f"{where}: ipam ({ipam_type})")):
        if not plugin_type:
            continue
        read = None
        try:
            supported = invoke.supported_versions(plugin_type, plugin_dirs)
            if not any_version:
                versions.check_supported(network.version, supported)
            if invoke.find(plugin_type, plugin_dirs) is None:
                refused, read = _each(partial(_read_conf, plugin_type, conf, request, read_keys))
                errors += [e if e.msg.startswith(network.source) else e.wrapped(where) for e in refused]
        except CniError as error:
            errors.append(error.wrapped(place))
        complete = complete and bool(read)
    request.close()
    if complete:
        errors += _misspelled(conf.raw, where, read_keys)
    return errors


def _read_conf(plugin_type: str, conf: NetConf, request: Invocation, read_keys: "Asked") -> bool:
    """Read all that a built-in plugin reads of its configuration before it does anything.

    The keys that it reads are added to `read_keys`.
    """

    def watching(raw: "dict[str, Any]", key: str) -> "Any":
        read_keys.setdefault(id(raw), set()).add(key)
        return lookup(raw, key)

    reader = getattr(invoke.load(plugin_type), "Conf", None)
    if reader:
        config.lookup = watching  # NetConf reads every key by it
        try:
            reader(Call("ADD", conf, request))
        finally:
            config.lookup = lookup
    return True


def _misspelled(value: "Any", where: str, read_keys: "Asked") -> "Iterator[CniError]":
    """Yield an error for each key that no plugin reads, and that resembles one that a plugin reads.

    Any other key may be another program's: the specification permits such keys.
    """
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _misspelled(item, f"{where}[{index}]", read_keys)
    if not isinstance(value, dict):
        return
    own = read_keys.get(id(value), set())
    spelled = {key.lower(): key for key in own}
    for name in spelled:
        # The plugin's spelling first, which overrides the others.  Keys of sysctl are all spelled so.
        spellings = sorted((key for key in value if key.lower() == name), key=lambda key: key not in own)
        for key in spellings[1:]:
            if key not in own:
                hint = "plugins ignore the case of a key; remove one"
                yield NetConf(value, where).refuse(key, f"is {spellings[0]} once more", hint)
    for name, inner in value.items():
        if name.lower() not in spelled:
            for alike in difflib.get_close_matches(name.lower(), spelled, 1, _ALIKE):
                hint = f'write "{spelled[alike]}", if that is meant'
                yield NetConf(value, where).refuse(name, "is a key that is not read", hint)
        yield from _misspelled(inner, f"{where}: {name}", read_keys)


def _each(read: "Callable[[], Any]") -> "tuple[list[CniError], Any]":
    """Read until no key is rejected any more.  Each rejected key is removed, to reach the next one.

    Returns all errors, and the result of the last read, if there is one.  A missing key is not reported in
    an object from which a key was removed, because it may be that one.
    """
    errors: list[CniError] = []
    changed: set[int] = set()
    for _ in range(_TRIES):
        try:
            return errors, read()
        except KeyRefusedError as error:
            is_missing = id(error.raw) in changed and lookup(error.raw, error.key) is None
            if is_missing or any(str(error) == str(known) for known in errors):
                break
            changed.add(id(error.raw))
            errors.append(error)
            if lookup(error.raw, error.key) is None:  # it is missing, or is part of something else
                break
            for name in [name for name in error.raw if name.lower() == error.key.lower()]:
                del error.raw[name]
        except CniError as error:
            errors.append(error)
            break
    return errors, None
