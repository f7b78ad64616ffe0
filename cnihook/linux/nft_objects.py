# SPDX-License-Identifier: Apache-2.0
"""
Tables, chains, maps and rules as messages for nft.change().

libnftables would write the same.  But to load it takes a tenth of an ADD, and it ends the process if it gets
no socket.  `nft list` shows no difference.  <linux/netfilter/nf_tables.h> has the messages, and nft's
--debug=netlink the expressions.
"""

import _struct as struct

from cnihook.fast.address import Address, IPNet
from cnihook.linux.netlink import NLM_F_APPEND, NLM_F_CREATE, attr, nested, text
from cnihook.linux.nft import SUBSYSTEM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Message = tuple[int, int, bytes]

# libnftables' number for a type, and its length in whole words of four bytes.
IPV4_ADDR, IPV6_ADDR, IFNAME = (7, 4), (8, 16), (41, 16)
ETHER_ADDR, INET_PROTO, INET_SERVICE = (9, 8), (12, 4), (13, 4)
DROP, JUMP, RETURN = 0, -3, -5
PRE_ROUTING, INPUT, FORWARD, OUTPUT, POST_ROUTING = 0, 1, 2, 3, 4  # hooks
EGRESS = 1  # hook of the family netdev, NF_NETDEV_EGRESS
RAW, DSTNAT, FILTER, SRCNAT = -300, -100, 0, 100  # priorities there
ORIGINAL, REPLY = 0, 1  # directions of a connection
SRC_NAT, DST_NAT = 0x10, 0x20  # flags of conntrack's status

_NEWTABLE, _DELTABLE, _NEWCHAIN, _DELCHAIN = SUBSYSTEM, SUBSYSTEM | 2, SUBSYSTEM | 3, SUBSYSTEM | 5
_NEWRULE, _DELRULE, _NEWSET, _DELSET = SUBSYSTEM | 6, SUBSYSTEM | 8, SUBSYSTEM | 9, SUBSYSTEM | 11
_NAME, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_TYPE = 1, 3, 4, 7  # the table is attribute 1 of all
_HOOK_NUMBER, _HOOK_PRIORITY, _HOOK_DEVICE = 1, 2, 3
_SET_NAME, _SET_FLAGS, _SET_KEY_TYPE, _SET_KEY_LEN, _SET_DATA_TYPE, _SET_ID = 2, 3, 4, 5, 6, 10
_SET_DATA_LEN, _SET_USERDATA = 7, 13
_NATIVE_ORDER = struct.pack("=BBI", 0, 4, 1)  # libnftnl's NFTNL_UDATA_SET_KEYBYTEORDER, of the host
_MAP, _VERDICTS = 0x8, 0xFFFFFF00
_RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS, _LIST_ELEM, _EXPR_NAME, _EXPR_DATA = 2, 3, 4, 1, 1, 2
_DATA_VALUE, _DATA_VERDICT, _VERDICT_CODE, _VERDICT_CHAIN = 1, 2, 1, 2
_EQUAL, _NOT_EQUAL = 0, 1
_CT_STATE, _CT_DIRECTION, _CT_STATUS, _CT_SRC_IP, _CT_DST_IP = 0, 1, 2, 19, 20
_STATE_INVALID, _STATE_ESTABLISHED, _STATE_RELATED = 1, 2, 4
_NFPROTO = {4: bytes((2,)), 6: bytes((10,))}
_SOURCE, _DESTINATION = {4: (12, 4), 6: (8, 16)}, {4: (16, 4), 6: (24, 16)}  # offset and length
_META_IIFNAME, _META_OIFNAME, _META_NFPROTO, _META_L4PROTO = 6, 7, 15, 16
_LINK_HEADER, _NETWORK_HEADER, _TRANSPORT_HEADER = 0, 1, 2
_IPV4_CHECKSUM = (1, 10)  # NFT_PAYLOAD_CSUM_INET, and its offset
_OF_PSEUDO_HEADER = 1  # the checksums of TCP and UDP have the addresses, too
_FIB_ADDRESS_TYPE, _FIB_DESTINATION, _RTN_LOCAL, _NAT_DNAT = 3, 2, 2, 1
_VERDICT_REGISTER, _REGISTER = 0, 1
_WORDS = 8  # number of the first register of four bytes; the register above begins with it


def table(name: str) -> "Message":
    """Return the message that adds a table.  A table, chain or map that exists already stays as it is."""
    return _NEWTABLE, NLM_F_CREATE, text(_NAME, name)


