# SPDX-License-Identifier: Apache-2.0
"""The nftables maps that hold published ports, and one port as an element there; see nftables.ports."""

from cnihook.fast.address import Address
from cnihook.linux import nft
from cnihook.nftables.port import PROTOCOLS, Port
from cnihook.nftables.table import FAMILY, NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FIRST, CONDITIONAL = "ports", "ports-conditional"  # chains: of all ports, and of those under conditions
_WHEN = "ports-when-"
_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


class Element:
    """A published port as its map has it."""

    __slots__ = ("maps", "owner", "port", "target")

    def __init__(self, maps: "Maps", key: bytes, value: bytes, owner: str) -> None:
        protocol, number = _PROTOCOL_NAMES[key[-8]], int.from_bytes(key[-4:-2], "big")
        self.maps = maps
        self.port = Port(maps.version, protocol, number, Address(key[:-8]) if len(key) > 8 else None)
        self.target = Address(value[:-4]), int.from_bytes(value[-4:-2], "big")
        self.owner = owner


class Maps:
    """The maps of one IP version for all ports under the same conditions, or without conditions."""

    def __init__(self, version: int, conditions: str = "", digest: str = "") -> None:
        if conditions:
            from _blake2 import blake2s

            digest = blake2s(f"ipv{version} {conditions}".encode(), digest_size=4).hexdigest()
        suffix = f"-{digest}" if digest else ""
        self.version = version
        self.conditions = conditions
        self.chain = f"{_WHEN}ipv{version}{suffix}" if digest else FIRST
        self.is_conditional = bool(digest)
        self.everywhere = f"ports{version}{suffix}"
        self.at = f"ports{version}-at{suffix}"
        self.held = f"ports{version}-held{suffix}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Maps) and self.everywhere == other.everywhere

    def __hash__(self) -> int:
        return hash(self.everywhere)

    def of(self, port: Port) -> str:
        return self.at if port.address else self.everywhere

    def find(self, ports: "Iterable[Port]") -> "dict[Port, Element]":
        """Return the elements of the ports of this IP version, by port, without those that do not exist."""
        present = {}
        own = {port.key: port for port in ports if port.version == self.version}
        for container in (self.everywhere, self.at):
            keys = [key for key, port in own.items() if self.of(port) == container]
            for key, entry in nft.entries_of(FAMILY, NAME, container, keys).items():
                present[own[key]] = Element(self, key, *entry)
        return present

    def elements(self) -> "list[Element]":
        return [
            Element(self, key, value, owner)
            for container in (self.everywhere, self.at)
            for key, value, owner in nft.entries(FAMILY, NAME, container)
            if key[-8] in _PROTOCOL_NAMES
        ]

    @property
    def objects(self) -> "list[str]":
        return [f"map {self.everywhere}", f"map {self.at}", f"set {self.held}"]


UNCONDITIONAL = [Maps(4), Maps(6)]


def conditional(chains: "Iterable[str]") -> "list[Maps]":
    """Return the maps of ports under conditions whose chains are among these chains of the table."""
    maps = []
    for chain in chains:
        if chain.startswith(_WHEN):
            version, _, digest = chain.removeprefix(f"{_WHEN}ipv").partition("-")
            maps.append(Maps(int(version), digest=digest))
    return maps


def maps_for(conditions: "Mapping[int, str]") -> "dict[int, Maps]":
    """Return the maps, by IP version, of ports under these conditions of nft, also by IP version."""
    return {version: Maps(version, conditions.get(version, "")) for version in (4, 6)}
