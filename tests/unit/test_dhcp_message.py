# SPDX-License-Identifier: Apache-2.0
"""DHCP messages and packets: other programs read what cnihook writes, and no input does harm."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnihook.dhcp import message, rawsocket
from cnihook.dhcp.message import Message
from cnihook.fast.address import Address, IPNet

addresses = st.binary(min_size=4, max_size=4).map(Address)
options = st.dictionaries(
    st.integers(1, 254).filter(lambda code: code != message.OVERLOAD), st.binary(max_size=600), max_size=8
)


def parse(text: str) -> Address:
    return Address.parse(text)


@given(st.binary(min_size=4, max_size=4), st.binary(min_size=6, max_size=6), options, addresses, addresses)
def test_written_message_is_read_back(
    xid: bytes, mac: bytes, carried: dict[int, bytes], current: Address, offered: Address
) -> None:
    """Long options are written in several parts."""
    written = Message(xid, mac, carried, current=current, offered=offered, seconds=7, from_server=True)
    read = Message.decode(written.encode())

    assert (read.xid, read.mac, read.current, read.offered, read.seconds) == (xid, mac, current, offered, 7)
    assert read.from_server and read.options == carried


def test_pyroute2_reads_a_written_message() -> None:
    """pyroute2 is an independent implementation of the same RFCs."""
    dhcp4msg = pytest.importorskip("pyroute2.dhcp.dhcp4msg").dhcp4msg
    carried = {
        message.MESSAGE_TYPE: bytes((message.REQUEST,)),
        message.CLIENT_ID: b"\0c1/net1/eth0",
        message.REQUESTED_ADDRESS: parse("10.9.0.7"),
        message.SERVER: parse("10.9.0.1"),
        message.HOST_NAME: b"web1",
        message.PARAMETERS: bytes((1, 121, 3)),
    }
    ours = Message(b"\1\2\3\4", bytes.fromhex("02a0b0c0d0e0"), carried, current=parse("10.9.0.5"), seconds=9)
    theirs = dhcp4msg(buf=ours.encode()).decode()

    assert {key: theirs[key] for key in ("op", "htype", "hlen", "xid", "secs", "ciaddr", "chaddr")} == {
        "op": 1,
        "htype": 1,
        "hlen": 6,
        "xid": 0x01020304,
        "secs": 9,
        "ciaddr": "10.9.0.5",
        "chaddr": "02:a0:b0:c0:d0:e0",
    }
    assert theirs["options"] == {
        "message_type": 3,
        "client_id": {"type": 0, "key": b"c1/net1/eth0"},
        "requested_ip": "10.9.0.7",
        "server_id": "10.9.0.1",
        "host_name": "web1",
        "parameter_list": [1, 121, 3],
    }


@given(st.binary(max_size=600))
def test_any_bytes_are_a_message_or_a_value_error(data: bytes) -> None:
    for candidate in (data, Message(b"xidx", b"macmac", {}).encode()[:240] + data):
        try:
            Message.decode(candidate)
        except ValueError:
            pass


@given(st.binary(max_size=300))
def test_any_value_of_an_option_can_be_read(value: bytes) -> None:
    message.addresses(value)
    message.seconds({51: value}, 51)
    message.prefix_length(value)
    message.static_routes(value)
    message.classless_routes(value)
    for name in (message.domain_name(value), *message.domain_search(value)):
        assert not set(name) & set(" \t\r\n#;")


def test_options_continue_in_the_fields_file_and_sname() -> None:
    """A server that sends option 52 uses file, sname, or both for options."""
    data = bytearray(Message(b"xidx", b"macmac", {message.OVERLOAD: b"\3"}).encode())
    data[44:50] = b"\x0f\3net\xff"  # sname
    data[108:114] = b"\x06\4\x0a\x09\0\1"  # file

    assert Message.decode(bytes(data)).options == {15: b"net", 6: b"\x0a\x09\0\1"}


def test_overload_option_in_the_fields_file_and_sname_has_no_meaning() -> None:
    data = bytearray(Message(b"xidx", b"macmac", {message.OVERLOAD: b"\1"}).encode())
    data[108:113] = bytes((message.OVERLOAD, 1, 3, message.END, 0))
    assert message.OVERLOAD not in Message.decode(bytes(data)).options


def test_short_message_is_padded_to_300_bytes() -> None:
    assert len(Message(b"xidx", b"macmac", {}).encode()) == 300


@pytest.mark.parametrize(
    ("mask", "length"),
    [("255.255.255.0", 24), ("0.0.0.0", 0), ("255.255.255.255", 32), ("255.0.255.0", None)],
)
def test_prefix_length_of_a_mask(mask: str, length: int | None) -> None:
    assert message.prefix_length(parse(mask)) == length


def test_classless_routes_of_every_size() -> None:
    """The examples of RFC 3442, and host bits, which should be 0."""
    router = parse("10.9.0.1")
    value = b"\0" + router + b"\x08\x0a" + router + b"\x11\x0a\x82\xff" + router + b"\x20\x0a\1\2\3" + router

    assert message.classless_routes(value) == [
        (IPNet.parse("0.0.0.0/0"), router),
        (IPNet.parse("10.0.0.0/8"), router),
        (IPNet.parse("10.130.128.0/17"), router),
        (IPNet.parse("10.1.2.3/32"), router),
    ]
    assert message.classless_routes(value[:-1]) == message.classless_routes(b"\x21" + value) == []


def test_static_routes_have_the_size_of_their_class() -> None:
    router = parse("10.9.0.1")
    names = ["10.1.0.0", "172.16.0.0", "192.0.2.0", "224.0.0.0", "0.0.0.0"]
    value = b"".join(b"".join((parse(name), router)) for name in names)

    assert [str(dst) for dst, _router in message.static_routes(value)] == [
        "10.0.0.0/8",
        "172.16.0.0/16",
        "192.0.2.0/24",
    ]


def test_search_list_may_refer_to_its_own_beginning() -> None:
    """The example of RFC 3397, and pointers without an end."""
    value = b"\3eng\5apple\3com\0\x09marketing\xc0\x04"

    assert message.domain_search(value) == ["eng.apple.com", "marketing.apple.com"]
    assert message.domain_search(b"\xc0\x00") == message.domain_search(b"\1a\xc0\x00\xc0\x02") == []


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"lan.example", "lan.example"),
        (b"lan.example\0", "lan.example"),
        (b"lan.example.", "lan.example"),
        (b"", ""),
        (b"two names", ""),
        (b"a\nnameserver 192.0.2.66", ""),
        (b"a..b", ""),
    ],
)
def test_domain_name_is_one_or_none(value: bytes, name: str) -> None:
    assert message.domain_name(value) == name


@given(st.binary(max_size=400), addresses, addresses)
def test_packet_carries_its_payload(payload: bytes, source: Address, destination: Address) -> None:
    packet = rawsocket.packet(payload, source, destination)

    assert (
        rawsocket.payload(packet) == rawsocket.payload(packet + bytes(20)) == payload
    )  # Ethernet pads short packets
    assert rawsocket.checksum(packet[:20]) == 0
    pseudo = struct.pack("!4s4sHH", source, destination, socket.IPPROTO_UDP, len(packet) - 20)
    assert rawsocket.checksum(pseudo + packet[20:]) in (0, 0xFFFF)
    for end in range(0, len(packet), 7):
        with pytest.raises(ValueError):
            rawsocket.payload(packet[:end])


@given(st.binary(max_size=100))
def test_any_bytes_are_a_packet_or_a_value_error(data: bytes) -> None:
    try:
        rawsocket.payload(data)
    except ValueError:
        pass
