# SPDX-License-Identifier: Apache-2.0
"""Addresses as the kernel takes them: packed bytes.

(`import ipaddress` costs 3 ms, and drops host bits.)
"""

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96, IPv4 addresses in IPv6 form


class Address(bytes):
    """One address: 4 or 16 bytes in network order."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Parse an IPv4 or IPv6 address.  Raises ValueError for anything else.

        ::ffff:1.2.3.4 is 1.2.3.4, as in Go.
        """
        try:
            packed = inet_pton(AF_INET6 if ":" in text else AF_INET, text)
        except (OSError, ValueError, TypeError):  # ValueError: it has a NUL; TypeError: not a string
            raise ValueError(f"{text!r} is not an IP address") from None
        return cls(packed[12:] if packed[:12] == _MAPPED else packed)

    def __str__(self) -> str:
        text = inet_ntop(self.family, self)
        if "." in text and len(self) == 16:
            # glibc writes ::1.2.3.4, Go writes ::102:304, and a lease is a file of that name.
            high, low = int.from_bytes(self[12:14], "big"), int.from_bytes(self[14:16], "big")
            return f"::{high:x}:{low:x}"
        return text

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"

    @property
    def family(self) -> int:
        return AF_INET if len(self) == 4 else AF_INET6

    @property
    def version(self) -> int:
        return 4 if len(self) == 4 else 6

    @property
    def bits(self) -> int:
        return len(self) * 8

    @property
    def is_unspecified(self) -> bool:
        return not any(self)

    @property
    def is_loopback(self) -> bool:
        return self[0] == 127 if len(self) == 4 else self == bytes(15) + b"\1"

    @property
    def is_link_local(self) -> bool:
        if len(self) == 4:
            return self[:2] == b"\xa9\xfe"  # 169.254.0.0/16
        return self[0] == 0xFE and self[1] & 0xC0 == 0x80  # fe80::/10

    def __add__(self, offset: int) -> "Address":  # type: ignore[override]  # nothing is appended to an address
        """Return the address `offset` further on (back, if negative); OverflowError beyond the last."""
        return Address((int.from_bytes(self, "big") + offset).to_bytes(len(self), "big"))

    def host_net(self) -> "IPNet":
        """Return the address as a network of its own: /32 or /128."""
        return IPNet(self, self.bits)


class IPNet:
    """An address with its prefix length, host bits kept: 10.1.2.3/24."""

    __slots__ = ("address", "prefix")

    def __init__(self, address: Address, prefix: int) -> None:
        self.address = address
        self.prefix = prefix

    @classmethod
    def parse(cls, text: str) -> "IPNet":
        """Parse ADDRESS/PREFIX.  Raises ValueError for anything else."""
        try:
            host, slash, length = text.partition("/")
            address = Address.parse(host)
            if not (slash and length.isascii() and length.isdigit()):
                raise ValueError
            # ::ffff:10.1.2.3/120 has an IPv4 address, and the prefix counts from the beginning of that.
            prefix = int(length) - (96 if ":" in host and len(address) == 4 else 0)
            if not 0 <= prefix <= address.bits:
                raise ValueError
        except (ValueError, AttributeError):
            raise ValueError(f"{text!r} is not an address in CIDR notation") from None
        return cls(address, prefix)

    def __str__(self) -> str:
        return f"{self.address}/{self.prefix}"

    def __repr__(self) -> str:
        return f"IPNet({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IPNet) and (self.address, self.prefix) == (other.address, other.prefix)

    def __hash__(self) -> int:
        return hash((self.address, self.prefix))

    @property
    def _host_mask(self) -> int:
        return (1 << (self.address.bits - self.prefix)) - 1

    def network(self) -> "IPNet":
        """Return the same network with the host bits cleared."""
        return IPNet(self.first(), self.prefix)

    def first(self) -> Address:
        value = int.from_bytes(self.address, "big") & ~self._host_mask
        return Address(value.to_bytes(len(self.address), "big"))

    def last(self) -> Address:
        """Return the highest address; in IPv4 this is the broadcast address."""
        value = int.from_bytes(self.address, "big") | self._host_mask
        return Address(value.to_bytes(len(self.address), "big"))

    def __contains__(self, address: Address) -> bool:
        return len(address) == len(self.address) and self.first() <= address <= self.last()

    def overlaps(self, other: "IPNet") -> bool:
        return self.first() in other or other.first() in self


_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")


def is_address(text: str) -> bool:
    try:
        Address.parse(text)
    except ValueError:
        return False
    return True


def mac_bytes(mac: str) -> bytes:
    """Return a MAC address as bytes.  Raises ValueError unless it is six hexadecimal bytes with colons."""
    parts = mac.split(":")
    if len(parts) != 6 or not all(len(part) == 2 and _HEXADECIMAL.issuperset(part) for part in parts):
        raise ValueError(f"{mac!r} is not a MAC address")
    return bytes(int(part, 16) for part in parts)
