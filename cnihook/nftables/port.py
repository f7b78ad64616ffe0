# SPDX-License-Identifier: Apache-2.0
"""A port of the host, and its keys in the maps of nftables."""

from cnihook.fast.address import Address

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


class Port:
    """A port of the host, in one IP version.  Without an `address`, it is the port on every address."""

    __slots__ = ("address", "number", "protocol", "version")

    def __init__(self, version: int, protocol: str, number: int, address: "Address | None" = None) -> None:
        self.version = version
        self.protocol = protocol
        self.number = number
        self.address = address

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Port) and (self.version, self.key) == (other.version, other.key)

    def __hash__(self) -> int:
        return hash((self.version, self.key))

    def __str__(self) -> str:
        return f"{self.number}/{self.protocol}{f' of {self.address}' if self.address else ''}"

    @property
    def everywhere(self) -> bytes:
        """The key without an address.  Each part fills whole words of four bytes."""
        return bytes((PROTOCOLS[self.protocol], 0, 0, 0)) + self.number.to_bytes(2, "big") + bytes(2)

    @property
    def key(self) -> bytes:
        return bytes(self.address or b"") + self.everywhere

    @property
    def text(self) -> str:
        """The key as nft writes it."""
        return f"{f'{self.address} . ' if self.address else ''}{self.protocol} . {self.number}"
