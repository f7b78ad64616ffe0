# SPDX-License-Identifier: Apache-2.0
"""cnihook validate: report every problem of network configurations."""

import copy
import os
from collections.abc import Callable, Iterator
from functools import partial

from cnihook.cli.shared import arguments, declared
from cnihook.cli.shared.arguments import Parser
from cnihook.fast import fastjson
from cnihook.policy import document, store, toml_file
from cnihook.protocol import invoke
from cnihook.protocol.call import Call, Invocation
from cnihook.request import bounds, bounds_file
from cnihook.runtime import chain, networks
from cnihook.runtime.networks import Network
from cnihook.types import versions
from cnihook.types.config import NetConf, json_name, lookup
from cnihook.types.errors import CniError, KeyRefusedError, KeyRepeatedError, invalid_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DESCRIPTION = """\
Report every problem of network configurations, of the bounds on annotations in /etc/cnihook/config.json, and
of policies: the file, the key, the reason.  All keys of built-in plugins are checked; a key that may be
misspelled, or that is there twice, is reported.  Other plugins are asked if they support the network's
version.
"""
EPILOG = """\
exit codes:
  0  no problem, or no file to check
  1  a problem
  2  wrong usage
"""

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
    files = options.files or [*networks.file_names(settings.conf_dir), *bounds_files(), *policy_files()]
    problems = [problem for path in files for problem in problems_of(path, settings.plugin_dirs)]
    if options.json:
        arguments.print_json(problems)
    else:
        for problem in problems:
            arguments.say("; ".join(filter(None, [problem["problem"], problem["hint"]])))
        if not files:
            endings = ", ".join(f"*{ending}" for ending in networks.ENDINGS)
            print(f"{settings.conf_dir} has no network ({endings}), so nothing was checked")
        elif not problems:
            print(f"{len(files)} {'file' if len(files) == 1 else 'files'} checked: no problem found")
    return 1 if problems else 0


def bounds_files() -> list[str]:
    return [bounds.FILE] if os.path.lexists(bounds.FILE) else []


def policy_files() -> list[str]:
    return [one.path for one in store.load().broken]


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
        if path.endswith(toml_file.ENDING):
            return _each(lambda: document.parse(text, path))[0]
        raw: Any = fastjson.loads(text.decode(), marks=True)
        if path == bounds.FILE or (isinstance(raw, dict) and bounds_file.is_bounds(raw)):
            return _errors_of_bounds(text, path)
        if os.path.dirname(path) == store.FOLDER or (isinstance(raw, dict) and document.is_policy(raw)):
            return _each(lambda: document.parse(text, path))[0]
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
            errors += declared.misspelled(raw, path, declared.KEYS_OF_A_LIST)
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
    types = [conf.string("type"), conf.object("ipam").string("type")]
    built_in: list[str] = []
    for plugin_type, place in zip(types, (where, f"{where}: ipam ({types[1]})"), strict=True):
        if not plugin_type:
            continue
        try:
            supported = invoke.supported_versions(plugin_type, plugin_dirs)
            if not any_version:
                versions.check_supported(network.version, supported)
            if invoke.find(plugin_type, plugin_dirs) is None:
                built_in.append(plugin_type)
                refused, _ = _each(partial(_read_conf, plugin_type, conf, request))
                errors += [e if e.msg.startswith(network.source) else e.wrapped(where) for e in refused]
        except CniError as error:
            errors.append(error.wrapped(place))
    request.close()
    if types[0] in built_in and (not types[1] or types[1] in built_in):
        errors += declared.problems(conf, *types)
    return errors


def _read_conf(plugin_type: str, conf: NetConf, request: Invocation) -> None:
    """Read all that a built-in plugin reads of its configuration before it does anything."""
    reader = getattr(invoke.load(plugin_type), "Conf", None)
    if reader:
        reader(Call("ADD", conf, request))


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
