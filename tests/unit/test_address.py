# SPDX-License-Identifier: Apache-2.0
"""fast.address, compared with ipaddress of the standard library."""

import ipaddress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cnihook.fast.address import Address, IPNet

V4 = st.ip_addresses(v=4)
# Without the IPv6 networks that contain IPv4 addresses; separate tests use those.
HOLDS_V4 = [ipaddress.ip_network("::ffff:0:0/96"), ipaddress.ip_network("::/96")]
V6 = st.ip_addresses(v=6).filter(lambda address: not any(address in net for net in HOLDS_V4))
ANY = V4 | V6
NEARLY = st.text("0123456789abcdefx.:/%g -+", max_size=24)


@st.composite
def networks(draw: st.DrawFn) -> tuple[Any, int]:
    address = draw(ANY)
    return address, draw(st.integers(0, address.max_prefixlen))


def witness(address: Any, prefix: int) -> Any:
    return ipaddress.ip_interface(f"{address}/{prefix}")


@given(ANY)
def test_address_is_read_and_written(address: Any) -> None:
    parsed = Address.parse(str(address))

    assert bytes(parsed) == address.packed
    assert str(parsed) == str(address) == str(Address.parse(address.exploded))
    assert (parsed.version, parsed.bits) == (address.version, address.max_prefixlen)
    assert parsed.is_loopback == address.is_loopback
    assert parsed.is_unspecified == address.is_unspecified
    assert parsed.is_link_local == address.is_link_local


@given(
    st.sampled_from(["127.255.0.1", "::1", "0.0.0.0", "::", "169.254.7.7", "fe80::1", "febf::1", "fec0::1"])
)
def test_kinds_of_addresses(text: str) -> None:
    found, address = Address.parse(text), ipaddress.ip_address(text)

    assert found.is_loopback == address.is_loopback
    assert found.is_unspecified == address.is_unspecified
    assert found.is_link_local == address.is_link_local


@given(V4)
def test_ipv4_mapped_address_is_read_as_ipv4(address: Any) -> None:
    """Go compares addresses so: an address leased in one form must not be leased again in the other."""
    mapped = ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)

    assert str(Address.parse(f"::ffff:{address}")) == str(address)
    assert Address.parse(mapped.exploded) == Address.parse(str(address))


def test_ipv6_without_a_prefix_is_written_as_go_writes_it() -> None:
    """A lease is a file with this name, and the reference plugin looks for the same name."""
    assert str(Address.parse("::1.2.3.4")) == "::102:304"


@pytest.mark.parametrize("text", ["::", "::1", "::1:0:0", "1::"])
def test_ipv6_with_many_zeros(text: str) -> None:
    assert str(Address.parse(text)) == text


@given(NEARLY | st.text(max_size=10))
@example("")
@example("1.2.3")
@example("1.2.3.4.5")
@example("01.2.3.4")
@example("1.2.3.256")
@example("1.2.3.4\n")
@example(" 1.2.3.4")
@example("1.2.3.4\0")
@example("0x1.2.3.4")
@example("\u0661.2.3.4")
@example("\ud800")
@example("::1::")
@example("1:2:3:4:5:6:7")
@example("12345::")
@example("::1.2.3")
@example("[::1]")
def test_malformed_address_is_refused(text: str) -> None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        with pytest.raises(ValueError, match="not an IP address"):
            Address.parse(text)
    else:
        if "%" in text:  # a zone belongs to one machine, an address here to none
            with pytest.raises(ValueError, match="not an IP address"):
                Address.parse(text)
        else:
            assert Address.parse(text).version in (4, address.version)


@pytest.mark.parametrize("value", [None, 7, True, ["1.2.3.4"], {":": 1}])
def test_value_that_is_not_text_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="not an IP address"):
        Address.parse(value)
    with pytest.raises(ValueError, match="not an address in CIDR notation"):
        IPNet.parse(value)


