# SPDX-License-Identifier: Apache-2.0
"""plugins.host_local: the addresses of a range, and the order in which they are tried."""

import ipaddress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnihook.fast.address import Address
from cnihook.ipam.leases import Store
from cnihook.plugins.host_local import Range, RangeSet, _allocate
from cnihook.protocol.call import Call, Invocation
from cnihook.types.config import NetConf
from cnihook.types.errors import CniError

ROOTS = ["10.9.0.0", "192.168.255.0", "2001:db8::", "fd00:0:0:ff00::"]


def make(subnet: str, **keys: str) -> Range:
    return Range(NetConf({"subnet": subnet, **keys}, "ipam"))


@st.composite
def ranges(draw: st.DrawFn, number: int = 0, root: str | None = None) -> Range:
    """Draw a range of a subnet with 2 to 6 bits, the `number`th of several."""
    base = ipaddress.ip_address(root or draw(st.sampled_from(ROOTS))) + (number << 6)
    prefix = base.max_prefixlen - draw(st.integers(2, 6))
    net = ipaddress.ip_network((base, prefix))
    start, end = sorted(
        draw(st.tuples(st.integers(0, net.num_addresses - 1), st.integers(0, net.num_addresses - 1)))
    )
    keys: dict[str, str] = {}
    if draw(st.booleans()):
        keys |= {"rangeStart": str(net[start]), "rangeEnd": str(net[end])}
    if draw(st.booleans()):
        keys["gateway"] = str(net[draw(st.integers(0, net.num_addresses - 1))])
    return make(str(net), **keys)


@st.composite
def sets(draw: st.DrawFn) -> RangeSet:
    root = draw(st.sampled_from(ROOTS))
    count = draw(st.integers(1, 3))
    return RangeSet(0, [draw(ranges(number, root)) for number in range(count)])


def members(one: RangeSet) -> list[Address]:
    """Return the addresses by counting, in the order of the ranges."""
    addresses = []
    for part in one.ranges:
        low, high = (int.from_bytes(end, "big") for end in (part.start, part.end))
        numbers = (value.to_bytes(len(part.start), "big") for value in range(low, high + 1))
        addresses += [Address(number) for number in numbers if number != part.gateway]
    return addresses


