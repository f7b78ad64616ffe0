# SPDX-License-Identifier: Apache-2.0
"""
Add cnihook's hook to a container's config.json, and remove it.  The rest of the file is not changed.

`cnihook inject` does this once to prepare a bundle; cni-runc does it at each start of a container.
"""

import os
import sys
from errno import ENOENT

from cnihook.fast import statefile
from cnihook.oci.bundle import HOST, JOINED, Bundle
from cnihook.oci.json_edit import JsonDocument
from cnihook.types.errors import DECODING_FAILURE, CniError, invalid_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

STAGES = ("createRuntime", "poststop")
ETC = ("resolv.conf", "hosts", "hostname")

_TIMEOUT = 60  # seconds; a plugin that waits for another machine, such as dhcp, may take long
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


# The hook


def hook(stage: str, environment: "Mapping[str, str]", arguments: "Sequence[str]" = ()) -> "dict[str, Any]":
    """Return the entry of config.json for a stage.

    `environment` has the variables of which the hook gets those that it knows: NETCONFPATH, CNI_PATH and
    CNIHOOK_TIMING.  `arguments` are bounds on annotations, which only createRuntime reads.

    The entry has its own environment.  Without one, the hook would get the runtime's, including secrets, and
    with podman an empty one at poststop.  The first argument is the path, too: a Python whose first
    argument is a name searches PATH for it, and uses the library of the Python that is there.
    """
    interpreter = python()
    variables = [f"PATH={_PATH}"]
    if environment.get("NETCONFPATH"):
        variables.append(f"NETCONFPATH={os.path.abspath(environment['NETCONFPATH'])}")
    folders = [os.path.abspath(folder) for folder in environment.get("CNI_PATH", "").split(":") if folder]
    if folders:
        variables.append(f"CNI_PATH={':'.join(folders)}")
    if environment.get("CNIHOOK_TIMING"):
        variables.append("CNIHOOK_TIMING=1")
    return {
        "path": interpreter,
        "args": [interpreter, "-IS", launcher(), stage, *(arguments if stage == "createRuntime" else ())],
        "env": variables,
        "timeout": _TIMEOUT,
    }


