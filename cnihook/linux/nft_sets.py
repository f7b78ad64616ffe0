# SPDX-License-Identifier: Apache-2.0
"""
Sets with more than elements: of intervals, and those that packets fill, with a counter for each element.
Chains of filters, too.

Messages for nft.change(), and expressions for rules; nft_objects has the others.
"""

import _struct as struct

from cnihook.linux import nft, nft_objects
from cnihook.linux.netlink import NLM_F_CREATE, NLM_F_DUMP, NetlinkError, attr, attributes, nested, text
from cnihook.linux.nft import SUBSYSTEM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cnihook.fast.address import IPNet
    from cnihook.linux.nft_objects import Message, Rule

GOTO, ACCEPT = -4, 1  # verdicts
INTERVAL, TIMEOUT, EVAL = 0x4, 0x10, 0x20  # NFT_SET_*

_NEWSETELEM, _GETSETELEM = SUBSYSTEM | 12, SUBSYSTEM | 13
_SET_DESC, _SET_TIMEOUT, _DESC_SIZE = 9, 11, 1
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _LIST_ELEM = 1, 2, 3, 1
_ELEM_KEY, _ELEM_FLAGS, _ELEM_TIMEOUT, _ELEM_EXPIRATION, _ELEM_EXPR, _ELEM_EXPRESSIONS = 1, 3, 4, 5, 7, 11
_INTERVAL_END, _DATA_VALUE, _EXPR_NAME, _EXPR_DATA = 1, 1, 1, 2
_COUNTER_PACKETS = 2
_IN_ONE_MESSAGE = 500  # elements; an attribute has 64 KiB at most


def interval_set(table: str, name: str, key: "tuple[int, int]") -> "Message":
    return nft_objects.new_set(table, name, INTERVAL, key)


def filled_set(table: str, name: str, key: "tuple[int, int]", *, size: int, timeout: int) -> "Message":
    """Return the message that adds a set to which packets add elements.  `timeout`: seconds."""
    more = nested(_SET_DESC, _u32(_DESC_SIZE, size)) + _u64(_SET_TIMEOUT, timeout * 1000)
    return nft_objects.new_set(table, name, TIMEOUT | EVAL, key, more)


def timeout_set(table: str, name: str, key: "tuple[int, int]") -> "Message":
    """Return the message that adds a set whose elements the kernel removes, each after its own time."""
    return nft_objects.new_set(table, name, TIMEOUT, key)


def add_intervals(table: str, name: str, ranges: "Iterable[tuple[bytes, bytes]]") -> "Iterator[Message]":
    """Yield the messages that add ranges (first, last), which do not overlap, to an empty set."""
    elements = []
    for first, last in ranges:
        elements.append(nested(_LIST_ELEM, nested(_ELEM_KEY, attr(_DATA_VALUE, first))))
        after = int.from_bytes(last, "big") + 1
        if after < 1 << 8 * len(last):
            end = after.to_bytes(len(last), "big")
            body = nested(_ELEM_KEY, attr(_DATA_VALUE, end)) + _u32(_ELEM_FLAGS, _INTERVAL_END)
            elements.append(nested(_LIST_ELEM, body))
    for begin in range(0, len(elements), _IN_ONE_MESSAGE):
        part = nested(_LIST_ELEMENTS, *elements[begin : begin + _IN_ONE_MESSAGE])
        yield _NEWSETELEM, NLM_F_CREATE, text(_LIST_TABLE, table) + text(_LIST_SET, name) + part


def filter_chains(
    table: str, chains: "Mapping[str, Sequence[Rule]]", hooks: "Mapping[str, tuple[int, int]]"
) -> "Iterator[Message]":
    """Yield the messages after which these chains have these rules, and no others.

    `hooks`: (hook, priority) of each chain that the kernel calls.
    """
    for name in chains:
        kind = ("filter", *hooks[name]) if name in hooks else ()
        yield nft_objects.chain(table, name, *kind)
    for name, rules in chains.items():
        yield from nft_objects.replace_rules(table, name, rules)


class Count:
    """An element that packets have added: its key, the packets, and the seconds since the last one."""

    __slots__ = ("age", "key", "packets")

    def __init__(self, key: bytes, packets: int, age: float) -> None:
        self.key = key
        self.packets = packets
        self.age = age


