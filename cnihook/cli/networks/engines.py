# SPDX-License-Identifier: Apache-2.0
"""
The networks of docker and podman, by their files: after a boot, their bridges may not exist yet.

    /etc/containers/networks/NAME.json             podman with netavark, as root
    DATA-ROOT/network/files/local-kv.db            docker; a database of bbolt, whose values are JSON

A file that cannot be used is reported on stderr, and counts as empty.
"""

import json
import re
from collections.abc import Iterator

from cnihook.fast import statefile
from cnihook.fast.address import IPNet
from cnihook.fast.errors_text import message
from cnihook.fast.statefile import UnusableFileError
from cnihook.log import warn
from cnihook.runtime import networks
from cnihook.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PODMAN = "/etc/containers/networks"
DOCKER_SETTINGS = "/etc/docker/daemon.json"
DOCKER = "/var/lib/docker"
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
        raw = _read_json(path)
        if isinstance(raw, dict):
            yield raw


def docker_pools() -> "list[IPNet]":
    """Return the subnets that docker's database names, also those of networks that were removed lately.

    bbolt overwrites a removed entry at some later time.  So this is for the choice of a free subnet only.
    """
    settings = _read_json(DOCKER_SETTINGS)
    root = settings.get("data-root") if isinstance(settings, dict) else None
    content = _read(f"{root if isinstance(root, str) and root else DOCKER}/{_DOCKER_FILE}")
    pools = []
    for text in set(_POOL.findall(content)):
        try:
            pools.append(IPNet.parse(text.decode()))
        except ValueError:
            continue
    return pools


def _read_json(path: str) -> "Any":
    try:
        content = _read(path)
        return json.loads(content) if content else None
    except (ValueError, RecursionError) as error:
        warn(f"{path}: {error}")
        return None


def _read(path: str) -> bytes:
    try:
        return statefile.content(path, follow=True) or b""
    except UnusableFileError as problem:
        warn(f"{path}: {problem}")
    except OSError as error:
        warn(message(error))
    return b""
