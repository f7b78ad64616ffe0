# SPDX-License-Identifier: Apache-2.0
"""linux.link_snapshot: addresses and routes that a link loses by a move are restored, as pyroute2 shows."""

from typing import Any

import pytest
from pyroute2 import IPRoute

from cnihook.linux.link_snapshot import LinkSnapshot
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.netns import NetNS
from cnihook.linux.rtnl import Rtnl
from tests.support.host.host import Container, Host

SETUP = """\
address add 10.8.0.1/24 dev eth0
address add 10.8.0.2/24 dev eth0
address add 10.7.0.1 peer 10.7.0.2/32 dev eth0
address add 2001:db8:8::1/64 dev eth0 nodad
address add 2001:db8:9::1/64 dev eth0 nodad noprefixroute valid_lft 1000 preferred_lft 900
route add default via 10.8.0.254 dev eth0 metric 7 proto dhcp src 10.8.0.2
route add 10.6.0.0/16 via 192.0.2.1 dev eth0 onlink mtu 1400
route add 192.0.2.0/24 via 10.8.0.254 dev eth0 table 777
route add unreachable 203.0.113.0/24
route add 2001:db8:1::/48 via 2001:db8:8::2 dev eth0
route add 198.51.100.0/24 dev eth1
"""


@pytest.fixture(autouse=True)
def implementation() -> None:
    """No plugin takes part: one run is enough."""


def witness(host: Host) -> tuple[set[Any], set[Any]]:
    """Return the addresses and routes that pyroute2 sees, without what counts seconds."""

    def ask() -> tuple[set[Any], set[Any]]:
        with IPRoute() as ip:
            addresses = {
                (a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS"), a["prefixlen"], a["scope"])
                for a in ip.get_addr()
            }
            routes = set()
            for route in ip.get_routes():
                if (route["family"], route.get_attr("RTA_TABLE")) == (10, 255):
                    continue  # the kernel's own, which appear when an address is known to be unique
                attributes = dict(route["attrs"])
                for unstable in ("RTA_CACHEINFO", "RTA_OIF"):
                    attributes.pop(unstable, None)
                names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
                fields = tuple(route[key] for key in ("family", "dst_len", "proto", "scope", "type"))
                device = names.get(route.get_attr("RTA_OIF"))
                routes.add((fields, device, str(sorted(attributes.items()))))
            return addresses, routes

    return host.inside(ask)


@pytest.mark.parametrize("index", [501, 77], ids=["same index", "another index"])
def test_addresses_and_routes_are_restored(host: Host, container: Container, index: int) -> None:
    """Even if the index is in use after the move, so that the link returns with another one."""
    host.leaves("*")
    host.run("ip", "link", "add", "eth0", "index", "501", "type", "veth", "peer", "name", "eth1")
    host.run("ip", "link", "set", "eth0", "up")
    host.run("ip", "link", "set", "eth1", "up")
    host.run("ip", "-batch", "-", input=SETUP)
    if index != 501:
        container.run("ip", "link", "add", "br0", "index", "501", "type", "bridge")
    before = witness(host)
    rtnl, inside = host.inside(Rtnl), container.inside(Rtnl)
    home, away = NetNS.open(host.net_outside), NetNS.open(container.net_outside)

    saved = LinkSnapshot(rtnl, rtnl.link("eth0"))
    rtnl.set_link(rtnl.link("eth0"), netns=away.fd)
    assert witness(host) != before
    inside.set_link(inside.link("eth0"), netns=home.fd)
    link = rtnl.link("eth0")
    rtnl.set_link(link, up=True)
    saved.restore(rtnl, link)

    assert (link.index == 501) == (index == 501)
    assert witness(host) == before
    saved.restore(rtnl, link)
    assert witness(host) == before, "a second restore changes nothing"
    for open_one in (rtnl, inside, home, away):
        open_one.close()


def test_route_that_cannot_be_set_does_not_stop_the_rest(host: Host) -> None:
    host.leaves("*")
    host.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    host.run("ip", "link", "set", "eth0", "up")
    host.run("ip", "link", "set", "eth1", "up")
    host.run("ip", "-batch", "-", input=SETUP)
    rtnl = host.inside(Rtnl)
    link = rtnl.link("eth0")
    saved = LinkSnapshot(rtnl, link)
    host.run("ip", "address", "flush", "dev", "eth0")
    host.run("ip", "link", "set", "eth0", "down")

    with pytest.raises(NetlinkError, match="restore a route of eth0: "):
        saved.restore(rtnl, link)

    assert host.addresses("eth0")[:2] == ["10.8.0.1/24", "10.7.0.1/32"]
    rtnl.close()
