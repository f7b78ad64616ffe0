# SPDX-License-Identifier: Apache-2.0
"""A plugin's module as an executable.  The protocol is that of SPEC.md, "Execution Protocol"."""

import gc
import os
import sys

import cnihook
from cnihook import codecache
from cnihook.fast import fastjson
from cnihook.process import signals
from cnihook.protocol import invoke
from cnihook.protocol.call import Invocation
from cnihook.types import versions
from cnihook.types.config import NetConf
from cnihook.types.errors import (
    DECODING_FAILURE,
    INVALID_ENVIRONMENT,
    IO_FAILURE,
    CniError,
    as_cni_error,
)
from cnihook.types.names import check_container_id, check_ifname, check_network_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType
    from typing import Any

# The variables that each operation requires.
_REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "GC": ("CNI_PATH",),
    "STATUS": (),
}
_WITH_CONTAINER = ("ADD", "DEL", "CHECK")
_MOST_INPUT = 16 << 20  # bytes
_TIMEOUT = 300.0  # seconds for a delegate; the runtime above has a deadline of its own


def main(built_in: str = "") -> None:
    """Serve one operation and exit: 0, or 1 with the error as JSON on stdout.

    The plugin is the module that runs as the program, or else the built-in one of this type.
    """
    if built_in:
        gc.disable()  # as in the hook
        codecache.install_finder()
    plugin = invoke.load(built_in) if built_in else sys.modules["__main__"]
    command = os.environ.get("CNI_COMMAND", "")
    if not command:
        _about(built_in or os.path.basename(sys.argv[0]), plugin)
        sys.exit(0)
    signals.reset()
    version = versions.CURRENT
    try:
        if command == "VERSION":
            output = _version(plugin)
        else:
            request = _request(command, os.environ)
            raw = _read_stdin()
            version = _configured_version(plugin, command, raw)
            output = _serve(plugin, command, raw, version, request)
    except (Exception, signals.Interrupted) as error:
        _print(as_cni_error(error).to_json(version))
        sys.exit(1)
    _print(output)
    if built_in:
        cnihook.discard_unsafe_caches()
        os._exit(0)  # skips the interpreter's shutdown, which other plugins may need to flush a file
    sys.exit(0)


def _about(name: str, plugin: "ModuleType") -> None:
    supported = ", ".join(invoke.versions_of(plugin))
    os.write(2, f"CNI {name} plugin of cnihook\nCNI protocol versions supported: {supported}\n".encode())


def _version(plugin: "ModuleType") -> str:
    supported = list(invoke.versions_of(plugin))
    return fastjson.dumps({"cniVersion": versions.CURRENT, "supportedVersions": supported}) + "\n"


def _request(command: str, environment: "Mapping[str, str]") -> Invocation:
    if command not in _REQUIRED:
        raise CniError(INVALID_ENVIRONMENT, f"unknown CNI_COMMAND: {command}")
    container_id = environment.get("CNI_CONTAINERID", "")
    ifname = environment.get("CNI_IFNAME", "")
    if command in _WITH_CONTAINER:
        if container_id:
            check_container_id(container_id)
        if ifname:
            check_ifname(ifname)
    missing = [name for name in _REQUIRED[command] if not environment.get(name)]
    if missing:
        raise CniError(INVALID_ENVIRONMENT, f"required env variables [{','.join(missing)}] missing")
    return Invocation(
        container_id,
        environment.get("CNI_NETNS", ""),
        ifname,
        args=environment.get("CNI_ARGS", ""),
        plugin_dirs=[folder for folder in environment.get("CNI_PATH", "").split(":") if folder],
        cni_path=environment.get("CNI_PATH", ""),
        timeout=_TIMEOUT,
    )


def _read_stdin() -> "dict[str, Any]":
    try:
        chunks = []
        size = 0
        while chunk := os.read(0, 1 << 16):
            chunks.append(chunk)
            size += len(chunk)
            if size > _MOST_INPUT:
                raise CniError(IO_FAILURE, f"network config on stdin is longer than {_MOST_INPUT >> 20} MiB")
    except OSError as error:
        raise CniError(IO_FAILURE, f"error reading from stdin: {error.strerror}") from None
    try:
        raw = fastjson.loads(b"".join(chunks).decode(), marks=True)
    except ValueError as error:
        raise CniError(DECODING_FAILURE, f"error unmarshalling network config: {error}") from None
    if not isinstance(raw, dict):
        raise CniError(DECODING_FAILURE, "error unmarshalling network config: it is not an object")
    return raw


def _configured_version(plugin: "ModuleType", command: str, raw: "dict[str, Any]") -> str:
    try:
        version = NetConf(raw).string("cniVersion")
    except CniError as error:
        raise CniError(DECODING_FAILURE, f"error decoding config version: {error.msg}") from None
    check_network_name(NetConf(raw).string("name"))
    versions.check_operation(command, version)
    return versions.check_supported(version, invoke.versions_of(plugin))


def _serve(
    plugin: "ModuleType", command: str, raw: "dict[str, Any]", version: str, request: Invocation
) -> str:
    conf = NetConf({**raw, "cniVersion": version}, "")
    try:
        result = invoke.run_module(plugin, command, conf, request)
    finally:
        request.close()
    if result is None:
        return ""
    result.check_fits(version)
    return fastjson.dumps(result.to_json(version), indent=4)


def _print(text: str) -> None:
    data = text.encode()
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError:
        pass  # the calling runtime has ended, so no process reads the answer
