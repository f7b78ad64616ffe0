# SPDX-License-Identifier: Apache-2.0
"""linux.rtnl in its own namespace: pyroute2 sees what it sets, and it sees what pyroute2 sees."""

import errno
import os
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from pyroute2 import IPRoute

from cnihook.fast.address import IPNet
from cnihook.linux import bridge_ports
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.rtnl import IF_OPER_UP, RT_SCOPE_LINK, Link, Rtnl
from tests.support.host.host import Host

T = TypeVar("T")
NET = IPNet.parse("10.1.2.3/24")
NET6 = IPNet.parse("2001:db8::3/64")


@pytest.fixture(autouse=True)
def implementation() -> None:
    """No plugin takes part: one run is enough."""


def witness(host: Host, look: Callable[[Any], T]) -> T:
    """Return what `look` returns, given a pyroute2 in the host's namespace."""

    def ask() -> T:
        with IPRoute() as ip:
            return look(ip)

    return host.inside(ask)


def seen(host: Host, name: str) -> Any:
    """Return a link as pyroute2 sees it."""
    (link,) = witness(host, lambda ip: list(ip.get_links(ifname=name)))
    return link


def refusal(act: Callable[[], object]) -> NetlinkError:
    with pytest.raises(NetlinkError) as refused:
        act()
    return refused.value


# Links


def test_bridge_has_the_requested_attributes(host: Host, rtnl: Rtnl) -> None:
    rtnl.add_bridge("br0", mtu=1400, group=4711)

    link = seen(host, "br0")
    assert link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "bridge"
    assert (link.get_attr("IFLA_MTU"), link.get_attr("IFLA_GROUP")) == (1400, 4711)
    own = rtnl.link("br0")
    assert (own.kind, own.mtu, own.group, own.is_up, own.vlan_filtering) == (
        "bridge",
        1400,
        4711,
        False,
        False,
    )


def test_pair_is_made_across_namespaces(host: Host, rtnl: Rtnl) -> None:
    """One request makes it: enslaved, up, with its MTU and its MAC address."""
    container = host.container()
    namespace = os.open(f"{host.root}{container.path}", os.O_RDONLY)
    inside = container.inside(Rtnl)
    rtnl.add_bridge("br0")
    bridge = rtnl.link("br0")
    try:
        rtnl.add_veth(
            "veth1", "eth0", namespace, mtu=1400, peer_mac="02:00:00:00:00:07", master=bridge.index,
            up=True, group=7,
        )  # fmt: skip
        outer, inner = rtnl.link("veth1"), inside.link("eth0")
    finally:
        os.close(namespace)
        inside.close()

    assert (outer.kind, outer.mtu, outer.master, outer.is_up, outer.group) == (
        "veth",
        1400,
        bridge.index,
        True,
        7,
    )
    assert (inner.kind, inner.mtu, inner.mac, inner.is_up) == ("veth", 1400, "02:00:00:00:00:07", False)
    assert (outer.peer_index, inner.peer_index) == (inner.index, outer.index)
    assert container.link("eth0")["address"] == "02:00:00:00:00:07"
    assert host.link("veth1")["master"] == "br0"


def test_name_in_use_is_refused(rtnl: Rtnl) -> None:
    rtnl.add_bridge("br0")

    error = refusal(lambda: rtnl.add_bridge("br0"))
    assert (error.errno, str(error)) == (errno.EEXIST, "create bridge br0: File exists")
    assert refusal(lambda: rtnl.add_veth("veth1", "br0")).errno == errno.EEXIST
    assert rtnl.find_link("veth1") is None, "no half of a pair is left"


def test_error_has_the_text_of_the_kernel(rtnl: Rtnl, eth0: Link) -> None:
    """Extended acknowledgements carry it; the errno alone is only `Invalid argument`."""
    error = refusal(lambda: rtnl.set_link(eth0, mtu=10))
    assert str(error) == "configure eth0: Invalid argument (mtu less than device minimum)"


def test_missing_link_is_none(rtnl: Rtnl) -> None:
    assert rtnl.find_link("eth0") is None
    assert rtnl.find_link_by_index(4711) is None
    assert refusal(lambda: rtnl.link("eth0")).errno == errno.ENODEV


