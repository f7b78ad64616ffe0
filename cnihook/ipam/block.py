# SPDX-License-Identifier: Apache-2.0
"""
The addresses that this host has of a cluster's network, which several hosts share.

    FOLDER/NAME/block.json    {"key": "10.60.7.0-24", "blocks": ["10.60.7.0/24"], "epoch": …, "fenced": ""}

The agent (cnihook/cluster) writes the file, and host-local reads it.  So a container's start needs neither
the agent nor the store, and works as long as this host has a block.
"""

from cnihook.fast import fastjson, statefile
from cnihook.types.errors import LIMITED_CONNECTIVITY, PLUGIN_NOT_AVAILABLE, CniError
from cnihook.types.names import check_network_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FOLDER = "/var/lib/cnihook/cluster"
FILE = "block.json"
_LONGEST = 1 << 16  # bytes


def content(network: str) -> "dict[str, Any]":
    """Return what block.json of a network has; empty without the file.  Raises CniError if it is damaged."""
    check_network_name(network, "block")
    path = f"{FOLDER}/{network}/{FILE}"
    try:
        value = fastjson.loads((statefile.content(path, longest=_LONGEST) or b"{}").decode())
    except ValueError as error:
        raise _unusable(network, f"{path}: {error}") from None
    if not isinstance(value, dict):
        raise _unusable(network, f"{path}: is not a JSON object")
    return value


def subnets(network: str, *, starts: bool) -> "list[str]":
    """Return this host's blocks, one of each IP version.

    `starts`: for a container that starts, which a host may not do with a block that belongs to another.
    Raises CniError.
    """
    value = content(network)
    reason = value.get("fenced")
    if starts and reason:
        raise CniError(
            LIMITED_CONNECTIVITY,
            f"cluster network {network}: this host may not start containers: {str(reason)!r:.200}",
            f"`cnihook cluster status {network}` shows why; `cnihook cluster leave {network} --force` and"
            " another join give the host another block",
        )
    blocks = value.get("blocks")
    if not blocks:
        raise CniError(
            PLUGIN_NOT_AVAILABLE,
            f"cluster network {network}: this host has no block of addresses yet",
            f"`cnihook cluster status {network}` shows what it waits for",
        )
    if not isinstance(blocks, list) or not all(isinstance(block, str) for block in blocks):
        raise _unusable(network, f"{FOLDER}/{network}/{FILE}: blocks: must be a list of subnets")
    return blocks


def _unusable(network: str, problem: str) -> CniError:
    return CniError(PLUGIN_NOT_AVAILABLE, problem, f"`cnihook cluster status {network}` shows what is wrong")