def delete_table(name: str) -> "Message":
    return _DELTABLE, 0, text(_NAME, name)


def chain(
    table: str, name: str, kind: str = "", hook: int = 0, priority: int = 0, device: str = ""
) -> "Message":
    """Return the message that adds a chain.  With a `kind`, such as "nat", the kernel's hook calls it.

    `device`: the interface of a hook of the family netdev.
    """
    body = text(_NAME, table) + text(_CHAIN_NAME, name)
    if kind:
        place = _u32(_HOOK_NUMBER, hook) + attr(_HOOK_PRIORITY, struct.pack(">i", priority))
        place += text(_HOOK_DEVICE, device) if device else b""
        body += nested(_CHAIN_HOOK, place) + text(_CHAIN_TYPE, kind)
    return _NEWCHAIN, NLM_F_CREATE, body


def delete_chain(table: str, name: str) -> "Message":
    """Return the message that deletes a chain with its rules."""
    return _DELCHAIN, 0, text(_NAME, table) + text(_CHAIN_NAME, name)


def verdict_map(table: str, name: str, key: "tuple[int, int]") -> "Message":
    """Return the message that adds a map from keys of a type, such as IPV4_ADDR, to chains."""
    return new_set(table, name, _MAP, key, _u32(_SET_DATA_TYPE, _VERDICTS))


def new_set(table: str, name: str, flags: int, key: "tuple[int, int]", more: bytes = b"") -> "Message":
    """Return the message that adds a set or map.  `more`: further attributes."""
    kind, length = key
    if key == IFNAME:
        more += attr(_SET_USERDATA, _NATIVE_ORDER)  # else nft lists its elements as empty
    return (
        _NEWSET,
        NLM_F_CREATE,
        text(_NAME, table)
        + text(_SET_NAME, name)
        + _u32(_SET_FLAGS, flags)
        + _u32(_SET_KEY_TYPE, kind)
        + _u32(_SET_KEY_LEN, length)
        + more
        + _u32(_SET_ID, 1),  # for rules of the same transaction; those made here use the name
    )


def concatenated(*types: "tuple[int, int]") -> "tuple[int, int]":
    """Return the type of a key or value with several parts."""
    number = 0
    for kind, _length in types:
        number = number << 6 | kind
    return number, sum(length for _kind, length in types)


def value_set(table: str, name: str, key: "tuple[int, int]") -> "Message":
    return new_set(table, name, 0, key)


def value_map(table: str, name: str, key: "tuple[int, int]", value: "tuple[int, int]") -> "Message":
    """Return the message that adds a map from keys to values, each of one type, for dnat()."""
    kind, length = value
    return new_set(table, name, _MAP, key, _u32(_SET_DATA_TYPE, kind) + _u32(_SET_DATA_LEN, length))


def delete_set(table: str, name: str) -> "Message":
    """Return the message that deletes a set or map, to which no rule may refer."""
    return _DELSET, 0, text(_NAME, table) + text(_SET_NAME, name)


def flush(table: str, chain: str) -> "Message":
    return _DELRULE, 0, text(_NAME, table) + text(_RULE_CHAIN, chain)


def delete_rule(table: str, chain: str, handle: int) -> "Message":
    body = text(_NAME, table) + text(_RULE_CHAIN, chain) + attr(_RULE_HANDLE, struct.pack(">Q", handle))
    return _DELRULE, 0, body


def rule(table: str, chain: str, *expressions: bytes) -> "Message":
    body = text(_NAME, table) + text(_RULE_CHAIN, chain) + nested(_RULE_EXPRESSIONS, *expressions)
    return _NEWRULE, NLM_F_CREATE | NLM_F_APPEND, body


class Rule:
    """A rule of a chain, and the chain that it jumps to, if any.

    `expressions` is called when the rule is declared, and not when the rules of a chain are counted.
    """

    __slots__ = ("_expressions", "target")

    def __init__(self, expressions: "Callable[[], bytes]" = bytes, *, jump: str = "") -> None:
        self._expressions = expressions
        self.target = jump

    def added(self, table: str, chain: str) -> "Message":
        """Return the message that adds the rule at the end of a chain."""
        jump = verdict(JUMP, self.target) if self.target else b""
        return rule(table, chain, self._expressions(), jump)


def replace_rules(table: str, chain: str, rules: "Sequence[Rule]") -> "Iterator[Message]":
    """Yield the messages after which a chain has these rules, and no others."""
    yield flush(table, chain)
    for each in rules:
        yield each.added(table, chain)


