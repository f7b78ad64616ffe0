# SPDX-License-Identifier: Apache-2.0
"""cnihook doctor: packets that are too big for the uplink, and published ports that need hairpin mode."""

from typing import Any

import pytest

from tests.e2e.test_doctor import attach
from tests.support.commands.doctor import doctor, finds
from tests.support.commands.networks import create
from tests.support.host.host import Host
from tests.support.plugins.firewall import BRIDGED
from tests.support.runtimes.oci import CNIHOOK, bridge, configure, wait_for

SUBNETS = {4: "10.22.0.0/24", 6: "fd22::/64"}
UPLINKS = {"wan0": "1400", "lan0": "1500"}
HALVES = {4: ("0.0.0.0/1", "128.0.0.0/1"), 6: ("::/1", "8000::/1")}


@pytest.fixture
def uplinks(host: Host) -> None:
    """Create wan0 with an MTU of 1400 and lan0 with 1500, without routes."""
    for name, mtu in UPLINKS.items():
        host.run("ip", "link", "add", name, "mtu", mtu, "type", "ifb")
        host.run("ip", "link", "set", name, "up")
    host.before = host.state()


def lead(host: Host, version: int, *destinations: str, link: str = "wan0") -> None:
    for each in destinations:
        host.run("ip", f"-{version}", "route", "add", each, "dev", link)
    host.before = host.state()


@pytest.mark.usefixtures("uplinks")
@pytest.mark.parametrize("kind", ["bridge", "ptp"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("is_vpn", [False, True], ids=["default route", "VPN"])
def test_mtu_of_uplink_is_lower_than_that_of_containers(
    host: Host, version: int, is_vpn: bool, kind: str
) -> None:
    """A VPN keeps the default route and adds a route for each half of all addresses."""
    network = bridge("mynet", SUBNETS[version])
    network["plugins"][0]["type"] = kind
    configure(host, network)
    if is_vpn:
        lead(host, version, "default", link="lan0")
        lead(host, version, *HALVES[version])
    else:
        lead(host, version, "default")

    remedy = finds(host, "mtu-too-big", "network mynet have MTU 1500", "wan0", "has 1400")
    assert '"mtu": 1400' in remedy and "/etc/cni/net.d/10-net.conflist" in remedy
    network["plugins"][0]["mtu"] = 1400
    configure(host, network)
    assert doctor(host, status=0) == []


@pytest.mark.usefixtures("uplinks")
def test_uplink_of_another_ip_version_does_not_count(host: Host) -> None:
    configure(host, bridge("mynet", SUBNETS[4]))
    lead(host, 6, "default")

    assert doctor(host, status=0) == []


@pytest.mark.usefixtures("uplinks")
@pytest.mark.parametrize(
    "plugins",
    [
        pytest.param([{"mtu": 1300}], id="lower"),
        pytest.param([{"mtu": 1500}, {"type": "tuning", "mtu": 1400}], id="tuning"),
        pytest.param([{"isGateway": False}], id="not routed"),
    ],
)
def test_network_that_does_not_exceed_the_uplink(host: Host, plugins: list[dict[str, Any]]) -> None:
    network = bridge("mynet", SUBNETS[4])
    network["plugins"][0] |= plugins[0]
    network["plugins"] += plugins[1:]
    configure(host, network)
    lead(host, 4, "default")

    assert doctor(host, status=0) == []


def test_mtu_of_bridge_port_is_lower_than_that_of_containers(host: Host) -> None:
    """One such port is a tunnel to another machine.  A bridge drops what is too big, without a message."""
    configure(host, bridge("mynet", SUBNETS[4], isGateway=False))
    host.run("ip", "link", "add", "br-mynet", "type", "bridge")
    host.run("ip", "link", "add", "vx0", "mtu", "1450", "type", "ifb")
    host.run("ip", "link", "set", "vx0", "master", "br-mynet")

    assert '"mtu": 1450' in finds(host, "mtu-too-big", "vx0", "has 1450")
    host.run("ip", "link", "del", "vx0")
    assert doctor(host, status=0) == []
    host.run("ip", "link", "del", "br-mynet")


SERVE = """
import socket, threading
server = socket.create_server(("", 80))
def answer():
    connection, _ = server.accept()
    connection.close()
threading.Thread(target=answer, daemon=True).start()
socket.create_connection(("10.22.0.1", 8080), timeout=1).close()
"""


@pytest.mark.parametrize("keys", [{}, {"promiscMode": True}], ids=["plain", "promiscMode"])
def test_container_cannot_reach_its_own_published_port(host: Host, keys: dict[str, Any]) -> None:
    """The cause: frames between bridge ports pass through the rules too."""
    if not host.exists(f"/proc/sys/{BRIDGED}"):
        pytest.skip("the kernel has no br_netfilter")
    network = bridge("mynet", SUBNETS[4], ipMasq=True, **keys)
    network["plugins"].append({"type": "portmap", "capabilities": {"portMappings": True}})
    configure(host, network)
    container = attach(host, "c1", publish="8080:80")

    host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
    assert container.run("python3", "-c", SERVE, check=False).returncode == 1
    remedy = finds(host, "hairpin-off", "bridge-nf-call-iptables is 1", "network mynet", "c1")
    if keys:
        host.run(*remedy.replace("-w", "-qw").split())
    else:
        assert '"hairpinMode": true' in remedy and "/etc/cni/net.d/10-net.conflist" in remedy
        host.run(CNIHOOK, "detach", "c1")
        network["plugins"][0]["hairpinMode"] = True
        configure(host, network)
        container = attach(host, "c2", publish="8080:80")
    container.run("python3", "-c", SERVE)
    assert doctor(host, status=0) == []
    host.run(CNIHOOK, "detach", "c1" if keys else "c2")


def test_containers_of_a_created_network_reach_their_own_ports(host: Host) -> None:
    """Such a bridge sends frames back to their sender, so each address must still count as unique."""
    if not host.exists(f"/proc/sys/{BRIDGED}"):
        pytest.skip("the kernel has no br_netfilter")
    create(host, "mynet", "--ipv6")
    container = attach(host, "c1", publish="8080:80")
    host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")

    container.run("python3", "-c", SERVE)
    assert doctor(host, status=0) == []
    wait_for(lambda: "tentative" not in container.run("ip", "address").stdout, "the link-local address")
    assert "dadfailed" not in container.run("ip", "address").stdout
    host.run(CNIHOOK, "detach", "c1")


def test_container_without_published_ports_needs_no_hairpin(host: Host) -> None:
    if not host.exists(f"/proc/sys/{BRIDGED}"):
        pytest.skip("the kernel has no br_netfilter")
    network = bridge("mynet", SUBNETS[4], ipMasq=True)
    network["plugins"].append({"type": "portmap", "capabilities": {"portMappings": True}})
    configure(host, network)
    attach(host, "c1")
    host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")

    assert doctor(host, status=0) == []
    host.run(CNIHOOK, "detach", "c1")


def test_qdisc_for_unshaped_subnets_is_tried(host: Host) -> None:
    network = bridge("mynet", SUBNETS[4])
    limit = {"ingressRate": 800000, "ingressBurst": 800000, "unshapedSubnets": ["10.0.0.0/8"]}
    network["plugins"].append({"type": "bandwidth", **limit})
    configure(host, network)

    assert doctor(host, status=0) == []
