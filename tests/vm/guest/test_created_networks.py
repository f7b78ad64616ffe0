# SPDX-License-Identifier: Apache-2.0
"""`cnihook network create` for links that this machine's kernel may lack: containers on such networks."""

import json

import pytest

from tests.support.commands.networks import network
from tests.support.host.host import Host, Outside
from tests.support.host.sockets import connect
from tests.support.runtimes.oci import CNIHOOK, NET_D, NETWORKS

TAGGED = "10.70.0.1"  # of the machine outside, in VLAN 5
# The options of each network, and an address that its containers reach.
DRIVERS = {
    "ipvlan": ("--subnet 198.51.100.0/24 --ip-range 198.51.100.64/26", Outside.ADDRESS),
    "vlan": ("--vlan 5 --subnet 10.70.0.0/24 --ip-range 10.70.0.64/26", TAGGED),
    "bridge": ("--vlan 7 --subnet 10.71.0.0/24", "10.71.0.1"),
}


@pytest.fixture
def implementation() -> None:
    """Run once, with the built-in plugins."""


def test_created_networks_attach(host: Host) -> None:
    """The parent link is that of the default route, and its router is the gateway of ipvlan."""
    outside = host.outside()
    outside.run("ip", "link", "add", "link", "up0", "name", "tagged", "up", "type", "vlan", "id", "5")
    outside.run("ip", "address", "add", f"{TAGGED}/24", "dev", "tagged")
    for driver, (words, address) in DRIVERS.items():
        assert network(host, "create", driver, "--driver", driver, *words.split()).stderr == ""
        container = host.container(f"c-{driver}")
        result = json.loads(host.run(CNIHOOK, "add", driver, container.path, timeout=60).stdout)
        (ip,) = result["ips"]

        assert ip["gateway"] == address
        if driver == "bridge":
            container.run("ping", "-c1", "-W30", address)
        else:
            assert connect(container, outside, address) == ip["address"].partition("/")[0]
        host.run(CNIHOOK, "del", driver, container.path, timeout=60)
        assert container.links() == {"lo"}
    assert network(host, "rm", *DRIVERS).stdout.split() == list(DRIVERS)
    assert host.listdir(NETWORKS) == host.listdir(NET_D) == []
