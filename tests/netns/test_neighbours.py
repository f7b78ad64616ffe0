# SPDX-License-Identifier: Apache-2.0
"""Requested addresses: refused if a neighbour on the bridge or the bridge itself has them."""

from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.plugins.bridge import add, network
from tests.support.plugins.cni import CniFailure, with_previous_result

SUBNET = "10.1.2.0/24"
TAKES_IT = pytest.mark.known_difference(
    "accepts the MAC address of a neighbour on the bridge",
    here="refused; the error names the neighbour's port",
    right="cnihook",
)
WAYS: list[Any] = [
    pytest.param(lambda mac: ({"runtimeConfig": {"mac": mac}}, {}), id="runtimeConfig"),
    pytest.param(lambda mac: ({"args": {"cni": {"mac": mac}}}, {}), id="args.cni"),
    pytest.param(lambda mac: ({}, {"CNI_ARGS": f"MAC={mac}"}), id="CNI_ARGS"),
]


def mac_of(container: Container) -> str:
    return str(container.link("eth0")["address"])


def refused(host: Host, mac: str, conf: dict[str, Any] | None = None, **env: str) -> str:
    """Request this address for a container and return the error; no link may be left."""
    before = host.links()
    with pytest.raises(CniFailure) as failure:
        host.cni("ADD", conf or network(SUBNET, runtimeConfig={"mac": mac}), host.container(), **env)
    assert host.links() == before
    assert f"MAC address {mac.lower()} is taken" in failure.value.msg
    return failure.value.msg


@pytest.mark.parametrize("way", WAYS)
@TAKES_IT
def test_mac_of_a_silent_neighbour_is_refused(host: Host, way: Any) -> None:
    """The neighbour's link is down, so the bridge has not learned its address."""
    neighbour, _ = add(host, network(SUBNET))
    neighbour.run("ip", "link", "set", "eth0", "down")
    host.run("bridge", "fdb", "flush", "dev", "cni0", check=False)

    keys, env = way(mac_of(neighbour))
    assert "net1 c1 eth0" in refused(host, mac_of(neighbour), network(SUBNET) | keys, **env)


@TAKES_IT
def test_mac_of_another_network_on_the_bridge_is_refused(host: Host) -> None:
    """The case of the letters does not matter."""
    neighbour, _ = add(host, network(SUBNET, name="net2"))

    refused(host, mac_of(neighbour).upper())


@TAKES_IT
def test_mac_of_the_bridge_and_its_ports_is_refused(host: Host) -> None:
    _, result = add(host, network(SUBNET))

    for interface in result["interfaces"][:2]:
        refused(host, interface["mac"])


@TAKES_IT
def test_mac_that_the_bridge_has_learned_is_refused(host: Host) -> None:
    """A machine behind an uplink has it."""
    add(host, network(SUBNET))
    host.run("ip", *"link add up0 master cni0 up type veth peer name up1".split())
    host.run("ip", "link", "set", "up1", "up")
    host.run("bridge", *"fdb add 02:00:00:00:00:55 dev up0 master dynamic".split())

    assert "up0" in refused(host, "02:00:00:00:00:55")
    host.run("ip", "link", "del", "up0")


@TAKES_IT
def test_tuning_refuses_the_mac_of_a_neighbour(host: Host) -> None:
    neighbour, _ = add(host, network(SUBNET))
    container, result = add(host, network(SUBNET))
    before = mac_of(container)
    conf = {"cniVersion": "1.0.0", "name": "net1", "type": "tuning", "mac": mac_of(neighbour)}
    host.leaves("dir /run/cni", "dir /run/cni/tuning")

    with pytest.raises(CniFailure, match="is taken"):
        host.cni("ADD", conf | {"prevResult": result}, container)
    assert mac_of(container) == before


def test_tuning_may_set_the_mac_that_the_container_has(host: Host) -> None:
    container, result = add(host, network(SUBNET))
    conf = {"cniVersion": "1.0.0", "name": "net1", "type": "tuning", "mac": mac_of(container)}
    host.leaves("dir /run/cni", "dir /run/cni/tuning")
    host.cni("ADD", conf | {"prevResult": result}, container)


def test_mac_is_free_again_after_del(host: Host) -> None:
    """A container that starts again has the same MAC.  The bridge forgets it with the port."""
    add(host, network(SUBNET, isGateway=True))
    conf = network(SUBNET, isGateway=True, runtimeConfig={"mac": "02:00:00:00:00:77"})
    for _round in range(2):
        container, result = add(host, conf)
        container.run("ping", "-c1", "-W30", result["ips"][0]["gateway"])
        assert "02:00:00:00:00:77" in host.run("bridge", "fdb", "show", "br", "cni0").stdout
        host.cni("DEL", with_previous_result(conf, result), container)


def test_mac_of_another_bridge_is_free(host: Host) -> None:
    neighbour, _ = add(host, network("10.1.3.0/24", name="net2", bridge="cni1"))
    add(host, network(SUBNET, runtimeConfig={"mac": mac_of(neighbour)}))


@pytest.mark.parametrize("address", ["10.1.2.9/24", "fd00:1::9/64"])
@pytest.mark.known_difference(
    "accepts the IP address of a neighbour on the bridge",
    here="refused; the error names the neighbour's port",
    right="cnihook",
)
def test_static_address_of_a_neighbour_is_refused(host: Host, address: str) -> None:
    """static keeps no leases, so cnihook asks the kernel."""
    conf = network(ipam={"type": "static", "addresses": [{"address": address}]})
    first, _ = add(host, conf)

    with pytest.raises(CniFailure, match=r"is taken: the container at port .* \(net1 c1 eth0\)"):
        host.cni("ADD", conf, host.container())
    first.run("ip", "link", "del", "eth0")
    add(host, conf)


@pytest.mark.known_difference(
    "accepts the IP address of a neighbour on the bridge",
    here="refused; the error names the neighbour's port",
    right="cnihook",
)
def test_static_address_of_the_bridge_is_refused(host: Host) -> None:
    _, result = add(host, network(SUBNET, isGateway=True))
    gateway = result["ips"][0]["gateway"]
    conf = network(ipam={"type": "static", "addresses": [{"address": f"{gateway}/24"}]})

    with pytest.raises(CniFailure, match=f"address {gateway} is taken: bridge cni0"):
        host.cni("ADD", conf, host.container())
