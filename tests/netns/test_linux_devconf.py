# SPDX-License-Identifier: Apache-2.0
"""Settings of links by rtnetlink are those below /proc/sys/net."""

import pytest

from cnihook.linux import devconf
from cnihook.linux.rtnl import Link, Rtnl
from tests.support.host.host import Host


def test_link_announces_its_addresses(host: Host, rtnl: Rtnl, eth0: Link) -> None:
    name = "net/ipv4/conf/eth0/arp_notify"
    assert host.sysctl(name) == "0"
    devconf.notify_by_arp(rtnl, eth0)
    assert host.sysctl(name) == "1"
    assert host.sysctl("net/ipv4/conf/eth1/arp_notify") == "0"


@pytest.mark.parametrize(
    ("version", "name"), [(4, "net/ipv4/ip_forward"), (6, "net/ipv6/conf/all/forwarding")]
)
def test_forwarding_is_that_of_the_namespace(host: Host, rtnl: Rtnl, version: int, name: str) -> None:
    for value in ("1", "0"):
        host.set_sysctl(name, value)
        assert devconf.forwards(rtnl, version) is (value == "1")
