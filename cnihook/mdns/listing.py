# SPDX-License-Identifier: Apache-2.0
"""
What a container requests of multicast DNS: a file per attachment, with the name of its record.

    /run/cnihook/mdns/attachments/front-c1-eth0
    {"container": "c1",
     "interface": "cni0",                       of the host, by which the container's messages arrive
     "addresses": ["10.22.0.2", "fe80::8c1"],   of the container, from which it sends them
     "uplinks": ["eth0"]}                       interfaces of the LAN; an empty list: see daemon
"""

import os

from cnihook.fast import fastjson, statefile
from cnihook.fast.address import Address
from cnihook.types import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FOLDER = "/run/cnihook/mdns/attachments"

_LONGEST = 1 << 16  # bytes of a file


class Listing(Value):
    """The request of one attachment.  `name`: that of its record's file."""

    __slots__ = ("addresses", "container_id", "interface", "name", "uplinks")

    def __init__(
        self, name: str, container_id: str, interface: str, addresses: "list[Address]", uplinks: "list[str]"
    ) -> None:
        self.name = name
        self.container_id = container_id
        self.interface = interface
        self.addresses = addresses
        self.uplinks = uplinks

    def to_json(self) -> "dict[str, Any]":
        return {
            "container": self.container_id,
            "interface": self.interface,
            "addresses": list(map(str, self.addresses)),
            "uplinks": self.uplinks,
        }

    def write(self) -> None:
        os.makedirs(FOLDER, mode=0o700, exist_ok=True)
        statefile.replace(_path(self.name), fastjson.dumps(self.to_json()).encode())

    @classmethod
    def read(cls, name: str) -> "Listing | None":
        """Return the request of an attachment, or None.  Raises ValueError if the file is malformed."""
        try:
            data = statefile.content(_path(name), longest=_LONGEST)
            return None if data is None else cls._parse(name, fastjson.loads(data.decode()))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{_path(name)}: {error}") from None

    @classmethod
    def _parse(cls, name: str, content: "dict[str, Any]") -> "Listing":
        return cls(
            name,
            str(content["container"]),
            str(content["interface"]),
            [Address.parse(text) for text in content["addresses"]],
            list(map(str, content["uplinks"])),
        )


def forget(name: str) -> bool:
    """Remove the request of an attachment.  Returns False if it has none."""
    try:
        os.unlink(_path(name))
    except FileNotFoundError:
        return False
    return True


def names() -> "list[str]":
    """Return the names of the attachments that have a request."""
    try:
        return sorted(name for name in os.listdir(FOLDER) if not name.startswith("."))
    except FileNotFoundError:
        return []


def _path(name: str) -> str:
    return f"{FOLDER}/{name}"
