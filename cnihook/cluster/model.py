# SPDX-License-Identifier: Apache-2.0
"""
The values in the store of a network that several hosts share: its settings, and the hosts of its blocks.

    config                  Settings
    blocks/10.60.7.0-24     Member: the host that has this block, and how the others reach it

The store is outside of this host: each value is bounded and checked before it is used.  Unknown keys are
ignored, because a newer agent may have written them.
"""

import base64
import binascii
import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from cnihook.fast import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    IPNetwork = IPv4Network | IPv6Network
    IPAddress = IPv4Address | IPv6Address

LEVEL = 1  # of the format: an agent refuses settings with a higher `min`
TRANSPORTS = ("vxlan", "routes", "wireguard", "none")
MOST_BLOCKS = 1 << 20  # of a network; a larger subnet has more, which stay unused
LONGEST = 4096  # bytes of a value in the store

_HEX = re.compile(r"[0-9a-f]{1,64}")
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")


class ModelError(Exception):
    """A value of the store is wrong; the text is one line."""


@dataclass(frozen=True)
class Settings:
    """The settings of a network, the same for all hosts.

    subnets: one, or one of each IP version
    blocks: the prefix length of a block, by subnet
    mtu: of the containers, already without what the transport adds
    epoch: random; another epoch is another life of the store
    names: True if containers have names on all hosts
    """

    subnets: "tuple[IPNetwork, ...]"
    blocks: "tuple[int, ...]"
    transport: str
    mtu: int
    epoch: str
    created: str
    vni: int = 117
    port: int = 4789
    names: bool = False

    def __post_init__(self) -> None:
        versions = {net.version for net in self.subnets}
        if not 1 <= len(self.subnets) == len(versions):
            raise ModelError("subnets: a network has one subnet, or one of each IP version")
        if len(self.blocks) != len(self.subnets):
            raise ModelError("blocks: each subnet needs one prefix length")
        for net, prefix in zip(self.subnets, self.blocks, strict=True):
            start = net.network_address
            if start.is_multicast or start.is_loopback or start.is_link_local or start.is_unspecified:
                raise ModelError(f"subnets: {net}: containers cannot have addresses of it")
            if not net.prefixlen < prefix <= net.max_prefixlen - 2:
                shortest, longest = net.prefixlen + 1, net.max_prefixlen - 2
                raise ModelError(f"blocks: /{prefix} of {net}: must be from /{shortest} to /{longest}")
        if self.transport not in TRANSPORTS:
            raise ModelError(f"transport: {self.transport!r:.40}: must be one of {', '.join(TRANSPORTS)}")
        least = 1280 if any(net.version == 6 for net in self.subnets) else 576
        _in_range("mtu", self.mtu, least, 65535)
        _in_range("vni", self.vni, 1, (1 << 24) - 1)
        _in_range("port", self.port, 1, 65535)
        if not _HEX.fullmatch(self.epoch):
            raise ModelError("epoch: must be 1 to 64 hexadecimal digits")
        if len(self.created) > 64 or not self.created.isprintable():
            raise ModelError("created: must be a time")

    @property
    def count(self) -> int:
        """The number of blocks."""
        bits = min(prefix - net.prefixlen for net, prefix in zip(self.subnets, self.blocks, strict=True))
        return min(1 << min(bits, 32), MOST_BLOCKS)

    def block(self, index: int) -> "tuple[IPNetwork, ...]":
        """Return the blocks of this index, one of each subnet.  Raises ModelError if it has none."""
        if not 0 <= index < self.count:
            raise ModelError(f"block {index}: the network has {self.count} blocks")
        return tuple(map(_part, self.subnets, self.blocks, (index,) * len(self.subnets)))

    def index(self, first_block: "IPNetwork") -> int:
        """Return the index of a block of the first subnet.  Raises ModelError for another network."""
        net, prefix = self.subnets[0], self.blocks[0]
        if first_block.version == net.version and first_block.prefixlen == prefix:
            distance = int(first_block.network_address) - int(net.network_address)
            index = distance >> (net.max_prefixlen - prefix)
            if 0 <= index < self.count:
                return index
        raise ModelError(f"{first_block} is not a block of {net}")

    def key(self, index: int) -> str:
        """Return the last part of a block's key in the store: 10.60.7.0-24."""
        first = self.block(index)[0]
        return f"{first.network_address}-{first.prefixlen}"

    def index_of_key(self, key: str) -> int:
        """Return the index of a block by the last part of its key.  Raises ModelError."""
        try:
            index = self.index(ipaddress.ip_network(key[:64].replace("-", "/", 1)))
        except ValueError:
            raise ModelError(f"{key!r:.64} does not name a block") from None
        if self.key(index) != key:  # another spelling would be a second key for the same block
            raise ModelError(f"{key!r:.64} is not how a block is named")
        return index

    def to_json(self) -> bytes:
        """Return the value of the key `config`."""
        value = {
            "min": LEVEL,
            "subnets": list(map(str, self.subnets)),
            "blocks": list(self.blocks),
            "transport": self.transport,
            "mtu": self.mtu,
            "vni": self.vni,
            "port": self.port,
            "epoch": self.epoch,
            "created": self.created,
        }
        return fastjson.dumps(value | ({"names": True} if self.names else {})).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Self":
        """Read the value of the key `config`.  Raises ModelError."""
        value = _object(text)
        if (level := _integer(value, "min", 1)) > LEVEL:
            raise ModelError(f"min: {level}: the network needs a newer agent; this one knows up to {LEVEL}")
        return cls(
            subnets=tuple(map(_network, _list(value, "subnets"))),
            blocks=tuple(_integer({"blocks": item}, "blocks") for item in _list(value, "blocks")),
            transport=_text(value, "transport"),
            mtu=_integer(value, "mtu"),
            epoch=_text(value, "epoch"),
            created=_text(value, "created", ""),
            vni=_integer(value, "vni", 117),
            port=_integer(value, "port", 4789),
            names=_flag(value, "names"),
        )


