# SPDX-License-Identifier: Apache-2.0
"""The leak check after each test finds every kind of leftover."""

import pytest

from tests.support.host.host import Host

MAKE = """\
link add br0 address 02:00:00:00:00:01 type bridge
link add br1 address 02:00:00:00:00:02 mtu 1400 type bridge
link add port address 02:00:00:00:00:03 type veth peer name peer netns c1
link set port master br0 up
link set br0 up promisc on allmulticast on
address add 10.9.0.1/24 dev br0
address add 2001:db8:9::1/64 dev br0 nodad
route add 192.0.2.0/24 via 10.9.0.2 metric 7
route add 198.51.100.7 dev br0 table 100
route add unreachable 203.0.113.0/24
route add default via 10.9.0.3
rule add from 10.9.0.0/24 table 100 priority 99
"""
MAKE6 = """\
route add default via 2001:db8:9::2
route add 2001:db8:77::/48 dev br0 table 300
rule add from 2001:db8:9::5 table main priority 98
"""

SEEN = """\
address br0 10.9.0.1/24
address br0 2001:db8:9::1/64
link br0 bridge allmulti promisc up mtu 1500 mac 02:00:00:00:00:01
link br1 bridge  mtu 1400 mac 02:00:00:00:00:02
link port veth up mtu 1500 mac 02:00:00:00:00:03 in br0
nft: table ip leaked
nft: table ip leaked / chain one
route - unreachable 203.0.113.0/24 table main
route br0 broadcast 10.9.0.255 table local
route br0 local 10.9.0.1 table local
route br0 local 2001:db8:9::1 table local metric 0
route br0 unicast 10.9.0.0/24 table main
route br0 unicast 192.0.2.0/24 gateway 10.9.0.2 table main metric 7
route br0 unicast 198.51.100.7 table 100
route br0 unicast 2001:db8:77::/48 table 300 metric 1024
route br0 unicast 2001:db8:9::/64 table main metric 256
route br0 unicast default gateway 10.9.0.3 table main
route br0 unicast default gateway 2001:db8:9::2 table main metric 1024
rule 98 from 2001:db8:9::5 table main
rule 99 from 10.9.0.0/24 table 100
"""


@pytest.fixture
def implementation() -> None:
    """No plugin runs."""


def test_every_kind_of_leftover_is_seen(host: Host) -> None:
    """Leftovers of the host and of a container, and files and processes."""
    container = host.container()
    host.leaves("*")
    host.run("ip", "-batch", "-", input=MAKE)
    host.run("ip", "-6", "-batch", "-", input=MAKE6)
    host.run("nft", "add table ip leaked; add chain ip leaked one")
    container.run("ip", "address", "add", "10.9.0.9/24", "dev", "peer")
    host.write("/run/left", "")
    host.write("/etc/left", "")
    host.run("sh", "-c", "sleep 2147483647 > /dev/null 2>&1 &")

    now = host.state()

    new = now.lines - host.before.lines
    others = {"file /run/left", "file /etc/left", "process sleep 2147483647"}
    assert {line for line in new if not line.startswith("in c1: ")} == {*SEEN.splitlines()} | others
    assert "in c1: address peer 10.9.0.9/24" in new
    assert now.bridges == {"br1"}
