# SPDX-License-Identifier: Apache-2.0
"""
The operator's bounds on annotations: /etc/cnihook/config.json, and equivalent arguments of the hook.

    {"annotations": {"allow": ["networks", "publish"], "networks": ["front"], "ports": "1024-65535",
                     "trustImages": false}}

Without the file, or without a key, there is no such bound.  If the file has an error, no container that has
annotations is attached.
"""

import os

from cnihook.fast import fastjson
from cnihook.request import options, values
from cnihook.request.bounds import FILE, Bounds
from cnihook.types.config import NetConf, json_name
from cnihook.types.errors import CniError, invalid_config
from cnihook.types.names import check_network_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KEYS = ("allow", "networks", "ports", "trustImages")
_MAX = 1 << 20  # bytes
_OTHERS_WRITE = 0o022


def load() -> Bounds:
    """Read the file.  Raises CniError, also if it does not exist."""
    try:
        # O_NONBLOCK: a FIFO at this path must not delay a container's start.
        fd = os.open(FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise invalid_config(f"{FILE}: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        if problem := unsafe(status):
            raise invalid_config(f"{FILE}: {problem}", f"chown root:root {FILE}; chmod 644 {FILE}")
        if status.st_mode & 0o170000 != 0o100000:  # S_IFREG
            raise invalid_config(f"{FILE}: is not a regular file")
        text = os.read(fd, _MAX + 1)
    except OSError as error:
        raise invalid_config(f"{FILE}: {error.strerror}") from None
    finally:
        os.close(fd)
    return parse(decode(text, FILE), FILE)


def unsafe(status: os.stat_result) -> str:
    """Return the reason why a file or folder cannot be trusted with bounds; empty if it can."""
    if status.st_uid != 0:
        return f"its owner is user {status.st_uid}, not root"
    if status.st_mode & _OTHERS_WRITE:
        return f"users other than root can write to it (mode {status.st_mode & 0o7777:04o})"
    return ""


def decode(text: bytes, path: str) -> "dict[str, Any]":
    if len(text) > _MAX:
        raise invalid_config(f"{path}: is longer than {_MAX >> 20} MiB")
    try:
        raw = fastjson.loads(text.decode(), marks=True)
    except ValueError as error:
        raise invalid_config(f"{path}: error parsing configuration: {error}") from None
    if not isinstance(raw, dict):
        raise invalid_config(f"{path}: must be an object, not {json_name(raw)}")
    return raw


def is_bounds(raw: "dict[str, Any]") -> bool:
    """Return True if an object is meant to be this file, not a network."""
    return "annotations" in raw and not raw.keys() & {"name", "type", "plugins"}


def parse(raw: "dict[str, Any]", path: str) -> Bounds:
    """Return the bounds in the object of a file.

    Raises KeyRefusedError for the first key that is wrong, unknown, null or repeated.
    """
    file = NetConf(raw, path)
    _check_keys(file, ("annotations",))
    conf = file.object("annotations")
    _check_keys(conf, _KEYS)
    bounds = Bounds(f'"{{}}" in {path}')
    if conf.has("allow"):
        bounds.allow = _checked(conf, "allow", parse_allow)
    if conf.has("networks"):
        bounds.networks = _checked(conf, "networks", _parse_networks)
    if conf.has("ports"):
        text = conf.string("ports")
        try:
            bounds.ports = parse_ports(text)
        except CniError as error:
            raise conf.refuse("ports", f"is wrong: {error.msg}", error.details) from None
    bounds.trust_images = conf.boolean("trustImages")
    return bounds


def set_flag(bounds: "Bounds | None", option: str, value: str) -> Bounds:
    """Add an argument of the hook to the bounds that its arguments set.  Raises CniError."""
    bounds = bounds or Bounds("--{} among the hook's arguments")
    if option == "--allow":
        bounds.allow = parse_allow([name.strip() for name in value.split(",") if name.strip()])
    elif option == "--ports":
        bounds.ports = parse_ports(value)
    else:
        bounds.trust_images = True
    return bounds


def _check_keys(conf: NetConf, known: "tuple[str, ...]") -> None:
    for key in fastjson.repeated(conf.raw):
        raise conf.refuse_repeated(key)
    for key, value in conf.raw.items():
        if key not in known:
            raise conf.refuse(key, "is not a key of this file", f"there are {', '.join(known)}")
        if value is None:
            raise conf.refuse(key, "is null", "remove the key for no bound of this kind")


def _checked(conf: NetConf, key: str, parse: "Any") -> "frozenset[str]":
    names = conf.strings(key)
    try:
        checked: frozenset[str] = parse(names)
    except CniError as error:
        raise conf.refuse(key, f"is wrong: {error.msg}", error.details) from None
    return checked


def _parse_networks(names: "list[str]") -> "frozenset[str]":
    for name in names:
        check_network_name(name)
    return frozenset(names)


def parse_allow(names: "list[str]") -> "frozenset[str]":
    """Return the options as a set of their annotations' names.  Raises CniError for an unknown one."""
    for name in names:
        if name not in options.BOUNDED:
            raise values.refuse(
                f"option {name!r}", "does not exist", f"there are {', '.join(options.BOUNDED)}"
            )
    return frozenset(names)


def parse_ports(text: str) -> "list[tuple[int, int]]":
    """Return the ports and port ranges in a comma-separated text such as 80,1024-65535.  Raises CniError."""
    ranges = []
    for part in text.split(","):
        ports = values.parse_port_range(part.strip(), f"ports {text!r}", "such as 80,1024-65535")
        ranges.append((ports[0], ports[-1]))
    return ranges