@pytest.mark.parametrize(
    ("change", "attribute", "value"),
    [
        ({"mtu": 1300}, "IFLA_MTU", 1300),
        ({"mac": "02:00:00:00:00:09"}, "IFLA_ADDRESS", "02:00:00:00:00:09"),
        ({"alias": "mynet c1 eth0 \u00fc"}, "IFLA_IFALIAS", "mynet c1 eth0 \u00fc"),
        ({"alias": "x" * 300}, "IFLA_IFALIAS", "x" * 255),
    ],
)
def test_a_link_is_changed(
    host: Host, rtnl: Rtnl, eth0: Link, change: dict[str, Any], attribute: str, value: Any
) -> None:
    rtnl.set_link(eth0, **change)

    assert seen(host, "eth0").get_attr(attribute) == value
    ((name, _),) = change.items()
    assert getattr(rtnl.link("eth0"), name) == value


def test_up_and_promiscuous_are_set_separately(rtnl: Rtnl, eth0: Link) -> None:
    def state() -> tuple[bool, bool]:
        now = rtnl.link("eth0")
        return now.is_up, now.promiscuous

    assert state() == (True, False)
    rtnl.set_link(eth0, promiscuous=True)
    assert state() == (True, True)
    rtnl.set_link(eth0, up=False)
    assert state() == (False, True)
    rtnl.set_link(eth0, up=True, promiscuous=False)
    assert state() == (True, False)
    assert rtnl.link("eth0").operstate == IF_OPER_UP


def test_port_of_a_bridge_is_configured(host: Host, rtnl: Rtnl, eth0: Link) -> None:
    rtnl.add_bridge("br0")
    bridge = rtnl.link("br0")

    rtnl.set_link(eth0, master=bridge.index)
    bridge_ports.configure(rtnl, eth0, hairpin=True, isolated=True)

    def flags() -> tuple[int, int]:
        port = seen(host, "eth0").get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA")
        return port.get_attr("IFLA_BRPORT_MODE"), port.get_attr("IFLA_BRPORT_ISOLATED")

    assert flags() == (1, 1)
    own = rtnl.link("eth0")
    assert (own.master, own.isolated) == (bridge.index, True)
    assert [link.name for link in rtnl.links(bridge.index)] == ["eth0"]

    bridge_ports.configure(rtnl, eth0, hairpin=False, isolated=False)
    assert flags() == (0, 0)
    assert not rtnl.link("eth0").isolated
    rtnl.set_link(eth0, master=0)
    assert rtnl.links(bridge.index) == []


def test_ports_are_listed_as_far_as_they_are_read(host: Host, rtnl: Rtnl) -> None:
    """The kernel prepares 4 KiB at a time, so a caller that stops early does not wait for the rest."""
    rtnl.add_bridge("br0")
    bridge = rtnl.link("br0")
    for number in range(20):
        rtnl.add_veth(f"v{number}", f"w{number}", master=bridge.index)

    def read() -> tuple[str, list[str]]:
        ports = rtnl.each_port(bridge)
        first = next(ports).name
        ports.close()  # type: ignore[attr-defined]
        return first, [port.name for port in rtnl.each_port(bridge)]

    first, names = host.inside(read)
    assert first in names and sorted(names) == sorted(f"v{number}" for number in range(20))


def test_ports_are_not_listed_from_another_namespace(rtnl: Rtnl) -> None:
    """The list would be empty there, and a bridge that is in use would be removed."""
    rtnl.add_bridge("br0")

    with pytest.raises(NetlinkError, match="list the ports of br0: .*another network namespace"):
        next(rtnl.each_port(rtnl.link("br0")))


def test_link_can_be_deleted_twice(rtnl: Rtnl, eth0: Link) -> None:
    rtnl.delete_link(eth0)
    rtnl.delete_link(eth0)

    assert [link.name for link in rtnl.links()] == ["lo"]


def test_several_links_are_deleted_at_once_and_no_other(rtnl: Rtnl, eth0: Link) -> None:
    for name in ("br0", "br1", "br2"):
        rtnl.add_bridge(name)

    rtnl.delete_links([rtnl.link("br0"), rtnl.link("br2"), eth0], 4711)

    assert [link.name for link in rtnl.links()] == ["lo", "br1"]


@pytest.mark.parametrize("gone", [1, 2])
def test_deleting_several_links_succeeds_if_some_are_gone(rtnl: Rtnl, eth0: Link, gone: int) -> None:
    """The kernel removes a veth after the namespace of its other end, at any moment of a DEL."""
    rtnl.add_bridge("br0")
    bridge = rtnl.link("br0")
    for link in (eth0, bridge)[:gone]:
        rtnl.delete_link(link)

    rtnl.delete_links([eth0, bridge], 4711)

    assert [link.name for link in rtnl.links()] == ["lo"]


