# SPDX-License-Identifier: Apache-2.0
"""
The networks of docker and podman, by their files: after a boot, their bridges may not exist yet.

    /etc/containers/networks/NAME.json             podman with netavark, as root
    DATA-ROOT/network/files/local-kv.db            docker; a database of bbolt, whose values are JSON

A file that cannot be used is reported on stderr, and counts as empty.
"""

import re
from collections.abc import Iterator

from cnihook.fast.address import IPNet
from cnihook.log import warn
from cnihook.oci import engines
from cnihook.runtime import networks
from cnihook.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PODMAN = "/etc/containers/networks"
_DOCKER_FILE = "network/files/local-kv.db"
# JSON within text of JSON, up to three levels deep, so each quotation mark may have backslashes before it.
_POOL = re.compile(rb'Pool\\*":\\*"([0-9a-fA-F.:]{2,39}/[0-9]{1,3})')


def podman_subnets() -> "Iterator[tuple[str, IPNet]]":
    """Yield (name, subnet) for each subnet of podman's networks."""
    for raw in _podman_networks():
        subnets = raw.get("subnets")
        for item in subnets if isinstance(subnets, list) else []:
            try:
                yield str(raw.get("name")), IPNet.parse(item["subnet"])
            except (ValueError, KeyError, TypeError, AttributeError):
                continue


def podman_bridges() -> "dict[str, str]":
    """Return the names of podman's networks by their bridges."""
    return {str(raw.get("network_interface")): str(raw.get("name")) for raw in _podman_networks()}


def _podman_networks() -> "Iterator[dict[str, Any]]":
    try:
        paths = networks.file_names(PODMAN)
    except CniError as error:
        warn(str(error))
        return
    for path in paths:
        raw = engines.read_json(path, warn)
        if isinstance(raw, dict):
            yield raw


def docker_pools() -> "list[IPNet]":
    """Return the subnets that docker's database names, also those of networks that were removed lately.

    bbolt overwrites a removed entry at some later time.  So this is for the choice of a free subnet only.
    """
    content = engines.read(f"{engines.docker_folder('data-root', warn)}/{_DOCKER_FILE}", warn)
    pools = []
    for text in set(_POOL.findall(content)):
        try:
            pools.append(IPNet.parse(text.decode()))
        except ValueError:
            continue
    return pools
