# SPDX-License-Identifier: Apache-2.0
"""Multicast DNS: messages as they are sent on, the limit of messages, and the form of a request."""

import pytest

from cnihook.cli.attach import parser
from cnihook.fast.address import Address, IPNet
from cnihook.mdns.membership import BURST, RATE, Limit, Packet, is_from_link
from cnihook.mdns.message import MessageError, forwarded
from cnihook.request import mdns, options
from cnihook.types.errors import CniError
from tests.support.services.multicast import QU, answer, query


def test_message_is_sent_on_without_the_wish_for_a_unicast_answer() -> None:
    assert forwarded(query(cls=QU | 1)) == forwarded(query()) == query()
    assert forwarded(answer("a.local") + b"rest") == answer("a.local"), "other bits of a class stay"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        query()[:11],
        query()[:-1],
        answer("a.local")[:-1],
        query(flags=0x0800),
        query(flags=0x0001),
        query(questions=0xFFFF),
        query()[:12] + b"\xc0\x0c\0\x01\0\x01",
        query()[:12] + b"\x40" + query()[13:],
    ],
)
def test_malformed_message_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        forwarded(data)


def test_limit_lets_a_burst_pass_and_then_a_rate() -> None:
    limit = Limit()
    assert sum(limit.take(100.0) for _number in range(2 * BURST)) == BURST
    assert sum(limit.take(101.0) for _number in range(2 * BURST)) == RATE
    assert sum(limit.take(200.0) for _number in range(2 * BURST)) == BURST


@pytest.mark.parametrize(
    ("source", "hops", "accepted"),
    [
        ("192.0.2.7", 255, True),
        ("192.0.2.7", 1, True),  # of a sender that does not set it
        ("192.0.2.1", 255, False),  # of the host itself
        ("198.51.100.7", 255, True),
        ("198.51.100.7", 254, False),  # has passed a router
        ("169.254.7.7", 1, True),
        ("fe80::7", 1, True),
    ],
)
def test_message_must_come_from_the_link(source: str, hops: int, accepted: bool) -> None:
    packet = Packet(query(), Address.parse(source), 5353, hops)
    assert is_from_link(packet, [IPNet.parse("192.0.2.1/24")]) is accepted


def test_request_is_read_in_each_form() -> None:
    for text, expected in {
        "": {"uplinks": []},
        "true": {"uplinks": []},
        "eth0, wlan0,eth0": {"uplinks": ["eth0", "wlan0"]},
        "false": {},
    }.items():
        assert mdns.parse(text) == options.from_annotations({"cnihook.mdns": text}).mdns == expected
    for text in ("eth0,", "a/b", ",".join(f"eth{number}" for number in range(17))):
        with pytest.raises(CniError):
            mdns.parse(text)
    for words, uplinks, container in (
        (["--mdns", "c1"], [], "c1"),
        (["c1", "--mdns"], [], "c1"),
        (["--mdns=eth0", "c1"], ["eth0"], "c1"),
    ):
        parsed = parser().parse_args(words)
        assert (parsed.request.mdns, parsed.id) == ({"uplinks": uplinks}, container)
    annotations = [options.to_annotations([("mdns", text)]) for text in ("", "eth0")]
    assert annotations == [{"cnihook.mdns": "true"}, {"cnihook.mdns": "eth0"}]
