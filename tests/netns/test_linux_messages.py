# SPDX-License-Identifier: Apache-2.0
"""linux.rtnl, linux.bridge_ports: their requests to the kernel, as pyroute2 reads them.

The authors of pyroute2 used the same headers.  No kernel takes part, and no privilege is
needed: the requests are caught before they reach the socket.
"""

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cnihook.fast.address import Address, IPNet, mac_bytes
from cnihook.linux import bridge_ports, netlink, route_lookup
from cnihook.linux.rtnl import Link, Rtnl

# <linux/rtnetlink.h>
NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, GETROUTE = 24, 26
# <linux/netlink.h>
REPLACE, EXCL, CREATE, DUMP = 0x100, 0x200, 0x400, 0x300
INET, INET6, BRIDGE = 2, 10, 7
UP, PROMISC = 0x1, 0x100


@pytest.fixture(autouse=True)
def implementation() -> None:
    """No plugin takes part: one run is enough."""


class Caught(Rtnl):
    """An Rtnl without a socket that keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, int, bytes]] = []

    def request(self, kind: int, flags: int, body: bytes, what: str) -> list[bytes]:
        assert what, "an error names the request"
        self.requests.append((kind, flags, body))
        return []


def sent(ask: Callable[[Rtnl], object]) -> list[tuple[int, int, dict[str, Any]]]:
    """Return type, flags and content of all requests, as pyroute2 reads them."""
    caught = Caught()
    ask(caught)
    requests = []
    for kind, flags, body in caught.requests:
        reader = ifinfmsg if kind < NEWADDR else ifaddrmsg if kind < NEWROUTE else rtmsg
        message = reader(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        message.decode()
        requests.append((kind, flags, plain(message)))
    return requests


def one(ask: Callable[[Rtnl], object]) -> tuple[int, int, dict[str, Any]]:
    (request,) = sent(ask)
    return request


def plain(message: Any) -> dict[str, Any]:
    """Return fields and attributes by name, without zeros.  An attribute that recurs is a list."""
    fields: dict[str, Any] = {
        key: value
        for key, value in message.items()
        if value and key not in ("attrs", "header", "state", "__align", "event")
    }
    for name, value, *_flags in message.get("attrs", ()):
        value = plain(value) if isinstance(value, dict) else value
        if name in fields:
            value = [*(fields[name] if isinstance(fields[name], list) else [fields[name]]), value]
        fields[name] = value
    return fields


def link(index: int = 5, name: str = "eth0") -> Link:
    new_link = Link(struct.pack("=BxHiII", 0, 0, index, 0, 0))
    new_link.name = name
    return new_link


def test_a_bridge_is_made() -> None:
    assert one(lambda rtnl: rtnl.add_bridge("br0", mtu=1400, vlan_filtering=True, group=7)) == (
        NEWLINK,
        CREATE | EXCL,
        {
            "IFLA_IFNAME": "br0",
            "IFLA_MTU": 1400,
            "IFLA_GROUP": 7,
            "IFLA_LINKINFO": {"IFLA_INFO_KIND": "bridge", "IFLA_INFO_DATA": {"IFLA_BR_VLAN_FILTERING": 1}},
        },
    )
    assert one(lambda rtnl: rtnl.add_bridge("br0"))[2] == {
        "IFLA_IFNAME": "br0",
        "IFLA_LINKINFO": {"IFLA_INFO_KIND": "bridge"},
    }


def test_a_pair_is_made_in_one_request() -> None:
    ask = one(
        lambda rtnl: rtnl.add_veth(
            "veth1", "eth0", 9, mtu=1400, peer_mac="02:00:00:00:00:01", master=3, up=True
        )
    )

    assert ask == (
        NEWLINK,
        CREATE | EXCL,
        {
            "flags": UP,
            "change": UP,
            "IFLA_IFNAME": "veth1",
            "IFLA_MTU": 1400,
            "IFLA_MASTER": 3,
            "IFLA_LINKINFO": {
                "IFLA_INFO_KIND": "veth",
                "IFLA_INFO_DATA": {
                    "VETH_INFO_PEER": {
                        "IFLA_IFNAME": "eth0",
                        "IFLA_MTU": 1400,
                        "IFLA_NET_NS_FD": 9,
                        "IFLA_ADDRESS": "02:00:00:00:00:01",
                    }
                },
            },
        },
    )


def test_a_plain_pair_is_made_from_two_names() -> None:
    assert one(lambda rtnl: rtnl.add_veth("a", "b"))[2] == {
        "IFLA_IFNAME": "a",
        "IFLA_LINKINFO": {
            "IFLA_INFO_KIND": "veth",
            "IFLA_INFO_DATA": {"VETH_INFO_PEER": {"IFLA_IFNAME": "b"}},
        },
    }


@pytest.mark.parametrize(
    ("change", "content"),
    [
        ({"up": True}, {"flags": UP, "change": UP}),
        ({"up": False}, {"change": UP}),
        ({"promiscuous": True}, {"flags": PROMISC, "change": PROMISC}),
        ({"up": True, "promiscuous": False}, {"flags": UP, "change": UP | PROMISC}),
        ({"mtu": 9000}, {"IFLA_MTU": 9000}),
        ({"mac": "AA:bb:cc:00:11:22"}, {"IFLA_ADDRESS": "aa:bb:cc:00:11:22"}),
        ({"master": 3}, {"IFLA_MASTER": 3}),
        ({"master": 0}, {"IFLA_MASTER": 0}),
        ({"alias": "mynet c1 eth0"}, {"IFLA_IFALIAS": "mynet c1 eth0"}),
        ({"alias": "\u00fc"}, {"IFLA_IFALIAS": "\u00fc"}),
    ],
)
def test_a_link_is_changed(change: dict[str, Any], content: dict[str, Any]) -> None:
    assert one(lambda rtnl: rtnl.set_link(link(), **change)) == (NEWLINK, 0, {"index": 5, **content})


@pytest.mark.parametrize(
    ("change", "content"),
    [
        ({"hairpin": True}, {"IFLA_BRPORT_MODE": 1}),
        ({"hairpin": False}, {"IFLA_BRPORT_MODE": 0}),
        ({"isolated": True}, {"IFLA_BRPORT_ISOLATED": 1}),
        ({"hairpin": True, "isolated": False}, {"IFLA_BRPORT_MODE": 1, "IFLA_BRPORT_ISOLATED": 0}),
    ],
)
def test_a_port_is_changed(change: dict[str, Any], content: dict[str, Any]) -> None:
    assert one(lambda rtnl: bridge_ports.configure(rtnl, link(), **change)) == (
        SETLINK,
        0,
        {"family": BRIDGE, "index": 5, "IFLA_PROTINFO": content},
    )


def test_no_request_without_a_change() -> None:
    assert sent(lambda rtnl: rtnl.set_link(link())) == []
    assert sent(lambda rtnl: bridge_ports.configure(rtnl, link())) == []


def test_a_long_alias_is_cut_to_255_bytes() -> None:
    alias = one(lambda rtnl: rtnl.set_link(link(), alias="x" * 300))[2]["IFLA_IFALIAS"]

    assert len(alias) == 255


def test_vlan_filtering_is_enabled() -> None:
    content = one(lambda rtnl: bridge_ports.enable_vlan_filtering(rtnl, link()))[2]

    assert content == {
        "index": 5,
        "IFLA_LINKINFO": {"IFLA_INFO_KIND": "bridge", "IFLA_INFO_DATA": {"IFLA_BR_VLAN_FILTERING": 1}},
    }


PVID, UNTAGGED, BEGIN, END = 2, 4, 8, 16


@pytest.mark.parametrize(
    ("ask", "kind", "infos"),
    [
        (lambda rtnl: bridge_ports.add_vlan(rtnl, link(), 100), SETLINK, {"vid": 100, "flags": 0}),
        (
            lambda rtnl: bridge_ports.add_vlan(rtnl, link(), 100, pvid=True, untagged=True),
            SETLINK,
            {"vid": 100, "flags": PVID | UNTAGGED},
        ),
        (
            lambda rtnl: bridge_ports.add_vlan(rtnl, link(), 10, 20),
            SETLINK,
            [{"vid": 10, "flags": BEGIN}, {"vid": 20, "flags": END}],
        ),
        (lambda rtnl: bridge_ports.add_vlan(rtnl, link(), 10, 10), SETLINK, {"vid": 10, "flags": 0}),
        (lambda rtnl: bridge_ports.delete_vlan(rtnl, link(), 1), DELLINK, {"vid": 1, "flags": 0}),
    ],
)
def test_vlans_of_a_port(ask: Callable[[Rtnl], object], kind: int, infos: Any) -> None:
    caught = Caught()
    ask(caught)
    ((found_kind, flags, body),) = caught.requests
    message = ifinfmsg(struct.pack("=IHHII", 16 + len(body), found_kind, flags, 1, 0) + body)
    message.decode()
    given_infos = message.get_attr("IFLA_AF_SPEC").get_attrs("IFLA_BRIDGE_VLAN_INFO")

    assert (found_kind, message["family"], message["index"]) == (kind, BRIDGE, 5)
    assert [dict(info) for info in given_infos] == (infos if isinstance(infos, list) else [infos])


def test_a_link_is_deleted() -> None:
    assert one(lambda rtnl: rtnl.delete_link(link())) == (DELLINK, 0, {"index": 5})


def test_several_links_are_deleted_by_a_group() -> None:
    """The last request has the group only; with another attribute it would mean another thing."""
    assert sent(lambda rtnl: rtnl.delete_links([link(5), link(6)], 0xFFFFFFF0)) == [
        (NEWLINK, 0, {"index": 5, "IFLA_GROUP": 0xFFFFFFF0}),
        (NEWLINK, 0, {"index": 6, "IFLA_GROUP": 0xFFFFFFF0}),
        (DELLINK, 0, {"IFLA_GROUP": 0xFFFFFFF0}),
    ]


def test_lists_are_requested() -> None:
    assert one(lambda rtnl: rtnl.links()) == (GETLINK, DUMP, {})
    assert one(lambda rtnl: rtnl.links(3)) == (GETLINK, DUMP, {"IFLA_MASTER": 3})
    assert one(lambda rtnl: rtnl.addresses()) == (GETADDR, DUMP, {})
    assert one(lambda rtnl: rtnl.addresses(link())) == (GETADDR, DUMP, {"index": 5})
    assert one(lambda rtnl: route_lookup.routes(rtnl)) == (GETROUTE, DUMP, {})
    assert one(lambda rtnl: route_lookup.routes(rtnl, 6)) == (GETROUTE, DUMP, {"family": INET6})


ADDRESSES = (st.ip_addresses(v=4) | st.ip_addresses(v=6)).map(str).map(Address.parse)


@st.composite
def nets(draw: st.DrawFn) -> IPNet:
    address = draw(ADDRESSES)
    return IPNet(address, draw(st.integers(0, address.bits)))


def packed(text: str) -> bytes:
    return bytes(Address.parse(text))


@settings(deadline=None)
@given(nets())
def test_any_address_is_added(net: IPNet) -> None:
    """The broadcast address is set, as by ip(8) and the reference; a network of two addresses has none."""
    kind, flags, content = one(lambda rtnl: rtnl.add_address(link(), net))

    assert (kind, flags) == (NEWADDR, CREATE | EXCL)
    assert content.pop("family") == (INET if net.address.version == 4 else INET6)
    assert (content.pop("prefixlen", 0), content.pop("index")) == (net.prefix, 5)
    assert packed(content.pop("IFA_LOCAL")) == packed(content.pop("IFA_ADDRESS")) == net.address
    if net.address.version == 4 and net.prefix < 31:
        assert packed(content.pop("IFA_BROADCAST")) == net.last()
    assert content == {}


def test_an_address_is_deleted() -> None:
    kind, flags, content = one(lambda rtnl: rtnl.delete_address(link(), IPNet.parse("10.1.2.3/32")))

    assert (kind, flags) == (DELADDR, 0)
    assert content == {
        "family": INET, "prefixlen": 32, "index": 5, "IFA_LOCAL": "10.1.2.3", "IFA_ADDRESS": "10.1.2.3"
    }  # fmt: skip


@settings(deadline=None)
@given(
    nets(),
    st.data(),
    st.sampled_from([0, 1, 1024, 0xFFFFFFFF]),
    st.sampled_from([254, 0, 100, 255, 256, 0xFFFFFFFF]),
    st.sampled_from([None, 0, 200, 253, 254]),
    st.sampled_from([0, 1300]),
    st.sampled_from([0, 1260]),
)
def test_any_route_is_added(
    dst: IPNet, data: st.DataObject, priority: int, table: int, scope: int | None, mtu: int, advmss: int
) -> None:
    version = dst.address.version
    own_family = ADDRESSES.filter(lambda address: address.version == version)
    via = data.draw(st.none() | own_family)
    source = data.draw(st.none() | own_family)

    kind, flags, content = one(
        lambda rtnl: rtnl.add_route(
            link(), dst, via=via, priority=priority, table=table, scope=scope,
            mtu=mtu, advmss=advmss, source=source,
        )
    )  # fmt: skip

    assert (kind, flags) == (NEWROUTE, CREATE), "without EXCL, a second route to one destination is accepted"
    assert content.pop("family") == (INET if version == 4 else INET6)
    assert (content.pop("type"), content.pop("proto")) == (1, 3)  # unicast, boot
    assert content.pop("dst_len", 0) == dst.prefix
    assert content.pop("table", 0) == (table if table < 256 else 0)
    assert (content.pop("RTA_TABLE"), content.pop("RTA_OIF")) == (table, 5)
    expected_scope = scope if scope is not None else 0 if via or version == 6 else 253
    assert content.pop("scope", 0) == expected_scope
    if dst.prefix:
        assert packed(content.pop("RTA_DST")) == dst.first(), "the kernel refuses host bits"
    for name, address in (("RTA_GATEWAY", via), ("RTA_PREFSRC", source)):
        if address:
            assert packed(content.pop(name)) == address
    if priority:
        assert content.pop("RTA_PRIORITY") == priority
    metrics = {name: value for name, value in (("RTAX_MTU", mtu), ("RTAX_ADVMSS", advmss)) if value}
    assert content.pop("RTA_METRICS", {}) == metrics
    assert content == {}


def test_mac_addresses() -> None:
    assert mac_bytes("02:00:5E:10:ff:01") == b"\x02\x00\x5e\x10\xff\x01"
    for text in (
        "", "02", "02:00:00:00:00", "02:00:00:00:00:01:02", "02-00-00-00-00-01", "2:0:0:0:0:1",
        "02:00:00:00:00:0g", "+2:00:00:00:00:01", " 2:00:00:00:00:01", "0_:00:00:00:00:01",
        "\uff10\uff12:00:00:00:00:01",
        "0x:00:00:00:00:01", "02:00:00:00:00:01\n", "020000000001",
    ):  # fmt: skip
        with pytest.raises(ValueError, match="is not a MAC address"):
            mac_bytes(text)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.binary(max_size=9)), max_size=6))
def test_attributes_are_unpacked_as_they_were_packed(attrs: list[tuple[int, bytes]]) -> None:
    """Each is aligned to four bytes, whatever its length.  If one recurs, the last one counts."""
    data = b"".join(netlink.attr(kind, value) for kind, value in attrs)

    assert len(data) % 4 == 0
    assert netlink.attributes(data) == dict(attrs)
    assert netlink.attributes(b"head" + netlink.nested(7, data), 4) == {7: data}


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_parsing_of_any_bytes_ends(data: bytes) -> None:
    assert isinstance(netlink.attributes(data), dict)
