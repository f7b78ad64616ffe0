# SPDX-License-Identifier: Apache-2.0
"""linux.netem: its requests, as pyroute2 reads them.  tests/vm/guest/test_emulation.py has their effect."""

import struct
from typing import Any

import pytest
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from cnihook.linux import netem, tc
from cnihook.linux.netem import Netem
from cnihook.linux.netlink import attributes
from tests.netns.test_linux_messages import Caught, link

CREATE, EXCL, REPLACE = 0x400, 0x200, 0x100
ALL = Netem(
    delay=80_000, jitter=5_000, loss=10_000, duplicate=1, corrupt=2_000, reorder=250_000, rate=125_000
)
LIMIT = tc.Tbf.of(2_500_000, 100_000, 25_000)


@pytest.fixture(autouse=True)
def implementation() -> None:
    """No plugin takes part: one run is enough."""


def read(caught: Caught) -> tuple[int, Any, bytes]:
    """Return the flags of the only request, the message, and its options as they were sent."""
    ((kind, flags, body),) = caught.requests
    assert kind == tc.RTM_NEWQDISC
    message = tcmsg(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
    message.decode()
    return flags, message, attributes(body, 20).get(tc.TCA_OPTIONS, b"")


def test_network_is_emulated_on_top_of_a_link_or_below_its_limit() -> None:
    for limit, flags, parent, handle in (
        (None, CREATE | EXCL, 0xFFFFFFFF, 0x656D0000),
        (LIMIT, CREATE | REPLACE, 0x10001, 0x656E0000),  # the queue of a tbf is replaced
    ):
        caught = Caught()
        netem.add(caught, link(5), ALL, limit)
        sent_flags, message, options = read(caught)

        assert (sent_flags, message["parent"], message["handle"]) == (flags, parent, handle)
        assert message.get_attr("TCA_KIND") == "netem"
        assert vars_of(Netem.unpack(options)) == vars_of(ALL)
        seen = message.get_attr("TCA_OPTIONS")
        assert seen["delay"] == 80_000 * 1000 // 64  # ticks of 64 ns
        assert (seen["loss"], seen["gap"]) == (0xFFFFFFFF // 100, 1)
        assert seen.get_attr("TCA_NETEM_CORRUPT")["prob_corrupt"] == 0xFFFFFFFF // 500


def vars_of(values: Netem) -> dict[str, int]:
    return {name: getattr(values, name) for name in Netem.__slots__}


def test_change_sends_every_value() -> None:
    """The kernel keeps the old value of an option that is left out."""
    caught = Caught()
    netem.change(caught, link(5), Netem(delay=1), None)
    flags, _message, options = read(caught)

    assert flags == 0
    assert vars_of(Netem.unpack(options)) == vars_of(Netem(delay=1))
    assert attributes(options, 24).keys() >= {1, 3, 4, 6, 10, 11}


def test_end_below_a_limit_puts_another_queue_in_its_place() -> None:
    caught = Caught()
    netem.remove(caught, link(5), LIMIT)
    flags, message, options = read(caught)

    assert (flags, message["parent"]) == (CREATE | REPLACE, 0x10001)
    assert message.get_attr("TCA_KIND") == "bfifo"
    assert options == struct.pack("=I", LIMIT.limit)


def test_queue_holds_what_is_delayed_and_has_a_bound() -> None:
    assert Netem(loss=1).queue(None) == 1000
    assert Netem(delay=80_000).queue(None) == 20_000
    assert Netem(delay=60_000_000, rate=1 << 40).queue(None) == 20_000
    slow = tc.Tbf.of(125_000, 15_000, 25_000)
    assert Netem(loss=1).queue(slow) == slow.limit // 1500
    assert Netem(delay=1_000_000).queue(slow) == 125_000 // 375 + slow.limit // 1500


def test_rate_of_more_than_32_bits_is_read_back() -> None:
    fast = Netem(rate=1 << 33)

    assert vars_of(Netem.unpack(fast.pack(None))) == vars_of(fast)
