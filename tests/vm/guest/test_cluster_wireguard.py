# SPDX-License-Identifier: Apache-2.0
"""A network of three hosts by WireGuard; tests/netns/test_cluster_kernel.py has the other transports."""

import ipaddress
from pathlib import Path

import pytest

from cnihook.cluster.kernel import Changes, TransportError
from cnihook.cluster.model import Settings
from tests.support.cluster.kernel_hosts import SWITCH, ClusterHost, inside, join
from tests.support.host.host import Host
from tests.support.host.sockets import connect

MTU = 1420


@pytest.fixture
def implementation() -> None:
    """No plugin takes part: one run is enough."""


def test_containers_of_three_hosts_reach_each_other(host: Host, tmp_path: Path) -> None:
    """Both IP versions, at full size; then a host has another key, another is gone, and one leaves."""
    host.leaves("*")
    host.run("ip", "-batch", "-", input=SWITCH)
    nets = ipaddress.ip_network("10.60.0.0/16"), ipaddress.ip_network("fd00:60::/48")
    settings = Settings(nets, (24, 64), "wireguard", MTU, "e1", "", port=51820)
    one, two, three = hosts = [ClusterHost(host, settings, n, tmp_path, underlay=4) for n in (1, 2, 3)]

    changes = join(hosts)

    # A nexthop and three routes of each IP version, and two peers.
    assert [each.added for each in changes] == [10] * 3
    for net, source, address in zip(one.blocks, one.addresses, two.addresses, strict=True):
        assert connect(one.container, two.container, address) == source
        assert connect(one.space, two.container, address) == str(net.network_address)
    assert connect(three.container, one.container, one.addresses[1]) == three.addresses[1]
    one.container.run("ping", "-c1", "-W2", "-M", "do", "-s", str(MTU - 28), two.addresses[0])
    assert inside(one.space, one.transport.check) == []

    # A second pass sends nothing; only the owner can read the key.
    blocks = [each.block for each in hosts]
    key = tmp_path / "h2" / "wireguard.key"
    assert join(hosts) == [Changes()] * 3 and [each.block for each in hosts] == blocks
    assert key.stat().st_mode & 0o777 == 0o600

    # Another key of a host: its old peer is removed.
    key.unlink()
    join(hosts)
    assert two.block.member.wg != blocks[1].member.wg
    assert connect(one.container, two.container, two.addresses[0]) == one.addresses[0]
    blocks = [each.block for each in hosts]
    assert one.program(blocks[0], blocks[1:2], may_delete=False) == Changes()
    assert one.program(blocks[0], blocks[1:2]) == Changes(deleted=3)  # two routes and the peer

    key.write_text("no key\n")
    with pytest.raises(TransportError, match=r"wireguard\.key: is not a key of WireGuard; remove it"):
        two.program(blocks[1], blocks[:1])
    inside(one.space, one.transport.remove)
    assert "wg-wide" not in one.space.links()
    assert one.space.run("ip", "nexthop").stdout == ""
