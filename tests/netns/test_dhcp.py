# SPDX-License-Identifier: Apache-2.0
"""dhcp: the address that a server on the container's network grants, with a real dnsmasq as that server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import cni, dhcp, traffic
from tests.support.dhcp import Lan, address, client_id, network
from tests.support.host import Host

pytestmark = pytest.mark.needs("dnsmasq")


@pytest.fixture
def lan(host: Host, implementation: cni.Implementation, tmp_path: Path) -> Iterator[Lan]:
    """The network; the keeper that the plugin starts may outlive the test by a moment."""
    made = Lan(host, tmp_path)
    made.serve()
    if implementation.name == "reference":
        dhcp.reference_daemon(host)
    host.before = host.facts()
    host.leaves("process *dhcp-keeper*", f"file {dhcp.SOCKET}", "dir /run/cni")
    yield made
    made.stop()


def test_container_gets_an_address_and_uses_it(host: Host, lan: Lan) -> None:
    container = host.container()
    result = host.cni("ADD", network(), container)

    assert result["ips"] == [{"interface": 2, "address": f"{address(result)}/24", "gateway": "10.9.0.1"}]
    assert container.addresses("eth0") == [f"{address(result)}/24"]
    assert list(lan.leases()) == [address(result)]
    assert traffic.connect(container, lan.machine, lan.ADDRESS) == address(result)
    assert lan.leases()[address(result)][2] == client_id(container)
    print(lan.log.read_text())