def use_counts(chains: "Mapping[str, Sequence[Rule]]") -> "dict[str, int]":
    """Return the use count of each chain, as the kernel counts it: its rules, and the jumps to it."""
    targets = [each.target for rules in chains.values() for each in rules]
    return {chain: len(rules) + targets.count(chain) for chain, rules in chains.items()}


# The parts of a rule, in their order.


def source(version: int) -> bytes:
    """Load the source address of a packet of this IP version, for vmap()."""
    return _of_version(version) + _load(*_SOURCE[version])


def destination(version: int) -> bytes:
    """Load the destination address of a packet of this IP version, for vmap()."""
    return _of_version(version) + _load(*_DESTINATION[version])


def sent_by(net: IPNet) -> bytes:
    """Match what an address of this network sends."""
    return _of_version(net.address.version) + _within(net, _SOURCE)


def destined(net: IPNet) -> bytes:
    """Match what is sent to an address of this network."""
    return _of_version(net.address.version) + _within(net, _DESTINATION)


def leaving(net: IPNet) -> bytes:
    """Match what an address of this network sends to an address outside it."""
    return _of_version(net.address.version) + _within(net, _SOURCE) + _within(net, _DESTINATION, _NOT_EQUAL)


def _within(net: IPNet, field: "dict[int, tuple[int, int]]", operator: int = _EQUAL) -> bytes:
    address, prefix = net.network().address, net.prefix
    offset, length = field[address.version]
    whole, rest = divmod(prefix, 8)
    if rest:
        mask = ((1 << prefix) - 1 << 8 * length - prefix).to_bytes(length, "big")
        return _load(offset, length) + _mask(mask) + _compare(operator, address)
    # For a prefix of whole bytes, nft compares these bytes only.
    return _load(offset, whole) + _compare(operator, address[:whole]) if whole else b""


def destined_to_host() -> bytes:
    """Match what is sent to an address of this host."""
    parts = (_REGISTER, _FIB_ADDRESS_TYPE, _FIB_DESTINATION)
    load = _expression("fib", *(_u32(kind, value) for kind, value in enumerate(parts, 1)))
    return load + _compare(_EQUAL, struct.pack("=I", _RTN_LOCAL))


def invalid() -> bytes:
    """Match what belongs to no connection that conntrack knows, and does not open one."""
    return _ct(_CT_STATE) + _has_bits(_STATE_INVALID)


def established() -> bytes:
    """Match what belongs to a connection that was answered, or is an error message about one."""
    return _ct(_CT_STATE) + _has_bits(_STATE_ESTABLISHED | _STATE_RELATED)


def is_translated(status: int) -> bytes:
    """Match connections whose source (SRC_NAT) or destination (DST_NAT) is replaced."""
    return _ct(_CT_STATUS) + _has_bits(status)


def of_direction(direction: int) -> bytes:
    """Match what flows in this direction of its connection."""
    return _ct(_CT_DIRECTION) + _compare(_EQUAL, bytes((direction,)))


