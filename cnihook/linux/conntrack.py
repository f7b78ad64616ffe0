# SPDX-License-Identifier: Apache-2.0
"""
Flows that the kernel tracks: the work of `conntrack -L` and `conntrack -D`, as requests to ctnetlink.

A flow records how its first packet was translated.  The kernel does not evaluate the rules again for the
packets that follow.  A UDP flow lives as long as packets come.  So a flow that is older than a rule, or than
the end of a rule, has to be deleted.

<linux/netfilter/nfnetlink_conntrack.h> has the messages.
"""

import _struct as struct
import errno

from cnihook.fast.address import Address
from cnihook.linux.netlink import (
    NLM_F_DUMP,
    NetlinkError,
    attr,
    attributes,
    nested,
    netfilter,
    u8,
    u32,
)

UDP = 17  # IPPROTO_UDP

_SUBSYSTEM = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_GET, _DELETE = _SUBSYSTEM | 1, _SUBSYSTEM | 2
_TUPLE_ORIG, _TUPLE_REPLY, _ZONE, _FILTER = 1, 2, 18, 25
_STATUS, _PROTOINFO, _PROTOINFO_TCP, _TCP_STATE = 3, 4, 1, 1
_SEEN_REPLY = 0x2  # IPS_SEEN_REPLY
_TCP_OPEN = (3, 4, 5)  # TCP_CONNTRACK_ESTABLISHED, _FIN_WAIT and _CLOSE_WAIT, where one end can still send
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_SOURCE, _IP_DESTINATION = {4: 1, 6: 3}, {4: 2, 6: 4}
_PROTO_NUM, _PROTO_SOURCE_PORT, _PROTO_PORT = 1, 2, 3
_FILTER_ORIG_FLAGS, _FILTER_REPLY_FLAGS = 1, 2
_MATCH_SOURCE, _MATCH_PROTO_NUM, _MATCH_PORT = 1 << 0, 1 << 3, 1 << 5
_FAMILY = {4: 2, 6: 10}  # AF_INET, AF_INET6


class Flow:
    """A flow: the ends of its first packet, and the address and port that answer, after any NAT.

    `places`: the paths of the namespaces that track it; an empty one is that of this process.
    """

    __slots__ = (
        "answerer", "answerer_port", "destination", "identity", "is_established", "is_masqueraded",
        "places", "port", "protocol", "source", "source_port", "version",
    )  # fmt: skip

    def __init__(self, body: bytes, version: int) -> None:
        attrs = attributes(body, 4)
        self.version = version
        self.places = [""]
        self.source, self.source_port = _end(attrs[_TUPLE_ORIG], _IP_SOURCE[version], _PROTO_SOURCE_PORT)
        answered, _ = _end(attrs[_TUPLE_REPLY], _IP_DESTINATION[version], _PROTO_PORT)
        self.is_masqueraded = answered != self.source  # answers are for another address
        self.protocol = _protocol(attrs[_TUPLE_ORIG])  # its number, such as UDP
        self.destination, self.port = _end(attrs[_TUPLE_ORIG], _IP_DESTINATION[version], _PROTO_PORT)
        self.answerer, self.answerer_port = _end(
            attrs[_TUPLE_REPLY], _IP_SOURCE[version], _PROTO_SOURCE_PORT
        )
        self.is_established = _is_established(attrs)  # answered, and for TCP not closed
        self.identity = nested(_TUPLE_ORIG, attrs[_TUPLE_ORIG])
        if _ZONE in attrs:
            self.identity += attr(_ZONE, attrs[_ZONE])


def _protocol(part: bytes) -> int:
    return attributes(attributes(part).get(_TUPLE_PROTO, b"")).get(_PROTO_NUM, b"\0")[0]


def _is_established(attrs: "dict[int, bytes]") -> bool:
    tcp = attributes(attributes(attrs.get(_PROTOINFO, b"")).get(_PROTOINFO_TCP, b""))
    if _TCP_STATE in tcp:
        return tcp[_TCP_STATE][0] in _TCP_OPEN
    return bool(struct.unpack(">I", attrs.get(_STATUS, bytes(4)))[0] & _SEEN_REPLY)


