# SPDX-License-Identifier: Apache-2.0
"""Versions of the CNI specification: which exist, how they compare, and which one of a list is used."""

from cnihook.types.config import NetConf, json_name
from cnihook.types.errors import DECODING_FAILURE, INCOMPATIBLE_VERSION, INVALID_CONFIG, CniError

ALL = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
CURRENT = ALL[-1]
OLDEST = ALL[0]  # of a configuration without a version

# The first version that has an operation, as in the reference's plugin skeleton.
SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def parse(version: str) -> "tuple[int, int, int]":
    """Return (1, 0, 0) for "1.0.0", "1.0" and "1"; (0, 1, 0) for "".  Raises ValueError."""
    if version == "":
        version = OLDEST
    parts = version.split(".")
    if len(parts) > 3 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise ValueError(f"{version!r} is not a version: write one to three numbers with dots between")
    numbers = [int(part) for part in parts] + [0, 0]
    return numbers[0], numbers[1], numbers[2]


def since(oldest: str) -> "tuple[str, ...]":
    """Return all versions from this one on."""
    return ALL[ALL.index(oldest) :]


def at_least(version: str, other: str) -> bool:
    return parse(version) >= parse(other)


def check_supported(version: str, supported: "Sequence[str]" = ALL) -> str:
    """Return `version`, or the oldest one for an empty text.  Raises CniError if it is not supported.

    The comparison is exact: "1.0" is not "1.0.0".
    """
    version = version or OLDEST
    if version not in supported:
        listed = " ".join(f'"{known}"' for known in supported)
        raise CniError(
            INCOMPATIBLE_VERSION,
            "incompatible CNI versions",
            f'config is "{version}", plugin supports [{listed}]',
        )
    return version


def check_operation(command: str, version: str) -> None:
    """Raise CniError if the configuration's version does not have the operation."""
    since = SINCE.get(command)
    try:
        too_old = since is not None and not at_least(version, since)
    except ValueError as error:
        raise CniError(DECODING_FAILURE, f"cniVersion: {error}") from None
    if too_old:
        raise CniError(
            INCOMPATIBLE_VERSION,
            f"config version does not allow {command}",
            f'it is "{version}", {since} or later is needed',
        )


def negotiate(raw: "dict[str, Any]", where: str) -> str:
    """Return the version of a network: the highest known one of its cniVersions and its cniVersion.

    If there is none, it is its cniVersion.
    """
    version = raw.get("cniVersion", "")
    if not isinstance(version, str):
        raise NetConf(raw, where).refuse("cniVersion", f"must be a string, not {json_name(version)}")
    offered = raw.get("cniVersions")
    if offered is None:
        return version
    if not isinstance(offered, list):
        raise NetConf(raw, where).refuse("cniVersions", f"must be a list, not {json_name(offered)}")
    candidates = []
    for index, entry in enumerate([*offered, *([version] if version else [])]):
        try:
            if not isinstance(entry, str) or not entry:
                raise ValueError(f"{entry!r} is not a version")
            if parse(entry) <= parse(CURRENT):
                candidates.append(entry)
        except ValueError as error:
            key = f"cniVersions[{index}]" if index < len(offered) else "cniVersion"
            raise CniError(INVALID_CONFIG, f'{where}: "{key}": {error}') from None
    return max(candidates, key=parse, default=version)