def counts(family: str, table: str, name: str) -> "list[Count]":
    """Return the elements of a set that packets fill; none if it does not exist."""
    import errno

    from cnihook.linux.netlink import netfilter

    header = struct.pack("=BBH", nft.FAMILIES[family], 0, 0)
    body = text(_LIST_TABLE, table) + text(_LIST_SET, name)
    try:
        answers = netfilter().request(_GETSETELEM, NLM_F_DUMP, header + body, f"list the elements of {name}")
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return []
        raise
    elements = []
    for answer in answers:
        for elem in nft.listed(attributes(answer, 4).get(_LIST_ELEMENTS, b"")):
            key = attributes(elem.get(_ELEM_KEY, b"")).get(_DATA_VALUE, b"")
            timeout, left = (_read_u64(elem.get(kind)) for kind in (_ELEM_TIMEOUT, _ELEM_EXPIRATION))
            expression = elem.get(_ELEM_EXPR, b"")
            if not expression and (several := nft.listed(elem.get(_ELEM_EXPRESSIONS, b""))):
                data = several[0].get(_EXPR_DATA, b"")
            else:
                data = attributes(expression).get(_EXPR_DATA, b"")
            packets = _read_u64(attributes(data).get(_COUNTER_PACKETS))
            elements.append(Count(key, packets, max(timeout - left, 0) / 1000))
    return elements


def update(name: str, timeout: int) -> bytes:
    """Add the loaded key to a set, or count it there, for `timeout` seconds from now."""
    counter = text(_EXPR_NAME, "counter") + nested(_EXPR_DATA)
    return nft_objects._expression(
        "dynset",
        text(1, name),
        _u32(3, 1),  # NFT_DYNSET_OP_UPDATE
        _u32(4, nft_objects._REGISTER),
        _u64(6, timeout * 1000),
        nested(7, counter),
    )


def reject() -> bytes:
    """Answer with the ICMP error `administratively prohibited`, and drop the packet."""
    return nft_objects._expression("reject", _u32(1, 2), attr(2, bytes((3,))))  # NFT_REJECT_ICMPX_*


def is_in(name: str, *, inverted: bool = False) -> bytes:
    """Match if the loaded key is in a set, or is not."""
    flags = _u32(5, 1) if inverted else b""
    return nft_objects._expression("lookup", text(1, name), _u32(2, nft_objects._REGISTER), flags)


def load_interface(word: int = 0, *, leaving: bool = False) -> bytes:
    """Load the name of the interface of a packet into the key, from this word of four bytes on."""
    key = nft_objects._META_OIFNAME if leaving else nft_objects._META_IIFNAME
    return nft_objects._meta(key, _register(word))


def load_link(offset: int, length: int, word: int = 0) -> bytes:
    """Load from the link header, such as (6, 6), the MAC address of the sender."""
    return nft_objects._load(offset, length, nft_objects._LINK_HEADER, _register(word))


def load_network(offset: int, length: int, word: int = 0) -> bytes:
    return nft_objects._load(offset, length, nft_objects._NETWORK_HEADER, _register(word))


def load_transport(offset: int, length: int, word: int = 0) -> bytes:
    return nft_objects._load(offset, length, nft_objects._TRANSPORT_HEADER, _register(word))


def load_protocol(word: int = 0) -> bytes:
    return nft_objects._meta(nft_objects._META_L4PROTO, _register(word))


def load_value(value: bytes, word: int = 0) -> bytes:
    return nft_objects._expression(
        "immediate", _u32(1, _register(word)), nested(2, attr(_DATA_VALUE, value))
    )


def load_address(version: int, word: int = 0, *, of_source: bool = True) -> bytes:
    """Load the source or the destination, without a match of the IP version."""
    places = nft_objects._SOURCE if of_source else nft_objects._DESTINATION
    return load_network(*places[version], word)


def of_source(net: "IPNet") -> bytes:
    """Match what an address of this network sends, without a match of the IP version."""
    return nft_objects._within(net, nft_objects._SOURCE)


def of_version(version: int) -> bytes:
    return nft_objects._of_version(version)


def of_ethertype(number: int) -> bytes:
    """Match the protocol of a frame, in the families bridge and netdev."""
    return nft_objects._meta(1) + equals(struct.pack(">H", number))  # NFT_META_PROTOCOL


def is_routed() -> bytes:
    """Match what the IP stack has routed, so that its hooks have seen it: not a frame of a packet socket.

    Each route has a realm, 0 by default.  A packet without a route does not match.
    """
    return nft_objects._meta(13) + nft_objects._compare(5, bytes(4))  # NFT_META_RTCLASSID, NFT_CMP_GTE


def of_protocol(number: int) -> bytes:
    """Match the protocol in an IP packet."""
    return load_protocol() + equals(bytes((number,)))


def equals(value: bytes) -> bytes:
    """Match if what was loaded last, into the first word, has this value."""
    return nft_objects._compare(0, value)


def differs(value: bytes) -> bytes:
    """Match if what was loaded last does not have this value."""
    return nft_objects._compare(1, value)


def between(low: bytes, high: bytes) -> bytes:
    if low == high:
        return equals(low)
    return nft_objects._compare(5, low) + nft_objects._compare(3, high)  # NFT_CMP_GTE, NFT_CMP_LTE


def _register(word: int) -> int:
    return nft_objects._WORDS + word if word else nft_objects._REGISTER


def _u32(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack(">I", value))


def _u64(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack(">Q", value))


def _read_u64(data: "bytes | None") -> int:
    return int(struct.unpack(">Q", data)[0]) if data and len(data) == 8 else 0