@dataclass(frozen=True)
class Member:
    """A host of the network: the value of its block's key.

    host: its machine ID
    claim: random, made with the claim; it shows that this host still has the block
    address: where the other hosts reach it
    mac, wg, port: what the transport needs: a MAC address, or WireGuard's public key and port
    """

    host: str
    name: str
    claim: str
    address: str
    mac: str = ""
    wg: str = ""
    port: int = 0

    def __post_init__(self) -> None:
        if not _MACHINE_ID.fullmatch(self.host):
            raise ModelError("host: must be a machine ID, 32 hexadecimal digits")
        if not 1 <= len(self.name) <= 253 or not self.name.isascii() or not self.name.isprintable():
            raise ModelError("name: must be a host name")
        if not _HEX.fullmatch(self.claim):
            raise ModelError("claim: must be 1 to 64 hexadecimal digits")
        try:
            address = ipaddress.ip_address(self.address)
        except ValueError:
            raise ModelError(f"address: {self.address!r:.64} is not an IP address") from None
        if address.is_multicast or address.is_loopback or address.is_unspecified or "%" in self.address:
            raise ModelError(f"address: {self.address}: other hosts cannot reach it")
        if self.mac and not (_MAC.fullmatch(self.mac) and not int(self.mac[:2], 16) & 1):
            raise ModelError(f"mac: {self.mac!r:.64} is not the MAC address of a host")
        if self.wg and not _is_wireguard_key(self.wg):
            raise ModelError("wg: must be a public key of WireGuard, 32 bytes in base64")
        _in_range("port", self.port, 0, 65535)

    @property
    def ip(self) -> "IPAddress":
        """The address."""
        return ipaddress.ip_address(self.address)

    def to_json(self) -> bytes:
        """Return the value of the block's key."""
        value: dict[str, object] = {
            "host": self.host,
            "name": self.name,
            "claim": self.claim,
            "address": self.address,
        }
        optional = {"mac": self.mac, "wg": self.wg, "port": self.port}
        return fastjson.dumps(value | {key: item for key, item in optional.items() if item}).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Self":
        """Read the value of a block's key.  Raises ModelError."""
        value = _object(text)
        return cls(
            host=_text(value, "host"),
            name=_text(value, "name"),
            claim=_text(value, "claim"),
            address=_text(value, "address"),
            mac=_text(value, "mac", ""),
            wg=_text(value, "wg", ""),
            port=_integer(value, "port", 0),
        )


@dataclass(frozen=True)
class Block:
    """A block that a host has.  `revision` is that of its key in the store; 0: it is from the snapshot."""

    index: int
    member: Member
    revision: int = 0


def _part(net: "IPNetwork", prefix: int, index: int) -> "IPNetwork":
    start = int(net.network_address) + (index << (net.max_prefixlen - prefix))
    return type(net)((start, prefix))


def _object(text: bytes) -> "dict[str, Any]":
    if len(text) > LONGEST:
        raise ModelError(f"a value of {len(text)} bytes is longer than {LONGEST}")
    try:
        value = fastjson.loads(text.decode())
    except ValueError as error:
        raise ModelError(f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelError("is not a JSON object")
    return value


def _list(value: "dict[str, Any]", key: str) -> "list[Any]":
    items = value.get(key)
    if not isinstance(items, list) or len(items) > 2:
        raise ModelError(f"{key}: must be a list of one or two values")
    return items


def _text(value: "dict[str, Any]", key: str, default: "str | None" = None) -> str:
    text = value.get(key, default)
    if not isinstance(text, str):
        raise ModelError(f"{key}: {'is missing' if text is None else 'must be text'}")
    return text


def _integer(value: "dict[str, Any]", key: str, default: "int | None" = None) -> int:
    number = value.get(key, default)
    if type(number) is not int:  # not isinstance: true is an int to Python, not to JSON
        raise ModelError(f"{key}: {'is missing' if number is None else 'must be an integer'}")
    return number


def _flag(value: "dict[str, Any]", key: str) -> bool:
    flag = value.get(key, False)
    if type(flag) is not bool:
        raise ModelError(f"{key}: must be true or false")
    return flag


def _network(text: object) -> "IPNetwork":
    try:
        if isinstance(text, str) and "/" in text and "%" not in text:
            return ipaddress.ip_network(text[:64])
    except ValueError:
        pass
    raise ModelError(f"subnets: {text!r:.64} is not a subnet: an address, /, and a prefix length")


def _in_range(key: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ModelError(f"{key}: {value!r:.40}: must be from {low} to {high}")


def _is_wireguard_key(text: str) -> bool:
    try:
        return len(text) == 44 and len(base64.b64decode(text, validate=True)) == 32
    except (binascii.Error, ValueError):
        return False