def _end(part: bytes, address: int, port: int) -> "tuple[Address, int]":
    attrs = attributes(part)
    protocol = attributes(attrs.get(_TUPLE_PROTO, b""))
    number = struct.unpack(">H", protocol.get(port, b"\0\0"))[0]
    return Address(attributes(attrs.get(_TUPLE_IP, b"")).get(address, b"")), number


def flows(version: int, ports: "set[int]") -> "list[Flow]":
    """Return the UDP flows whose first packet was sent to one of these ports.

    The kernel selects them, because there may be a million others: for one port the flows of that port, for
    several ports those of UDP.  Before 5.8 it cannot select, and sends all flows.
    """
    protocol = [u8(_PROTO_NUM, UDP)]
    flags = _MATCH_PROTO_NUM
    if len(ports) == 1:
        protocol.append(attr(_PROTO_PORT, struct.pack(">H", *ports)))
        flags |= _MATCH_PORT
    body = nested(_TUPLE_ORIG, nested(_TUPLE_PROTO, *protocol)) + nested(
        _FILTER, u32(_FILTER_ORIG_FLAGS, flags), u32(_FILTER_REPLY_FLAGS, 0)
    )
    answer = _ask(_GET, NLM_F_DUMP, version, body, "list the flows of UDP")
    every = (Flow(body, version) for body in answer if _protocol(attributes(body, 4)[_TUPLE_ORIG]) == UDP)
    return [flow for flow in every if flow.port in ports]


def of(addresses: "frozenset[Address]") -> "list[Flow]":
    """Return the flows of any protocol that one of these addresses opened, or answers after NAT.

    Each request takes 5 ms for 262,144 buckets, because a dump locks also the empty ones.  The kernel
    selects the flows of an IPv4 address.  It sends all IPv6 flows: see delete_of().
    """
    requests = [(4, body) for each in addresses if each.version == 4 for body in _of_address(each)]
    if any(each.version == 6 for each in addresses):
        requests.append((6, b""))
    candidates = [
        Flow(body, version)
        for version, request in requests
        for body in _ask(_GET, NLM_F_DUMP, version, request, "list the flows")
        if any(bytes(each) in body for each in addresses)
    ]
    return [flow for flow in candidates if flow.source in addresses or flow.answerer in addresses]


def delete_of(address: Address) -> bool:
    """Have the kernel delete the flows that `of` returns; return False if it cannot.

    Here the kernel skips empty buckets: 0.4 ms for 262,144 of them.  Before Linux 6.8 it takes the address
    for an incomplete tuple (EINVAL).  For IPv6 no request is sent: the kernel's filter for these addresses
    is inverted, in Linux 6.18 as in all before, and would delete all other flows.
    """
    if address.version == 6:
        return False
    try:
        for body in _of_address(address):
            _ask(_DELETE, 0, 4, body, f"forget the flows of {address}")
    except NetlinkError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def _of_address(address: Address) -> "tuple[bytes, bytes]":
    """Return the filters for the flows that an IPv4 address opened, and for those that it answers."""
    source = nested(_TUPLE_IP, attr(_IP_SOURCE[4], address))
    opener = u32(_FILTER_ORIG_FLAGS, _MATCH_SOURCE), u32(_FILTER_REPLY_FLAGS, 0)
    answerer = u32(_FILTER_ORIG_FLAGS, 0), u32(_FILTER_REPLY_FLAGS, _MATCH_SOURCE)
    return (
        nested(_TUPLE_ORIG, source) + nested(_FILTER, *opener),
        nested(_TUPLE_REPLY, source) + nested(_FILTER, *answerer),
    )


def delete(flow: Flow) -> None:
    """Delete a flow.  A flow that no longer exists is not an error."""
    try:
        _ask(_DELETE, 0, flow.version, flow.identity, f"forget the flow to {flow.destination} {flow.port}")
    except NetlinkError as error:
        if error.errno != errno.ENOENT:
            raise


def _ask(kind: int, flags: int, version: int, body: bytes, what: str) -> "list[bytes]":
    return netfilter().request(kind, flags, struct.pack("=BBH", _FAMILY[version], 0, 0) + body, what)