@given(ANY, st.integers(-(1 << 33), 1 << 33))
def test_offset_is_added_to_an_address(address: Any, offset: int) -> None:
    try:
        expected = str(address + offset)
    except ipaddress.AddressValueError:
        with pytest.raises(OverflowError):
            Address.parse(str(address)) + offset
    else:
        # bytes and not parse(): the sum keeps the family of the first address
        assert bytes(Address.parse(str(address)) + offset) == ipaddress.ip_address(expected).packed


@given(ANY, ANY)
def test_addresses_are_ordered_as_numbers(left: Any, right: Any) -> None:
    if left.version == right.version:
        assert (Address.parse(str(left)) < Address.parse(str(right))) == (left < right)


@given(networks())
def test_network_keeps_its_host_bits(given_net: tuple[Any, int]) -> None:
    expected = witness(*given_net)
    net = IPNet.parse(str(expected))

    assert str(net) == str(expected)
    assert str(net.network()) == str(expected.network)
    assert str(net.first()) == str(expected.network.network_address)
    assert str(net.last()) == str(expected.network.broadcast_address)
    assert (net == IPNet.parse(str(net.network()))) == (expected.ip == expected.network.network_address)


@given(networks(), ANY)
def test_network_contains_its_addresses(given_net: tuple[Any, int], address: Any) -> None:
    expected = witness(*given_net)
    net = IPNet.parse(str(expected))

    assert (Address.parse(str(address)) in net) == (address in expected.network)
    assert net.address in net and net.first() in net and net.last() in net


@given(networks(), networks())
def test_overlap_of_networks(left: tuple[Any, int], right: tuple[Any, int]) -> None:
    one, other = witness(*left).network, witness(*right).network
    expected = one.version == other.version and one.overlaps(other)

    assert IPNet.parse(str(one)).overlaps(IPNet.parse(str(other))) == expected
    assert IPNet.parse(str(other)).overlaps(IPNet.parse(str(one))) == expected


def test_networks_are_equal_by_address_and_prefix() -> None:
    assert IPNet.parse("10.1.2.3/24") == IPNet.parse("10.1.2.3/024")
    assert (
        len({IPNet.parse("::1/64"), IPNet.parse("0:0::1/64"), IPNet.parse("::1/65"), IPNet.parse("::/64")})
        == 3
    )
    assert IPNet.parse("10.1.2.3/24") != "10.1.2.3/24"


@given(ANY)
def test_address_as_a_network_of_one_address(address: Any) -> None:
    net = Address.parse(str(address)).host_net()

    assert str(net) == f"{address}/{address.max_prefixlen}"
    assert net.first() == net.last() == net.address


@pytest.mark.parametrize(
    "text",
    [
        "", "/", "10.1.2.3", "10.1.2.3/", "/24", "10.1.2.3/33", "::1/129", "10.1.2.3/-1", "10.1.2.3/+1",
        "10.1.2.3/ 8", "10.1.2.3/8 ", "10.1.2.3/2\u0664", "10.1.2.3/\xb2", "10.1.2.3/8/8",
        "10.1.2.3/255.0.0.0", "10.1.2/24", "fe80::1%eth0/64", "10.1.2.3/" + "9" * 6000, "10.1.2.3/8\n",
    ],
)  # fmt: skip
def test_malformed_network_is_refused_and_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="not an address in CIDR notation") as refused:
        IPNet.parse(text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "meant"), [("::ffff:10.1.2.3/120", "10.1.2.3/24"), ("::ffff:10.1.2.3/128", "10.1.2.3/32")]
)
def test_prefix_of_an_ipv4_mapped_network_counts_ipv6_bits(text: str, meant: str) -> None:
    assert str(IPNet.parse(text)) == meant


def test_prefix_of_an_ipv4_mapped_network_may_be_too_short_for_ipv4() -> None:
    """A /24 of 128 bits is larger than all of IPv4; read as a /24 of 32 bits it would be another network."""
    with pytest.raises(ValueError, match="not an address in CIDR notation"):
        IPNet.parse("::ffff:10.1.2.3/24")
