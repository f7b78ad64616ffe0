# SPDX-License-Identifier: Apache-2.0
"""
DHCP messages: RFC 2131 (the message), 2132 (its options), 3396 (long ones), 3397 and 3442 (two of them).

What is read here comes from any machine on the link, so each reader accepts any bytes.  A malformed message
is a ValueError; a malformed option has no value.
"""

import struct

from cnihook.fast.address import Address, IPNet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# What a message is for, the value of its option 53.
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE = range(1, 8)

# Options, by the names of RFC 2132 where those are short.
PAD, SUBNET_MASK, ROUTERS, NAME_SERVERS, HOST_NAME, DOMAIN_NAME = 0, 1, 3, 6, 12, 15
STATIC_ROUTES, REQUESTED_ADDRESS, LEASE_TIME, OVERLOAD, MESSAGE_TYPE = 33, 50, 51, 52, 53
SERVER, PARAMETERS, ERROR, MAX_SIZE, RENEWAL_TIME, REBINDING_TIME = 54, 55, 56, 57, 58, 59
VENDOR_CLASS, CLIENT_ID, USER_CLASS, DOMAIN_SEARCH, CLASSLESS_ROUTES, END = 60, 61, 77, 119, 121, 255

FOREVER = 0xFFFFFFFF  # as a time
NOBODY = Address(4)

_BOOTREQUEST, _BOOTREPLY = 1, 2
_ETHERNET = 1
_MAGIC = b"\x63\x82\x53\x63"
# op, hardware type, its address length, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr
_FIXED = struct.Struct("!BBBB4sHH4s4s4s4s16s")
_NAMES = slice(_FIXED.size, _FIXED.size + 64), slice(_FIXED.size + 64, _FIXED.size + 192)  # sname, file
_OPTIONS = _FIXED.size + 192 + len(_MAGIC)
_SHORTEST = 300  # bytes of a BOOTP message, and some relays still want them


class Message:
    """A message.  A client's has its MAC and the address that it has (`current`), a server's `offered`."""

    __slots__ = ("current", "from_server", "mac", "offered", "options", "seconds", "xid")

    def __init__(
        self,
        xid: bytes,
        mac: bytes,
        options: "dict[int, bytes]",
        *,
        current: Address = NOBODY,
        offered: Address = NOBODY,
        seconds: int = 0,
        from_server: bool = False,
    ) -> None:
        self.xid = xid
        self.mac = mac
        self.options = options
        self.current = current
        self.offered = offered
        self.seconds = seconds  # since the client began to ask
        self.from_server = from_server

    @property
    def kind(self) -> int:
        """DISCOVER, OFFER, ...; 0 if the option is missing."""
        value = self.options.get(MESSAGE_TYPE, b"")
        return value[0] if len(value) == 1 else 0

    @property
    def server(self) -> "Address | None":
        return next(iter(addresses(self.options.get(SERVER, b""))), None)

    def encode(self) -> bytes:
        operation = _BOOTREPLY if self.from_server else _BOOTREQUEST
        fixed = _FIXED.pack(
            operation, _ETHERNET, len(self.mac), 0, self.xid, min(self.seconds, 0xFFFF), 0,
            self.current, self.offered, NOBODY, NOBODY, self.mac,
        )  # fmt: skip
        parts = [fixed, bytes(192), _MAGIC]
        for code, value in self.options.items():
            # A value that is too long for one option continues in the next of the same code (RFC 3396).
            for start in range(0, len(value) or 1, 255):
                piece = value[start : start + 255]
                parts.append(bytes((code, len(piece))) + piece)
        parts.append(bytes((END,)))
        return b"".join(parts).ljust(_SHORTEST, b"\0")

    @classmethod
    def decode(cls, data: bytes) -> "Message":
        """Return the message in `data`.  Raises ValueError if it is not a DHCP message."""
        if len(data) < _OPTIONS or data[_OPTIONS - 4 : _OPTIONS] != _MAGIC:
            raise ValueError("this is not a DHCP message")
        operation, _type, length, _hops, xid, seconds, _flags, current, offered, _s, _g, mac = (
            _FIXED.unpack_from(data)
        )
        options: dict[int, bytes] = {}
        _collect(options, data[_OPTIONS:])
        overload = options.pop(OVERLOAD, b"\0")[-1:]
        for bit, place in ((1, _NAMES[1]), (2, _NAMES[0])):  # where a server continues that needs more room
            if overload and overload[0] & bit:
                _collect(options, data[place])
        options.pop(OVERLOAD, None)  # there it has no meaning (RFC 2131, 4.1)
        return cls(
            xid,
            mac[:length],
            options,
            current=Address(current),
            offered=Address(offered),
            seconds=seconds,
            from_server=operation == _BOOTREPLY,
        )