def opened_from(net: IPNet) -> bytes:
    """Match connections that were opened from an IPv4 network with a prefix of whole bytes."""
    is_theirs = _compare(_EQUAL, net.network().address[: net.prefix // 8])
    return _ct(_CT_SRC_IP, ORIGINAL) + is_theirs + _of_version(4)


def set_source(address: "Address | None") -> bytes:
    """Replace the IPv4 source of a packet; None: by the address that opened the connection."""
    load = _immediate(address) if address else _ct(_CT_SRC_IP, ORIGINAL)
    return load + _store(*_SOURCE[4])


def set_destination(direction: int) -> bytes:
    """Replace the IPv4 destination of an answer by an address that conntrack has.

    REPLY: the address that the answer is for.  ORIGINAL: the address that opened the connection.
    """
    load = _ct(_CT_DST_IP if direction == REPLY else _CT_SRC_IP, direction)
    return load + _store(*_DESTINATION[4])


def enters_by(name: str) -> bytes:
    """Match what enters by this interface."""
    return _meta(_META_IIFNAME) + _compare(_EQUAL, interface(name))


def enters_by_another(name: str) -> bytes:
    return _meta(_META_IIFNAME) + _compare(_NOT_EQUAL, interface(name))


def enters_by_any(names: str) -> bytes:
    """Match what enters by an interface of this set."""
    return _meta(_META_IIFNAME) + _expression("lookup", text(1, names), _u32(2, _REGISTER))


def enters_with_mac(pairs: str) -> bytes:
    """Match what enters by an interface and from a MAC address that are one element of this set."""
    place = _load(6, 6, _LINK_HEADER, _WORDS + IFNAME[1] // 4)
    return _meta(_META_IIFNAME) + place + _expression("lookup", text(1, pairs), _u32(2, _REGISTER))


def leaves_by(name: str) -> bytes:
    return _meta(_META_OIFNAME) + _compare(_EQUAL, interface(name))


def leaves_by_any(names: str) -> bytes:
    """Match what leaves by an interface of this set."""
    return _meta(_META_OIFNAME) + _expression("lookup", text(1, names), _u32(2, _REGISTER))


def interface(name: str) -> bytes:
    """Return the name of an interface as a key or value: 16 bytes (IFNAMSIZ)."""
    return name.encode().ljust(IFNAME[1], b"\0")


def vmap(name: str) -> bytes:
    """Execute the verdict that a map has for the loaded key."""
    return _expression("lookup", text(1, name), _u32(2, _REGISTER), _u32(3, _VERDICT_REGISTER))


def verdict(code: int, chain: str = "") -> bytes:
    """Return a verdict.  `chain` is the target of a JUMP."""
    target = text(_VERDICT_CHAIN, chain) if chain else b""
    data = nested(2, nested(_DATA_VERDICT, attr(_VERDICT_CODE, struct.pack(">i", code)), target))
    return _expression("immediate", _u32(1, _VERDICT_REGISTER), data)


def masquerade() -> bytes:
    return _expression("masq")


def dnat(version: int, targets: str, *, by_address: bool) -> bytes:
    """Translate to the address and port that a map has for a packet's protocol and port.

    `by_address`: the keys begin with the address that the packet is for.
    """
    after = _WORDS + _DESTINATION[version][1] // 4  # the register behind an address that is in the first one
    begin = after if by_address else _WORDS
    return b"".join(
        [
            _of_version(version),
            _load(*_DESTINATION[version]) if by_address else b"",
            _meta(_META_L4PROTO, begin),
            _load(2, 2, _TRANSPORT_HEADER, begin + 1),
            _expression("lookup", text(1, targets), _u32(2, _REGISTER), _u32(3, _REGISTER)),
            _expression(
                "nat",
                _u32(1, _NAT_DNAT),
                _u32(2, _NFPROTO[version][0]),
                _u32(3, _REGISTER),
                _u32(5, after),
            ),
        ]
    )


def _meta(key: int, register: int = _REGISTER) -> bytes:
    return _expression("meta", _u32(1, register), _u32(2, key))


def _ct(key: int, direction: "int | None" = None) -> bytes:
    way = b"" if direction is None else attr(3, bytes((direction,)))
    return _expression("ct", _u32(1, _REGISTER), _u32(2, key), way)


def _immediate(value: bytes) -> bytes:
    return _expression("immediate", _u32(1, _REGISTER), nested(2, attr(_DATA_VALUE, value)))


def _of_version(version: int) -> bytes:
    return _meta(_META_NFPROTO) + _compare(_EQUAL, _NFPROTO[version])


def _load(offset: int, length: int, header: int = _NETWORK_HEADER, register: int = _REGISTER) -> bytes:
    place = (register, header, offset, length)
    return _expression("payload", *(_u32(kind, value) for kind, value in enumerate(place, 1)))


def _store(offset: int, length: int) -> bytes:
    """Write to the IPv4 header, and update its checksum and that of the protocol above."""
    place = (_NETWORK_HEADER, offset, length, _REGISTER, *_IPV4_CHECKSUM, _OF_PSEUDO_HEADER)
    return _expression("payload", *(_u32(kind, value) for kind, value in enumerate(place, 2)))


def _has_bits(bits: int) -> bytes:
    return _mask(struct.pack("=I", bits)) + _compare(_NOT_EQUAL, bytes(4))


def _mask(bits: bytes) -> bytes:
    registers = (_REGISTER, _REGISTER, len(bits))
    return _expression(
        "bitwise",
        *(_u32(kind, value) for kind, value in enumerate(registers, 1)),
        nested(4, attr(_DATA_VALUE, bits)),
        nested(5, attr(_DATA_VALUE, bytes(len(bits)))),
    )


def _compare(operator: int, value: bytes) -> bytes:
    return _expression("cmp", _u32(1, _REGISTER), _u32(2, operator), nested(3, attr(_DATA_VALUE, value)))


def _expression(name: str, *data: bytes) -> bytes:
    return nested(_LIST_ELEM, text(_EXPR_NAME, name) + nested(_EXPR_DATA, *data))


def _u32(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack(">I", value))
