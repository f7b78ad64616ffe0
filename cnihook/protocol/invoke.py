# SPDX-License-Identifier: Apache-2.0
"""
Run one plugin: a built-in one in this process, any other as the executable that the specification describes.

A runtime calls a plugin in the same way as a plugin calls its IPAM plugin, so both use this module.
"""

import errno
import os
from _stat import S_ISREG

from cnihook.fast import fastjson
from cnihook.log import quote
from cnihook.protocol.call import DEFAULT_PATH, Call, Invocation
from cnihook.types import versions
from cnihook.types.config import LenientConf, NetConf
from cnihook.types.errors import INTERNAL, CniError
from cnihook.types.fields import POD_ANNOTATIONS, Traits
from cnihook.types.names import ANNOTATION_PREFIX, check_plugin_type
from cnihook.types.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any

    from cnihook.process.child import Outcome
    from cnihook.types.fields import Fields

# The function of a plugin's module for each operation.
VERBS = {"ADD": "add", "DEL": "delete", "CHECK": "check", "GC": "gc", "STATUS": "status"}

_BUSY_TRIES = 6
_PLUGINS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "plugins")


def find(plugin_type: str, plugin_dirs: "list[str] | None") -> "str | None":
    """Return the executable to run for a type, or None for the built-in plugin.

    An explicit path comes first, because a caller sets CNI_PATH on purpose.  Then come the built-in plugins,
    then the usual folders.  Raises CniError if there is no plugin of this type.
    """
    check_plugin_type(plugin_type)
    for folder in plugin_dirs or ():
        if folder and _is_file(f"{folder}/{plugin_type}"):
            return f"{folder}/{plugin_type}"
    if is_built_in(plugin_type):
        return None
    for folder in DEFAULT_PATH:
        if _is_file(f"{folder}/{plugin_type}"):
            return f"{folder}/{plugin_type}"
    searched = " ".join([*(plugin_dirs or ()), *DEFAULT_PATH])
    raise CniError(
        INTERNAL,
        f'failed to find plugin "{plugin_type}" in path [{searched}]',
        "install it there, or name its folder in CNI_PATH",
    )


def is_built_in(plugin_type: str) -> bool:
    return "_" not in plugin_type and _is_file(f"{_PLUGINS}/{plugin_type.replace('-', '_')}.py")


def _is_file(path: str) -> bool:
    """Return True for a file.  Raises OSError if unknown, because the plugin would count as missing."""
    try:
        return S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return False
        raise


def built_in_types() -> "list[str]":
    names = [name.removesuffix(".py") for name in os.listdir(_PLUGINS) if name.endswith(".py")]
    return sorted(name.replace("_", "-") for name in names if name != "__init__")


def load(plugin_type: str) -> "ModuleType":
    name = plugin_type.replace("-", "_")
    return __import__(f"cnihook.plugins.{name}", fromlist=["add"])


def traits(plugin_type: str) -> Traits:
    """Return the properties of a built-in plugin; for any other type, those of an unknown plugin.

    An executable of the same name, such as the reference's, has the same properties.
    """
    try:
        check_plugin_type(plugin_type)
    except CniError:
        return Traits()
    declared: Traits = load(plugin_type).TRAITS if is_built_in(plugin_type) else Traits()
    return declared


def fields(plugin_type: str) -> "Fields":
    """Return the options of a built-in plugin; those of an IPAM plugin are keys of `ipam`."""
    declared: Fields = load(plugin_type).FIELDS
    return declared


def versions_of(module: "ModuleType") -> "Sequence[str]":
    """Return the versions of the specification that a plugin's module supports: its VERSIONS, or all."""
    supported: Sequence[str] = getattr(module, "VERSIONS", versions.ALL)
    return supported


def run(command: str, plugin_type: str, conf: NetConf, request: Invocation) -> "Result | None":
    """Run one operation of one plugin.  `conf` is all that it receives: name, cniVersion, prevResult etc.

    Returns the result of an ADD, otherwise None.  Raises CniError, with the plugin's own code and message,
    or OSError from a built-in plugin.
    """
    executable = find(plugin_type, request.plugin_dirs)
    if executable is None:
        return run_module(load(plugin_type), command, conf, request)
    output = _run_executable(executable, command, conf, request)
    if command != "ADD":
        return None
    try:
        value = fastjson.loads(output.decode())
    except ValueError as error:
        raise CniError(INTERNAL, f"{executable}: its result is not JSON: {error}") from None
    return Result.from_json(value, conf.string("cniVersion"), f"the result of {executable}")


def run_module(module: "ModuleType", command: str, conf: NetConf, request: Invocation) -> "Result | None":
    """Run one operation of a plugin's module.  One that the module lacks succeeds without doing anything."""
    if command == "ADD":  # if that was rejected, DEL has nothing to do, and should not fail
        versions.check_supported(conf.string("cniVersion"), versions_of(module))
        if _has_requests_of_pod(conf):
            conf = _with_requests_of_pod(module, conf, request)
    if command == "DEL":
        conf = LenientConf(conf.raw, conf.where)
    function = getattr(module, VERBS[command], None)
    result: Result | None = function(Call(command, conf, request)) if function else None
    return result


