# SPDX-License-Identifier: Apache-2.0
"""oci-examples/chains: the networks whose kernel modules this machine may lack."""

import json

import pytest

from tests.support.host.host import Host
from tests.support.host.namespace import base_environment
from tests.support.plugins.cni import CHECKOUT

CHAINS = CHECKOUT / "oci-examples" / "chains" / "net.d"
RUN = str(CHECKOUT / "scripts" / "priv-net-run")


@pytest.fixture
def implementation() -> None:
    """Run once, with the built-in plugins."""


def test_ipvlan_in_mode_l3_is_reached_by_a_route(host: Host) -> None:
    outside = host.outside()
    text = (CHAINS / "10-example-l3.conflist").read_text().replace("uplink0", "up0")
    host.write("/run/.host/net.d/10-example-l3.conflist", text)
    outside.run("ip", "route", "add", "10.213.13.0/24", "via", outside.HOST)  # no ARP for it

    script = f"ping -c1 -W5 {outside.ADDRESS} > /dev/null && ip -j addr show eth0"
    process = host.run(
        RUN, "--conf-dir", "/run/.host/net.d", "sh", "-c", script, env=base_environment(), timeout=60
    )

    (link,) = json.loads(process.stdout)
    assert link["addr_info"][0]["local"] == "10.213.13.7"


def test_vrf_and_source_based_routing_work_together(host: Host) -> None:
    script = "ip -j rule; ip -j link show eth0; ping -c1 -W5 -I eth0 10.213.14.1 > /dev/null"
    words = ("--conf-dir", str(CHAINS), "--network", "example-vrf")
    process = host.run(RUN, *words, "sh", "-c", script, timeout=60)

    rules, links = (json.loads(line) for line in process.stdout.splitlines())
    assert any(rule["src"] == "10.213.14.2" for rule in rules)
    assert links[0]["master"] == "blue"
