# SPDX-License-Identifier: Apache-2.0
"""
The addresses that this host has of a cluster's network, which several hosts share.

    FOLDER/NAME/block.json    {"key": "10.60.7.0-24", "blocks": ["10.60.7.0/24"], "epoch": …, "fenced": ""}

The agent (cnihook/cluster) writes the file, and host-local reads it.  So a container's start needs neither
the agent nor the store, and works as long as this host has a block.
"""

import os

from cnihook.fast import fastjson, statefile
from cnihook.types.config import NetConf
from cnihook.types.errors import LIMITED_CONNECTIVITY, PLUGIN_NOT_AVAILABLE, CniError
from cnihook.types.names import check_network_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FOLDER = "/var/lib/cnihook/cluster"
FILE = "block.json"
MEMBER = "member.json"  # how this host joined; see cnihook/cluster/state.py
_LONGEST = 1 << 16  # bytes


def ranges(ipam: NetConf, others: "list[tuple[str, Any]]", *, starts: bool) -> "list[NetConf]":
    """Return the ranges of a configuration with the key `block`.

    `others`: ranges that it has also, each behind its key, which is refused.
    `starts` and the errors are those of subnets().
    """
    if others:
        raise ipam.refuse("block", f"and {others[0][0]} are both there", "remove one of them")
    return [type(ipam)({"subnet": subnet}, FILE) for subnet in subnets(ipam.string("block"), starts=starts)]


def subnets(network: str, *, starts: bool) -> "list[str]":
    """Return this host's blocks, one of each IP version.

    `starts`: for a container that starts.  Raises CniError then if the host has no block, or may not use it;
    otherwise the list is empty without a block.
    """
    check_network_name(network, "block")
    path = f"{FOLDER}/{network}/{FILE}"
    problem, value = "", {}
    try:
        value = fastjson.loads((statefile.content(path, longest=_LONGEST) or b"{}").decode())
    except ValueError as error:
        problem = f"{path}: {error}"
    if not isinstance(value, dict):
        problem, value = f"{path}: is not a JSON object", {}
    blocks = value.get("blocks") or []
    if not isinstance(blocks, list) or not all(isinstance(block, str) for block in blocks):
        problem, blocks = f"{path}: blocks: must be a list of subnets", []
    if not starts:
        return blocks
    if reason := value.get("fenced"):
        raise CniError(
            LIMITED_CONNECTIVITY,
            f"cluster network {network}: this host may not start containers: {str(reason)!r:.200}",
            f"`cnihook cluster status {network}` shows why; `cnihook cluster leave {network} --force` and"
            " another join give the host another block",
        )
    if not blocks:
        raise CniError(
            PLUGIN_NOT_AVAILABLE,
            problem or f"cluster network {network}: this host has no block of addresses yet",
            f"`cnihook cluster status {network}` shows what it waits for",
        )
    return blocks


def is_joined(network: str) -> bool:
    """Return True if this host shares the network with others."""
    return os.path.exists(f"{FOLDER}/{network}/{MEMBER}")


def network_of(plugin: "dict[str, Any]") -> str:
    """Return the network of several hosts whose block a plugin leases from; empty for none."""
    ipam = plugin.get("ipam")
    name = ipam.get("block") if isinstance(ipam, dict) else None
    return name if isinstance(name, str) else ""