def _has_requests_of_pod(conf: NetConf) -> bool:
    runtime_config = conf.raw.get("runtimeConfig")
    annotations = runtime_config.get(POD_ANNOTATIONS) if isinstance(runtime_config, dict) else None
    return isinstance(annotations, dict) and any(name.startswith(ANNOTATION_PREFIX) for name in annotations)


def _with_requests_of_pod(module: "ModuleType", conf: NetConf, request: Invocation) -> NetConf:
    # Loaded by name, as plugins are: it is above this module, and few pods request anything.
    pods = __import__("cnihook.request.pod_annotations", fromlist=["serve"])
    # A repair restores what a running pod had, so bounds are not checked again.
    served: NetConf = pods.serve(conf, getattr(module, "TRAITS", Traits()), is_bounded=not request.is_repair)
    return served


def supported_versions(plugin_type: str, plugin_dirs: "list[str] | None") -> "Sequence[str]":
    """Return the versions that a plugin, built in or not, reports (SPEC.md, "VERSION").  Raises CniError.

    A plugin that does not know this operation supports the first version of the specification only.
    """
    executable = find(plugin_type, plugin_dirs)
    if executable is None:
        return versions_of(load(plugin_type))
    dummy = Invocation("", "dummy", "dummy", plugin_dirs=plugin_dirs, cni_path="dummy", timeout=10.0)
    conf = NetConf({"cniVersion": versions.CURRENT})
    try:
        answer: Any = fastjson.loads(_run_executable(executable, "VERSION", conf, dummy).decode())
    except CniError as error:
        if error.msg == "unknown CNI_COMMAND: VERSION":  # the reference's message
            return versions.ALL[:1]
        raise
    except ValueError as error:
        raise CniError(INTERNAL, f"{executable}: decoding version info: {error}") from None
    listed = answer.get("supportedVersions") if isinstance(answer, dict) else None
    if isinstance(listed, list) and all(isinstance(version, str) for version in listed):
        return [str(version) for version in listed]
    if isinstance(answer, dict) and listed is None and answer.get("cniVersion") == "0.2.0":
        return versions.ALL[:2]
    raise CniError(INTERNAL, f"{executable}: decoding version info: missing field supportedVersions")


def protocol_variables(command: str, request: Invocation) -> "dict[str, str]":
    """Return all six variables of the protocol.  Empty ones are set, too, to replace inherited values."""
    return {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": request.container_id,
        "CNI_NETNS": request.netns,
        "CNI_IFNAME": request.ifname,
        "CNI_ARGS": request.args,
        "CNI_PATH": request.cni_path,
    }


def environment(command: str, request: Invocation) -> "dict[str, str]":
    """Return a plugin's environment: that of this process, and the variables of the protocol."""
    return {**os.environ, **protocol_variables(command, request)}


def _run_executable(executable: str, command: str, conf: NetConf, request: Invocation) -> bytes:
    import time

    from cnihook.process import child  # not needed if all plugins are built in

    stdin = fastjson.dumps(conf.raw).encode()
    for attempt in range(1, _BUSY_TRIES + 1):
        try:
            outcome = child.run(
                executable, [executable], environment(command, request), stdin, request.timeout
            )
            break
        except OSError as error:
            if error.errno == errno.ETXTBSY and attempt < _BUSY_TRIES:  # it is being installed
                time.sleep(0.2 * attempt)
                continue
            raise CniError(INTERNAL, f"{executable}: cannot be executed: {error.strerror}") from None

    if outcome.timed_out:
        raise CniError(
            INTERNAL, f"{executable}: {command} took more than {request.timeout:g} s and was killed"
        )
    if outcome.too_long:
        size = child.MOST_OUTPUT >> 20
        raise CniError(INTERNAL, f"{executable}: {command} printed more than {size} MiB and was killed")
    if outcome.status == 0:
        if outcome.stderr:
            quote(os.path.basename(executable), outcome.stderr)
        return outcome.stdout
    raise _failure(executable, outcome)


def _failure(executable: str, outcome: "Outcome") -> CniError:
    how = f"exit status {outcome.status}" if outcome.status > 0 else f"killed by signal {-outcome.status}"
    stderr = " ".join(outcome.stderr.decode(errors="replace").split())[-1000:]
    stdout = outcome.stdout.decode(errors="replace").strip()
    if not stdout:
        why = f'"{stderr}": {how}' if stderr else f"no error message: {how}"
        return CniError(INTERNAL, f"{executable}: {why}")
    try:
        value = fastjson.loads(stdout)
        if not isinstance(value, dict):
            raise ValueError("it is not an object")
    except ValueError as error:
        shown = " ".join(stdout.split())[:200]
        return CniError(INTERNAL, f"{executable}: {how}, and its error is not JSON ({error}): {shown}")
    reported = CniError.from_json(value)
    if not reported.msg:
        reported.msg = f"{executable}: {how}"
    if stderr:
        quote(os.path.basename(executable), outcome.stderr)
    return reported
