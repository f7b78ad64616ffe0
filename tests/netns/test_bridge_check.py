# SPDX-License-Identifier: Apache-2.0
"""bridge: CHECK finds what differs from what ADD made; GC and STATUS reach the IPAM plugin."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.netns.differences import NO_GC, NO_STATUS, SPEC_1_1
from tests.support.host.host import Container, Host, Outside
from tests.support.host.sockets import connect
from tests.support.plugins.bridge import add, leased, network
from tests.support.plugins.cni import CniFailure, with_previous_result

SUBNET, SUBNET6 = "10.9.0.0/24", "2001:db8:9::/64"
CONF = network(SUBNET, SUBNET6, isDefaultGateway=True)
MASQUERADED = network(SUBNET, SUBNET6, version="1.1.0", isDefaultGateway=True, ipMasq=True)


@pytest.fixture
def attached(host: Host, container: Container) -> Any:
    """Attach the container; return the configuration with the result."""
    return with_previous_result(CONF, host.cni("ADD", CONF, container))


def test_check_accepts_what_add_made(host: Host, container: Container, attached: Any) -> None:
    assert host.cni("CHECK", attached, container) is None


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", pytest.param("1.1.0", marks=SPEC_1_1)])
def test_check_reads_the_result_of_its_version(host: Host, container: Container, version: str) -> None:
    conf = CONF | {"cniVersion": version}
    result = host.cni("ADD", conf, container)

    host.cni("CHECK", with_previous_result(conf, result), container)


def test_check_accepts_routes_of_a_later_plugin(host: Host, container: Container, attached: Any) -> None:
    container.run("ip", "route", "add", "192.0.2.0/24", "via", "10.9.0.9")

    host.cni("CHECK", attached, container)


@pytest.mark.known_difference(
    "CHECK fails for a network without an IPAM plugin", here="succeeds", right="SPEC.md, 2 CHECK"
)
def test_check_accepts_a_network_without_addresses(host: Host, container: Container) -> None:
    conf = network()
    result = host.cni("ADD", conf, container)

    host.cni("CHECK", with_previous_result(conf, result), container)


def delete_link(_: Host, container: Container) -> None:
    container.run("ip", "link", "del", "eth0")


def delete_address(_: Host, container: Container) -> None:
    container.run("ip", "address", "del", "10.9.0.2/24", "dev", "eth0")


def delete_address6(_: Host, container: Container) -> None:
    container.run("ip", "address", "del", "2001:db8:9::2/64", "dev", "eth0")


def delete_route(_: Host, container: Container) -> None:
    container.run("ip", "route", "del", "default")


def change_mac(_: Host, container: Container) -> None:
    container.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:55")


def take_off_the_bridge(host: Host, container: Container) -> None:
    (port,) = [name for name in host.links() if name.startswith("veth")]
    host.run("ip", "link", "set", port, "nomaster")


def delete_bridge(host: Host, container: Container) -> None:
    host.run("ip", "link", "del", "cni0")


def delete_lease(host: Host, container: Container) -> None:
    for address in leased(host):
        host.run("rm", f"/var/lib/cni/networks/net1/{address}")


def replace_by_another(host: Host, container: Container) -> None:
    delete_link(host, container)
    container.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "0hte")


@pytest.mark.parametrize(
    "damage",
    [
        delete_link,
        delete_address,
        delete_address6,
        delete_route,
        change_mac,
        take_off_the_bridge,
        delete_bridge,
        delete_lease,
        replace_by_another,
    ],
)
def test_check_finds_damage(
    host: Host, container: Container, attached: Any, damage: Callable[[Host, Container], None]
) -> None:
    damage(host, container)

    with pytest.raises(CniFailure):
        host.cni("CHECK", attached, container)
    container.run("ip", "link", "del", "eth0", check=False)  # if it is another link now, DEL leaves it


@pytest.mark.known_difference(
    "CHECK does not find a bridge or port that is down, a missing gateway, flushed rules",
    here="finds them",
    right="SPEC.md, 2 CHECK",
)
@pytest.mark.parametrize(
    "command",
    [
        "ip link set cni0 down",
        "ip link set {port} down",
        "ip address del 10.9.0.1/24 dev cni0",
        "nft flush chain inet cnihook postrouting",
    ],
)
def test_check_finds_what_stops_the_traffic_on_the_host(
    host: Host, container: Container, command: str
) -> None:
    """A repair starts with CHECK.  Without these it would find no problem, and no packet would pass."""
    conf = MASQUERADED | {"cniVersion": "1.0.0"}
    sent = with_previous_result(conf, host.cni("ADD", conf, container))
    (port,) = [name for name in host.links() if name.startswith("veth")]
    host.cni("CHECK", sent, container)
    host.run(*command.format(port=port).split(), check=command.startswith("ip"))

    with pytest.raises(CniFailure):
        host.cni("CHECK", sent, container)


def test_check_requires_the_result(host: Host, container: Container, attached: Any) -> None:
    with pytest.raises(CniFailure, match="prevResult"):
        host.cni("CHECK", CONF, container)


def test_check_requires_the_result_of_this_container(
    host: Host, container: Container, attached: Any
) -> None:
    other, _ = add(host, CONF)

    with pytest.raises(CniFailure):
        host.cni("CHECK", attached, other)


def valid(*containers: Container) -> Any:
    return [{"containerID": container.name, "ifname": "eth0"} for container in containers]


@NO_GC
def test_gc_keeps_valid_attachments_and_releases_the_rest(host: Host) -> None:
    """Also the rules of a container that ended without a DEL."""
    outside = host.outside()
    conf = MASQUERADED
    (lives, _), (gone, _) = (add(host, conf) for _ in range(2))
    gone.destroy()

    host.cni("GC", conf | {"cni.dev/valid-attachments": valid(lives)})

    assert leased(host) == ["10.9.0.2", "2001:db8:9::2"]
    assert connect(lives, outside, Outside.ADDRESS) == Outside.HOST
    host.cni("DEL", conf, lives)
    host.attachments.clear()  # the leak check now shows whether GC removed as much as DEL does


@NO_GC
def test_gc_of_one_network_leaves_the_others(host: Host) -> None:
    outside = host.outside()
    one = network(SUBNET, version="1.1.0", isDefaultGateway=True, ipMasq=True)
    other = network(
        "10.8.0.0/24", name="other", bridge="br2", version="1.1.0", isDefaultGateway=True, ipMasq=True
    )
    add(host, one)
    lives, _ = add(host, other)

    host.cni("GC", one | {"cni.dev/valid-attachments": []})

    assert leased(host) == []
    assert leased(host, "/var/lib/cni/networks/other") == ["10.8.0.2"]
    assert connect(lives, outside, Outside.ADDRESS) == Outside.HOST


@SPEC_1_1
def test_gc_without_a_list_changes_nothing(host: Host) -> None:
    outside = host.outside()
    conf = MASQUERADED
    lives, _ = add(host, conf)

    host.cni("GC", conf)

    assert connect(lives, outside, Outside.ADDRESS) == Outside.HOST


@SPEC_1_1
def test_status_succeeds_if_an_add_would(host: Host) -> None:
    assert host.cni("STATUS", network(SUBNET, version="1.1.0")) is None
    assert host.cni("STATUS", network(version="1.1.0")) is None


@NO_STATUS
def test_status_passes_on_the_error_of_ipam(host: Host) -> None:
    conf = network("10.9.0.0/30", version="1.1.0")
    conf["ipam"]["statusWhenFull"] = True
    add(host, conf)

    with pytest.raises(CniFailure, match=r"10\.9\.0\.") as failure:
        host.cni("STATUS", conf)
    assert failure.value.code == 50


@SPEC_1_1
def test_status_requires_the_ipam_plugin(host: Host) -> None:
    with pytest.raises(CniFailure, match="no-such-ipam"):
        host.cni("STATUS", network(version="1.1.0", ipam={"type": "no-such-ipam"}))


def test_check_of_an_old_version_is_refused(host: Host, container: Container) -> None:
    """CHECK came with 0.4.0."""
    conf = CONF | {"cniVersion": "0.3.1"}
    host.cni("ADD", conf, container)

    with pytest.raises(CniFailure) as failure:
        host.cni("CHECK", conf, container)
    assert failure.value.code == 1
