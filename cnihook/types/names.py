# SPDX-License-Identifier: Apache-2.0
"""
Checks of container IDs, names of networks and interfaces, and types of plugins.

Each of them becomes a file name, an nftables identifier or an argument to the kernel, so each is checked
wherever it enters.  (`import re` costs 4 ms; sets of characters are enough.)
"""

from cnihook.types.errors import INVALID_CONFIG, INVALID_ENVIRONMENT, UNKNOWN_CONTAINER, CniError

ANNOTATION_PREFIX = "cnihook."  # of the annotations that request something of cnihook

_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_REST = _FIRST | frozenset("_.-")
_FILE_NAME_MAX = 255  # <linux/limits.h> NAME_MAX, bytes
_STICKY_NAME_MAX = 64
_IFNAME_MAX = 15  # <linux/if.h> IFNAMSIZ less its closing zero, bytes


def _is_identifier(name: str) -> bool:
    return bool(name) and name[0] in _FIRST and _REST.issuperset(name)


def shown(name: str) -> str:
    """Return a name in quotes on one line, cut to 64 characters."""
    return repr(name if len(name) <= 64 else name[:61] + "...")


def check_container_id(name: str) -> None:
    if not name:
        raise CniError(UNKNOWN_CONTAINER, "the container ID is missing")
    if not _is_identifier(name):
        raise CniError(
            INVALID_ENVIRONMENT,
            f"invalid characters in container ID {shown(name)}",
            "it may hold letters, digits, '_', '.' and '-', and starts with a letter or a digit",
        )
    if len(name) > _FILE_NAME_MAX:
        raise CniError(
            INVALID_ENVIRONMENT, f"container ID {shown(name)} is longer than {_FILE_NAME_MAX} characters"
        )


def check_network_name(name: str, where: str = "") -> None:
    prefix = f"{where}: " if where else ""
    if not name:
        raise CniError(INVALID_CONFIG, f'{prefix}missing network name: the key "name" is empty or absent')
    if len(name) > _FILE_NAME_MAX:
        what = f"network name {shown(name)} is longer than {_FILE_NAME_MAX} characters"
        raise CniError(INVALID_CONFIG, f"{prefix}{what}")
    if not _is_identifier(name):
        raise CniError(
            INVALID_CONFIG,
            f"{prefix}invalid characters found in network name {shown(name)}",
            "it may hold letters, digits, '_', '.' and '-', and starts with a letter or a digit",
        )


def check_ifname(name: str) -> None:
    def refuse(why: str, details: str = "") -> CniError:
        return CniError(INVALID_ENVIRONMENT, f"interface name {shown(name)} {why}", details)

    if not name:
        raise CniError(INVALID_ENVIRONMENT, "interface name is empty")
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise refuse("is not UTF-8") from None
    if length > _IFNAME_MAX:
        raise refuse("is too long", f"an interface name has at most {_IFNAME_MAX} bytes")
    if name in (".", ".."):
        raise refuse("is . or ..")
    if any(char in "/:\0" or char.isspace() for char in name):
        raise refuse("contains / or : or whitespace characters")
    if not name.isprintable():
        raise refuse("has a character that cannot be printed")
    if "%" in name:
        raise refuse("contains %", "the kernel takes it as a pattern and makes another name from it")


def check_plugin_type(name: str) -> None:
    if not name:
        raise CniError(INVALID_CONFIG, 'no plugin name provided: the key "type" is empty or absent')
    if "/" in name or "\0" in name or name in (".", ".."):
        raise CniError(
            INVALID_CONFIG, f"invalid plugin name {shown(name)}", "a type is a file name, not a path"
        )


def check_sticky_name(name: str) -> None:
    if not _is_identifier(name) or len(name) > _STICKY_NAME_MAX:
        raise CniError(
            INVALID_CONFIG,
            f"sticky name {shown(name)} is not valid",
            f"it holds up to {_STICKY_NAME_MAX} letters, digits, '_', '.' and '-', and starts with a letter"
            " or a digit",
        )


def record_name(network: str, container_id: str, ifname: str) -> str:
    """Return the file name of an attachment's record.

    Raises CniError if the three together are too long for a file name.
    """
    name = f"{network}-{container_id}-{ifname}"
    if len(name.encode()) > _FILE_NAME_MAX:
        raise CniError(
            INVALID_ENVIRONMENT,
            f"container ID {shown(container_id)} is too long: with network {shown(network)} and {ifname}"
            f" it makes a file name of {len(name)} characters, and {_FILE_NAME_MAX} are allowed",
        )
    return name


def is_text(value: str) -> bool:
    """Return False for a NUL and for halves of characters.

    JSON can hold them, but no path and no name in the kernel can.
    """
    if value.isascii():
        return "\0" not in value
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False
