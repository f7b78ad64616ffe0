# SPDX-License-Identifier: Apache-2.0
"""Targets that read binary messages of another machine or the kernel."""

import struct

from cnihook.dhcp import message
from cnihook.dhcp import rawsocket as packets
from cnihook.dhcp.message import Message
from cnihook.fast.address import Address
from cnihook.linux import netlink, nft, route_lookup, rtnl
from cnihook.mdns import message as mdns
from cnihook.resolver import message as dns
from tests.support.fuzz.target import Target, same

ROUTES = bytes((24, 10, 9, 8, 10, 1, 0, 1, 0, 10, 1, 0, 1))
OFFER = Message(
    b"abcd",
    b"\x02\0\0\0\0\1",
    {
        message.MESSAGE_TYPE: bytes((message.OFFER,)),
        message.SERVER: bytes((10, 1, 0, 1)),
        message.LEASE_TIME: bytes((0, 0, 1, 0)),
        message.SUBNET_MASK: bytes((255, 255, 255, 0)),
        message.ROUTERS: bytes((10, 1, 0, 1)),
        message.STATIC_ROUTES: bytes((10, 9, 0, 0, 10, 1, 0, 1)),
        message.CLASSLESS_ROUTES: ROUTES,
        message.DOMAIN_NAME: b"example.com",
        message.DOMAIN_SEARCH: b"\7example\3com\0\1a\xc0\0",
    },
    offered=Address(bytes((10, 1, 0, 5))),
    from_server=True,
)


def _dhcp(data: bytes) -> None:
    answer = Message.decode(data)
    assert answer.kind in range(256)
    assert answer.server is None or len(answer.server) == 4
    options = answer.options
    for value in options.values():
        message.addresses(value)
        message.prefix_length(value)
        message.static_routes(value)
        message.classless_routes(value)
        message.domain_name(value)
        message.domain_search(value)
    for code in options:
        message.seconds(options, code)
    if len(answer.mac) <= 16 and message.PAD not in options and message.END not in options:
        same(Message.decode(answer.encode()).options, options, "the options of a message")


def _dns(data: bytes) -> None:
    """Read a message as a query and as an answer, and write what was read."""
    question = dns.read_question(data)
    records = dns.read_answers(data, question)
    written = dns.reply(question, dns.NOERROR, records, limit=0xFFFF, edns=True)
    again = dns.read_question(written)
    assert again.is_same(question)
    if not again.flags & dns.IS_CUT:
        addresses = [record.address for record in dns.read_answers(written, again)]
        same(addresses, [record.address for record in records], "the addresses of an answer")
    dns.text_of(question.name)
    dns.read_size(data, question)


def _mdns(data: bytes) -> None:
    sent_on = mdns.forwarded(data)
    assert len(sent_on) <= len(data)
    same(mdns.forwarded(sent_on), sent_on, "a message of another reflector")


def _packet(data: bytes) -> None:
    content = packets.payload(data)
    assert len(content) <= len(data)
    packets.checksum(data)


def _attributes(data: bytes) -> None:
    """Call the readers of attributes, which must accept any bytes, because any program can write them."""
    for value in netlink.attributes(data).values():
        netlink.read_text(value)
    nft.listed(data)
    nft.read_comment(data)
    text = netlink.read_text(data)
    short = text.encode()[:200].decode(errors="ignore")
    same(nft.read_comment(nft.userdata(short)), short, "a comment")


def _links(data: bytes) -> None:
    """Read the kernel's answers: a short one must raise an error, and no reader may run for ever."""
    for kind in (rtnl.Link, rtnl.LinkAddress, route_lookup.LinkRoute):
        try:
            kind(data)
        except (ValueError, struct.error, IndexError):
            pass


DNS_QUESTION = dns.Question(7, dns.RECURSION_DESIRED, (b"www", b"example", b"com"), dns.A)
DNS_ANSWER = dns.reply(
    DNS_QUESTION,
    dns.NOERROR,
    [
        dns.Record(DNS_QUESTION.name, 60, target=(b"cdn", b"example", b"com")),
        dns.Record((b"cdn", b"example", b"com"), 60, Address(bytes((10, 1, 0, 5)))),
    ],
    limit=512,
    edns=True,
)
ATTRIBUTES = netlink.text(3, "eth0") + netlink.u32(4, 1500) + netlink.attr(1, b"\2\0\0\0\0\1")
COMMENT = nft.userdata("full c1 eth0")

TARGETS = (
    Target("dhcp", _dhcp, (ValueError,), (OFFER.encode(),)),
    Target("dns", _dns, (ValueError,), (dns.query(DNS_QUESTION), DNS_ANSWER)),
    Target("mdns", _mdns, (ValueError,), (dns.query(DNS_QUESTION), DNS_ANSWER)),
    Target("packet", _packet, (ValueError,), (packets.packet(OFFER.encode(), Address(4), Address(4)),)),
    Target("attributes", _attributes, (), (ATTRIBUTES, netlink.nested(1, ATTRIBUTES), COMMENT)),
    Target("links", _links, (), (bytes(16) + ATTRIBUTES,)),
)