def test_links_are_seen_as_pyroute2_sees_them(host: Host, rtnl: Rtnl, eth0: Link) -> None:
    """The dump needs more than one packet."""
    for number in range(40):
        rtnl.add_bridge(f"br{number}")
    expected = {
        link["index"]: (
            link.get_attr("IFLA_IFNAME"),
            link.get_attr("IFLA_MTU"),
            link.get_attr("IFLA_ADDRESS"),
            bool(link["flags"] & 1),
            link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "",
            link.get_attr("IFLA_LINK") or 0,
        )
        for link in witness(host, lambda ip: list(ip.get_links()))
    }

    assert len(expected) == 43
    assert expected == {
        link.index: (link.name, link.mtu, link.mac, link.is_up, link.kind, link.peer_index)
        for link in rtnl.links()
    }


# Addresses


def test_addresses_of_both_families(host: Host, rtnl: Rtnl, eth0: Link) -> None:
    for net in (NET, NET6, IPNet.parse("10.9.0.0/31"), IPNet.parse("10.8.0.1/32")):
        rtnl.add_address(eth0, net)

    addresses = {
        address.get_attr("IFA_ADDRESS"): (
            address["prefixlen"],
            address.get_attr("IFA_BROADCAST"),
            address["scope"],
        )
        for address in witness(host, lambda ip: list(ip.get_addr(index=eth0.index)))
        if address["scope"] != RT_SCOPE_LINK
    }
    assert addresses == {
        "10.1.2.3": (24, "10.1.2.255", 0),
        "10.9.0.0": (31, None, 0),
        "10.8.0.1": (32, None, 0),
        "2001:db8::3": (64, None, 0),
    }


def test_addresses_are_seen_as_pyroute2_sees_them(host: Host, rtnl: Rtnl, eth0: Link) -> None:
    """Also those that IPv6 makes itself, and an address with a peer address."""
    rtnl.add_address(eth0, NET)
    rtnl.add_address(eth0, NET6)
    host.run("ip", "address", "add", "10.5.0.1", "peer", "10.5.0.2/32", "dev", "eth1")

    expected = sorted(
        (
            address["index"],
            address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS"),
            address["prefixlen"],
            address["scope"],
        )
        for address in witness(host, lambda ip: list(ip.get_addr()))
    )

    assert len(expected) >= 7
    assert expected == sorted(
        (address.index, str(address.net.address), address.net.prefix, address.scope)
        for address in rtnl.addresses()
    )
    assert {address.index for address in rtnl.addresses(eth0)} == {eth0.index}


def test_error_names_an_mtu_that_is_too_small_for_ipv6(rtnl: Rtnl) -> None:
    """The kernel's error is "Invalid argument", without a reason."""
    rtnl.add_veth("small", "peer", mtu=1279)

    with pytest.raises(
        NetlinkError, match=r"small: Invalid argument \(its MTU is 1279, and IPv6 takes 1280"
    ):
        rtnl.add_address(rtnl.link("small"), NET6)
    rtnl.add_address(rtnl.link("small"), NET)


def test_existing_address_is_refused_and_can_be_deleted(rtnl: Rtnl, eth0: Link) -> None:
    rtnl.add_address(eth0, NET)

    error = refusal(lambda: rtnl.add_address(eth0, NET))
    assert error.errno == errno.EEXIST and str(error).startswith("add 10.1.2.3/24 to eth0: ")
    rtnl.delete_address(eth0, NET)
    assert NET not in [address.net for address in rtnl.addresses(eth0)]
    assert refusal(lambda: rtnl.delete_address(eth0, NET)).errno == errno.EADDRNOTAVAIL


# Requests and answers


def test_answer_left_unread_is_not_taken_for_the_next(rtnl: Rtnl, eth0: Link) -> None:
    """A deadline's signal may come between request and answer."""

    class Interrupted(Exception):
        pass

    class Once:
        def __init__(self, socket: Any) -> None:
            self.socket = socket

        def __getattr__(self, name: str) -> Any:
            return getattr(self.socket, name)

        def recv(self, size: int) -> bytes:
            rtnl._socket = self.socket
            raise Interrupted

    rtnl._socket = Once(rtnl._socket)  # type: ignore[assignment]
    with pytest.raises(Interrupted):
        rtnl.links()

    assert rtnl.link("lo").name == "lo"
    assert [link.name for link in rtnl.links()] == ["lo", "eth1", "eth0"]


def test_a_socket_stays_in_its_namespace(host: Host) -> None:
    container = host.container()
    rtnl = container.inside(Rtnl)
    rtnl.add_bridge("br0")

    assert container.links() == {"lo", "br0"}
    assert host.links() == {"lo"}
    rtnl.delete_link(rtnl.link("br0"))
    rtnl.close()