def test_nearly_full_range_costs_few_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A try for each leased address of a /16 would take 0.6 s."""
    one = RangeSet(0, [make("10.9.0.0/22")])
    *leased, last = (str(address) for address, _part in one.candidates(None))
    for name in leased:
        (tmp_path / name).write_bytes(b"other\r\neth0")
    tries: list[Address] = []
    reserve = Store.reserve

    def counted(store: Store, address: Address, index: int) -> bool:
        tries.append(address)
        return reserve(store, address, index)

    monkeypatch.setattr(Store, "reserve", counted)
    call = Call("ADD", NetConf({"name": "net1"}), Invocation("c1", "", "eth0"))
    with Store(str(tmp_path), "c1", "eth0") as store:
        address, _part = _allocate(store, one, [], store.owned(), None, call)

    assert str(address) == last and len(tries) < 20


@given(sets())
def test_each_address_is_tried_once_in_order_without_gateways(one: RangeSet) -> None:
    assert [address for address, _part in one.candidates(None)] == members(one)


@given(sets(), st.data())
def test_search_starts_after_the_last_address_and_wraps(one: RangeSet, data: st.DataObject) -> None:
    """A released address is therefore leased again as late as possible."""
    everything = members(one)
    if not everything:
        return
    last = data.draw(st.sampled_from(everything))
    behind = everything.index(last) + 1

    assert [address for address, _part in one.candidates(last)] == everything[behind:] + everything[:behind]


@given(sets(), st.data())
def test_last_address_may_have_become_a_gateway(one: RangeSet, data: st.DataObject) -> None:
    """The configuration may have been edited since the lease files were written."""
    part = data.draw(st.sampled_from(one.ranges))
    low, high = (int.from_bytes(end, "big") for end in (part.start, part.end))
    last = Address(data.draw(st.integers(low, high)).to_bytes(len(part.start), "big"))

    addresses = [address for address, _part in one.candidates(last)]

    assert sorted(addresses) == sorted(members(one)) and len(set(addresses)) == len(addresses)


@given(sets(), st.sampled_from(["10.8.0.1", "255.255.255.255", "::1", "ffff::"]))
def test_search_starts_at_the_beginning_if_the_last_address_is_outside(one: RangeSet, last: str) -> None:
    assert [address for address, _part in one.candidates(Address.parse(last))] == members(one)


@given(sets())
def test_each_address_has_its_range(one: RangeSet) -> None:
    """Prefix and gateway of the lease come from that range."""
    for address, part in one.candidates(None):
        assert part in one.ranges and address in part and address in part.subnet
        assert one.range_of(address) is part


@given(ranges())
def test_size_is_the_number_of_addresses(part: Range) -> None:
    assert part.size() == len(members(RangeSet(0, [part])))


def test_large_range_is_not_listed() -> None:
    """A /64 has too many addresses for a list."""
    one = RangeSet(0, [make("2001:db8::/64")])

    assert [str(address) for address, _part in islice(one.candidates(None), 2)] == [
        "2001:db8::2",
        "2001:db8::3",
    ]
    last = Address.parse("2001:db8::ffff:ffff:ffff:ffff")
    assert [str(address) for address, _part in islice(one.candidates(last), 1)] == ["2001:db8::2"]
    assert one.ranges[0].size() == 2**64 - 2


@pytest.mark.parametrize(
    ("subnet", "keys", "text", "gateway"),
    [
        ("10.9.0.0/24", {}, "10.9.0.1-10.9.0.254", "10.9.0.1"),
        ("10.9.0.0/30", {}, "10.9.0.1-10.9.0.2", "10.9.0.1"),
        ("2001:db8::/126", {}, "2001:db8::1-2001:db8::3", "2001:db8::1"),
        ("10.9.0.0/24", {"rangeStart": "10.9.0.0"}, "10.9.0.0-10.9.0.254", "10.9.0.1"),
        ("10.9.0.0/24", {"rangeEnd": "10.9.0.255"}, "10.9.0.1-10.9.0.255", "10.9.0.1"),
        ("10.9.0.0/24", {"gateway": "10.9.0.254"}, "10.9.0.1-10.9.0.254", "10.9.0.254"),
        ("10.9.0.0/24", {"gateway": "192.0.2.1"}, "10.9.0.1-10.9.0.254", "192.0.2.1"),
        ("10.9.0.0/24", {"rangeStart": "10.9.0.7", "rangeEnd": "10.9.0.7"}, "10.9.0.7-10.9.0.7", "10.9.0.1"),
        ("0.0.0.0/0", {}, "0.0.0.1-255.255.255.254", "0.0.0.1"),
    ],
)
def test_defaults_of_a_range(subnet: str, keys: dict[str, str], text: str, gateway: str) -> None:
    """First and last address of an IPv4 subnet are reserved; IPv6 has no broadcast address."""
    part = make(subnet, **keys)

    assert (str(part), str(part.gateway)) == (text, gateway)


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({}, '"subnet"'),
        ({"subnet": "10.9.0.0"}, "10.9.0.0"),
        ({"subnet": "10.9.0.0/31"}, "too small"),
        ({"subnet": "2001:db8::/127"}, "too small"),
        ({"subnet": "10.9.0.1/24"}, "host bits"),
        ({"subnet": "10.9.0.0/24", "rangeStart": "10.8.0.1"}, "10.8.0.1"),
        ({"subnet": "10.9.0.0/24", "rangeEnd": "10.9.1.0"}, "10.9.1.0"),
        ({"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.9", "rangeEnd": "10.9.0.8"}, "10.9.0.8"),
        ({"subnet": "10.9.0.0/24", "rangeStart": "::1"}, "::1"),
        ({"subnet": "10.9.0.0/24", "gateway": "x"}, '"gateway"'),
    ],
)
def test_malformed_range_is_refused_and_quoted(conf: Any, words: str) -> None:
    with pytest.raises(CniError) as refused:
        Range(NetConf(conf, "ipam: ranges[0]"))

    assert refused.value.code == 7
    assert refused.value.msg.startswith("ipam: ranges[0]: ") and words in refused.value.msg
