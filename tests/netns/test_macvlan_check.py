# SPDX-License-Identifier: Apache-2.0
"""macvlan: what CHECK finds, what GC removes, and what STATUS reports."""

from typing import Any

import pytest

from tests.netns.differences import NO_GC, NO_STATUS, SPEC_1_1
from tests.netns.test_macvlan import network
from tests.support.host.host import Container, Host, Outside
from tests.support.host.sockets import connect
from tests.support.plugins.bridge import add, leased
from tests.support.plugins.child_link import FIRST
from tests.support.plugins.cni import CniFailure, with_previous_result


@pytest.fixture
def outside(host: Host) -> Outside:
    return host.outside()


@pytest.fixture
def master(outside: Outside, host: Host) -> Any:
    return host.link("up0")


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", pytest.param("1.1.0", marks=SPEC_1_1)])
def test_check_accepts_what_add_made(
    host: Host, container: Container, outside: Outside, version: str
) -> None:
    conf = network(version=version, mode="vepa", mtu=1400)
    result = host.cni("ADD", conf, container)

    assert host.cni("CHECK", with_previous_result(conf, result), container) is None


@pytest.mark.known_difference(
    "CHECK fails if there is neither a configured master nor a default route",
    here="needs neither",
    right="SPEC.md, 2 CHECK",
)
def test_check_needs_no_default_route(host: Host, container: Container, outside: Outside) -> None:
    """Another link may have the default route since then, which does not matter."""
    conf = network(master=None)
    result = host.cni("ADD", conf, container)
    host.run("sh", "-c", "ip route del default; ip -6 route del default")

    assert host.cni("CHECK", with_previous_result(conf, result), container) is None


MTU = pytest.mark.known_difference("CHECK accepts another MTU", here="finds it", right="SPEC.md, 2 CHECK")

DAMAGES = {
    "link": "ip -n c1 link del eth0",
    "kind": "ip -n c1 link del eth0; ip -n c1 link add eth0 type bridge",
    "MAC": "ip -n c1 link set eth0 address 02:00:00:00:00:55",
    "address": f"ip -n c1 address del {FIRST}/24 dev eth0",
    "lease": "rm /var/lib/cni/networks/net1/198*",
    "mode": "ip -n c1 link set eth0 type macvlan mode private",
    "mtu": "ip -n c1 link set eth0 mtu 1300",
}


@pytest.mark.parametrize("damage", [pytest.param(key, marks=MTU if key == "mtu" else ()) for key in DAMAGES])
def test_check_finds_damage(host: Host, container: Container, outside: Outside, damage: str) -> None:
    conf = network(mtu=1400)
    attached = with_previous_result(conf, host.cni("ADD", conf, container))
    host.leaves("in c1: link eth0 bridge *")
    host.run("sh", "-c", DAMAGES[damage])

    with pytest.raises(CniFailure):
        host.cni("CHECK", attached, container)


@pytest.mark.known_difference("CHECK accepts another master", here="finds it", right="SPEC.md, 2 CHECK")
def test_check_finds_another_master(host: Host, container: Container, outside: Outside) -> None:
    host.run("ip", "link", "add", "second", "type", "bridge")
    host.leaves("link second *")
    result = host.cni("ADD", network(), container)

    with pytest.raises(CniFailure):
        host.cni("CHECK", with_previous_result(network(master="second"), result), container)


def test_check_requires_the_result(host: Host, container: Container, outside: Outside) -> None:
    host.cni("ADD", network(), container)

    with pytest.raises(CniFailure, match="prevResult"):
        host.cni("CHECK", network(), container)


@NO_GC
def test_gc_releases_the_leases_of_containers_that_are_gone(host: Host, outside: Outside) -> None:
    conf = network(version="1.1.0")
    (lives, _), (gone, _) = (add(host, conf) for _ in range(2))
    gone.destroy()

    host.cni("GC", conf | {"cni.dev/valid-attachments": [{"containerID": lives.name, "ifname": "eth0"}]})

    assert leased(host) == [FIRST]
    assert connect(outside, lives, FIRST)


@NO_STATUS
@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"mode": "x"}, 7),
        ({"master": "up9"}, 50),
        ({"ipam": {"type": "host-local", "subnet": "198.51.100.0/30", "statusWhenFull": True}}, 50),
    ],
    ids=["configuration", "master", "ipam"],
)
def test_status_reports_why_an_add_would_fail(
    host: Host, container: Container, outside: Outside, keys: dict[str, Any], code: int
) -> None:
    assert host.cni("STATUS", network(version="1.1.0")) is None
    assert host.cni("STATUS", network(version="1.1.0", master="in0", linkInContainer=True)) is None
    conf = network(version="1.1.0") | keys
    if "ipam" in keys:
        add(host, conf)

    with pytest.raises(CniFailure) as failure:
        host.cni("STATUS", conf)
    assert failure.value.code == code
