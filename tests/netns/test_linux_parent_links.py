# SPDX-License-Identifier: Apache-2.0
"""linux.parent_links: its requests to the kernel, as pyroute2 reads them, and what it reads of an answer."""

import struct
from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from cnihook.linux import parent_links
from cnihook.linux.rtnl import Link
from tests.netns.test_linux_messages import CREATE, EXCL, NEWLINK, link, one


@pytest.fixture(autouse=True)
def implementation() -> None:
    """No plugin takes part: one run is enough."""


KINDS: list[tuple[str, tuple[bytes, ...], dict[str, Any]]] = [
    ("macvlan", parent_links.macvlan("bridge"), {"IFLA_MACVLAN_MODE": "bridge"}),
    ("macvlan", parent_links.macvlan("private"), {"IFLA_MACVLAN_MODE": "private"}),
    ("macvlan", parent_links.macvlan("vepa"), {"IFLA_MACVLAN_MODE": "vepa"}),
    ("macvlan", parent_links.macvlan("passthru"), {"IFLA_MACVLAN_MODE": "passthru"}),
    ("ipvlan", parent_links.ipvlan("l2"), {}),  # it is number 0
    ("ipvlan", parent_links.ipvlan("l3"), {"IFLA_IPVLAN_MODE": 1}),
    ("ipvlan", parent_links.ipvlan("l3s"), {"IFLA_IPVLAN_MODE": 2}),
    ("vlan", parent_links.vlan(100), {"IFLA_VLAN_ID": 100}),
    ("vlan", parent_links.vlan(4094), {"IFLA_VLAN_ID": 4094}),
]


@pytest.mark.parametrize(("kind", "data", "meaning"), KINDS)
def test_a_link_is_made_on_a_parent_link(
    kind: str, data: tuple[bytes, ...], meaning: dict[str, Any]
) -> None:
    message, flags, content = one(lambda rtnl: parent_links.add(rtnl, kind, "x0", link(7), 9, data))

    info = content.pop("IFLA_LINKINFO")
    assert (message, flags) == (NEWLINK, CREATE | EXCL)
    assert content == {"IFLA_IFNAME": "x0", "IFLA_LINK": 7, "IFLA_NET_NS_FD": 9}
    assert info["IFLA_INFO_KIND"] == kind
    attributes = info["IFLA_INFO_DATA"]
    assert {key: value for key, value in attributes.items() if value} == meaning


def test_mtu_and_mac_are_requested_if_given() -> None:
    content = one(
        lambda rtnl: parent_links.add(
            rtnl,
            "macvlan",
            "x0",
            link(7),
            9,
            parent_links.macvlan("bridge"),
            mtu=1400,
            mac="02:00:00:00:00:01",
        )
    )[2]

    assert (content["IFLA_MTU"], content["IFLA_ADDRESS"]) == (1400, "02:00:00:00:00:01")


def test_queue_length_of_a_macvlan() -> None:
    """pyroute2 has no name for it: type 7, as in <linux/if_link.h>."""
    assert parent_links.macvlan("bridge", 4000)[1] == struct.pack("=HHI", 8, 7, 4000)


def described(kind: str, data: tuple[bytes, ...]) -> Link:
    """Return a link as the kernel would describe it."""
    info = ifinfmsg()
    info["index"] = 5
    info["attrs"] = [("IFLA_IFNAME", "x0"), ("IFLA_LINK", 7)]
    info.encode()
    body = bytes(info.data)[16:]
    kind_text = kind.encode() + b"\0"
    attrs = struct.pack("=HH", 4 + len(kind_text), 1) + kind_text + bytes(-len(kind_text) % 4)
    packed = b"".join(data)
    attrs += struct.pack("=HH", 4 + len(packed), 2) + packed
    return Link(body + struct.pack("=HH", 4 + len(attrs), 18) + attrs)


def test_mode_and_id_of_a_link_are_read() -> None:
    assert [
        parent_links.macvlan_mode(described("macvlan", parent_links.macvlan(mode)))
        for mode in parent_links.MACVLAN_MODES
    ] == ["private", "vepa", "bridge", "passthru"]
    assert [
        parent_links.ipvlan_mode(described("ipvlan", parent_links.ipvlan(mode)))
        for mode in parent_links.IPVLAN_MODES
    ] == ["l2", "l3", "l3s"]
    assert parent_links.vlan_id(described("vlan", parent_links.vlan(4094))) == 4094
    assert described("vlan", parent_links.vlan(1)).peer_index == 7


def test_mode_without_a_name_is_unknown() -> None:
    """Another program may set a macvlan to mode `source`."""
    assert parent_links.macvlan_mode(described("macvlan", (struct.pack("=HHI", 8, 1, 16),))) == "unknown"
    assert parent_links.ipvlan_mode(described("ipvlan", (struct.pack("=HHI", 6, 1, 77),))) == "unknown"