def launcher() -> str:
    """Return the file that Python runs as the command cnihook of this installation."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    checkout = f"{os.path.dirname(package)}/scripts/cnihook"
    return checkout if os.path.exists(checkout) else f"{package}/__main__.py"


def python() -> str:
    """Return the path of this interpreter, not of a shim; if possible one that is valid after an upgrade."""
    path = os.path.realpath(sys.executable)
    return "/usr/bin/python3" if os.path.realpath("/usr/bin/python3") == path else path


def is_ours(entry: "Any", stage: str) -> bool:
    """Return True if this is a hook of cnihook for the stage, from any installation or written by hand."""
    if not isinstance(entry, dict) or not isinstance(entry.get("args"), list) or stage not in entry["args"]:
        return False
    words = [entry.get("path"), *entry["args"][: entry["args"].index(stage)]]
    return any(
        isinstance(word, str)
        and (os.path.basename(word) == "cnihook" or word.endswith("/cnihook/__main__.py"))
        for word in words
    )


def _is_written_here(entry: "dict[str, Any]", stage: str) -> bool:
    """Return True if hook() can have written the entry, so that it may be replaced."""
    plain = hook(stage, {})
    return (
        entry.keys() == plain.keys()
        and _are_bounds(entry["args"][entry["args"].index(stage) + 1 :])
        and entry["timeout"] == plain["timeout"]
        and isinstance(entry["env"], list)
        and entry["env"][:1] == plain["env"]
    )


def _are_bounds(arguments: "list[Any]") -> bool:
    """Return True if all arguments of a hook are bounds, which hook() can write."""
    names = [each.partition("=")[0] for each in arguments if isinstance(each, str)]
    return len(names) == len(arguments) and set(names) <= {"--allow", "--ports", "--trust-images"}


def has_hooks(config: JsonDocument) -> bool:
    return any(
        is_ours(entry, stage) for stage in STAGES for _, entry in _last_first(config.get("hooks", stage))
    )


def add_hooks(
    config: JsonDocument,
    environment: "Mapping[str, str]",
    arguments: "Sequence[str]" = (),
    *,
    renew: bool = False,
) -> None:
    """Add the hook at the end of each stage: if a later hook failed, crun would never run its poststop.

    A hook of cnihook that is there already is kept.  With `renew` it is replaced, unless it was written by
    hand.
    """
    for stage in STAGES:
        new = hook(stage, environment, arguments)
        entries = _ensure(config, [], "hooks", stage)
        own = [number for number, entry in enumerate(entries) if is_ours(entry, stage)]
        if not own:
            config.append(new, "hooks", stage)
        for number in own:
            if renew and entries[number] != new and _is_written_here(entries[number], stage):
                config.set(new, "hooks", stage, number)


# What the hook needs


def add_namespace(config: JsonDocument, *, has_request: bool) -> None:
    """Give the container its own network namespace.

    Raises CniError if it joins one by path and requests nothing: the hook would leave it alone.
    """
    _ensure(config, [], "linux", "namespaces")
    kind = Bundle(config.get(), "config.json").network_namespace
    if kind == JOINED and not has_request:
        raise invalid_config(
            "linux.namespaces has the container join a network namespace by path",
            "the hook attaches such a container only on request: add --network NAME; or remove the path",
        )
    if kind == HOST:
        config.append({"type": "network"}, "linux", "namespaces")


def add_annotations(config: JsonDocument, annotations: "Mapping[str, str]") -> None:
    if annotations:
        _ensure(config, {}, "annotations")
    for name, text in annotations.items():
        if config.get("annotations", name) != text:
            config.set(text, "annotations", name)


def set_hostname(config: JsonDocument, name: str) -> None:
    """Set the host name, if the container has its own UTS namespace.

    A hook cannot do this: the runtime sets the host name after the hook has run.
    """
    namespaces = config.get("linux", "namespaces") or []
    if any(isinstance(n, dict) and n.get("type") == "uts" and not n.get("path") for n in namespaces):
        if config.get("hostname") != name:
            config.set(name, "hostname")


def add_mounts(config: JsonDocument, files: "Mapping[str, str]") -> None:
    """Bind each of `files`, {path in the container: source}, unless something is mounted there already."""
    for destination, source in files.items():
        mounts = _ensure(config, [], "mounts")
        used = [mount.get("destination") for mount in mounts if isinstance(mount, dict)]
        if destination not in map(_normal, used):
            mount = {
                "destination": destination,
                "type": "bind",
                "source": source,
                "options": ["bind", "rprivate"],
            }
            config.append(mount, "mounts")


def _normal(path: "Any") -> str:
    return os.path.normpath(path) if isinstance(path, str) else ""


# Removal


def remove(config: JsonDocument, original: JsonDocument, files: "Mapping[str, str]", prefix: str) -> None:
    """Remove all of these changes from a config.json that was `original` before."""
    for stage in STAGES:
        own = original.get("hooks", stage) or []
        for number, entry in _last_first(config.get("hooks", stage)):
            if is_ours(entry, stage) and entry not in own:
                config.remove("hooks", stage, number)
        _as_before(config, original, "hooks", stage)
    _as_before(config, original, "hooks")

    own = original.get("mounts") or []
    for number, mount in _last_first(config.get("mounts")):
        if isinstance(mount, dict) and mount not in own:
            if (mount.get("destination"), mount.get("source")) in files.items():
                config.remove("mounts", number)
    _as_before(config, original, "mounts")

    hostname = config.get("hostname")
    if hostname is not None and hostname == config.get("annotations", f"{prefix}hostname"):
        if original.get("hostname") is None:
            config.remove("hostname")
        elif original.get("hostname") != hostname:
            config.set(original.get("hostname"), "hostname")

    for name in config.get("annotations") or {}:
        before = original.get("annotations", name)
        if not name.startswith(prefix) or before == config.get("annotations", name):
            continue
        if before is None:
            config.remove("annotations", name)
        else:
            config.set(before, "annotations", name)
    _as_before(config, original, "annotations")

    if Bundle(original.get(), "config.json").network_namespace == HOST:
        namespaces = config.get("linux", "namespaces") or []
        if {"type": "network"} in namespaces:
            config.remove("linux", "namespaces", namespaces.index({"type": "network"}))
        _as_before(config, original, "linux", "namespaces")
        _as_before(config, original, "linux")


def _last_first(value: "Any") -> "list[tuple[int, Any]]":
    """Return the items of a list with their indexes, the last one first, so that they can be removed."""
    return list(enumerate(value))[::-1] if isinstance(value, list) else []


def _as_before(config: JsonDocument, original: JsonDocument, *path: str) -> None:
    """Restore an object or list that is now empty, if it was missing or null in `original`."""
    *above, key = path
    container = config.get(*above)
    if not isinstance(container, dict) or container.get(key) not in ({}, []):
        return
    held = original.get(*above)
    if not isinstance(held, dict) or key not in held:
        config.remove(*path)
    elif held[key] is None:
        config.set(None, *path)


def _ensure(config: JsonDocument, empty: "Any", *path: str) -> "Any":
    """Return the object or list at `path`; create it if it is missing.  Raises CniError for another type."""
    for length in range(1, len(path) + 1):
        default = empty if length == len(path) else {}
        value = config.get(*path[:length])
        if value is None:
            config.set(default, *path[:length])
        elif type(value) is not type(default):
            kind = "an object" if default == {} else "a list"
            raise invalid_config(f"{'.'.join(path[:length])} must be {kind}")
    return config.get(*path)


# The file


def read(path: str) -> JsonDocument:
    """Read a config.json.  Raises CniError or OSError."""
    try:
        data = statefile.content(path, follow=True)
        if data is None:
            raise FileNotFoundError(ENOENT, os.strerror(ENOENT), path)
        return JsonDocument(data.decode())
    except ValueError as error:
        raise CniError(DECODING_FAILURE, f"{path}: {error}") from None


def write(path: str, text: str, *, durable: bool = False) -> None:
    """Replace a file whole or not at all, and keep its mode and owner.  Raises OSError.

    `durable`: also if the power fails.
    """
    path = os.path.realpath(path)
    temporary = f"{path}.cnihook-{os.getpid()}"
    try:
        status = os.stat(path)
        fd = statefile.create(temporary)
        with open(fd, "wb") as file:
            file.write(text.encode())
            os.fchown(fd, status.st_uid, status.st_gid)
            os.fchmod(fd, status.st_mode & 0o7777)
            if durable:
                file.flush()
                os.fsync(fd)
        os.replace(temporary, path)
    except BaseException as error:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, path) from None
        raise