def _collect(options: "dict[int, bytes]", data: bytes) -> None:
    at = 0
    while at < len(data) and data[at] != END:
        if data[at] == PAD:
            at += 1
            continue
        length = data[at + 1] if at + 1 < len(data) else len(data)
        value = data[at + 2 : at + 2 + length]
        if len(value) < length:
            raise ValueError(f"the message ends within option {data[at]}")
        options[data[at]] = options.get(data[at], b"") + value
        at += 2 + length


# The values of options


def addresses(value: bytes) -> "list[Address]":
    if len(value) % 4:
        return []
    return [Address(value[at : at + 4]) for at in range(0, len(value), 4)]


def seconds(options: "Mapping[int, bytes]", code: int) -> "int | None":
    value = options.get(code, b"")
    return int.from_bytes(value, "big") if len(value) == 4 else None


def prefix_length(mask: bytes) -> "int | None":
    """Return the prefix length of a subnet mask; None if it is not a mask."""
    if len(mask) != 4:
        return None
    bits = f"{int.from_bytes(mask, 'big'):032b}"
    return None if "01" in bits else bits.count("1")


def static_routes(value: bytes) -> "list[tuple[IPNet, Address]]":
    """Return option 33: pairs of destination and router.

    The class of a destination gives the size of its network, as in 1981.
    """
    pairs = addresses(value)
    if len(pairs) % 2:
        return []
    routes = []
    for destination, router in zip(pairs[::2], pairs[1::2], strict=True):
        first = destination[0]
        if first < 224 and not destination.is_unspecified:
            prefix = 8 if first < 128 else 16 if first < 192 else 24
            routes.append((IPNet(destination, prefix).network(), router))
    return routes


def classless_routes(value: bytes) -> "list[tuple[IPNet, Address]]":
    """Return option 121: prefix length, as many bytes of the destination as that needs, router."""
    routes = []
    at = 0
    while at < len(value):
        prefix = value[at]
        size = (prefix + 7) // 8
        end = at + 1 + size + 4
        if prefix > 32 or end > len(value):
            return []
        destination = Address(value[at + 1 : at + 1 + size].ljust(4, b"\0"))
        routes.append((IPNet(destination, prefix).network(), Address(value[end - 4 : end])))
        at = end
    return routes


def domain_name(value: bytes) -> str:
    """Return option 15; empty if it is not a domain name."""
    name = value.rstrip(b"\0.").decode(errors="replace")
    return name if _is_domain(name) else ""


def domain_search(value: bytes) -> "list[str]":
    """Return option 119: names in the format of DNS.

    In it, the end of a name may be a pointer to any place within an earlier name.
    """
    try:
        return [name for name in _dns_names(value) if _is_domain(name)]
    except (IndexError, UnicodeDecodeError):
        return []


def _dns_names(value: bytes) -> "Iterator[str]":
    at = 0
    while at < len(value):
        labels = []
        end = 0  # where the next name begins, once a pointer has led elsewhere
        place = start = at
        while length := value[place]:
            if length < 64:
                label = value[place + 1 : place + 1 + length]
                if len(label) < length:
                    raise IndexError
                labels.append(label.decode("ascii"))
                place += 1 + length
            else:
                pointer = (length & 0x3F) << 8 | value[place + 1]
                end = end or place + 2
                if pointer >= start:  # only backwards, else it may go round for ever
                    raise IndexError
                place = start = pointer
        yield ".".join(labels)
        at = end or place + 1


_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def _is_domain(name: str) -> bool:
    """Return True if it may be in a resolv.conf, where a line break or a blank would add settings."""
    return 0 < len(name) <= 253 and _LETTERS.issuperset(name) and all(name.split("."))
