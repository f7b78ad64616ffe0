# SPDX-License-Identifier: Apache-2.0
"""ptp: CHECK, GC and STATUS."""

import pytest

from tests.netns.differences import NO_GC, NO_STATUS, SPEC_1_1
from tests.support.host.host import Container, Host, Outside
from tests.support.host.sockets import connect
from tests.support.plugins.bridge import add, address, leased
from tests.support.plugins.cni import CniFailure, with_previous_result
from tests.support.plugins.ptp import MASQUERADED, ROUTED, network


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", pytest.param("1.1.0", marks=SPEC_1_1)])
def test_check_accepts_what_add_made(host: Host, container: Container, version: str) -> None:
    conf = MASQUERADED | {"cniVersion": version}
    result = host.cni("ADD", conf, container)

    assert host.cni("CHECK", with_previous_result(conf, result), container) is None


HOSTS = pytest.mark.known_difference(
    "CHECK ignores the host's end, its routes and rules", here="checks them", right="SPEC.md, 2 CHECK"
)
DAMAGES = {
    "link": "ip -n c1 link del eth0",
    "MAC": "ip -n c1 link set eth0 address 02:00:00:00:00:55",
    "address": "ip -n c1 address del 10.9.0.2/24 dev eth0",
    "default route": "ip -n c1 route del default",
    "subnet's route": "ip -n c1 route del 10.9.0.0/24",
    "lease": "rm /var/lib/cni/networks/net1/10.*",
    "host's route": "ip route del 10.9.0.2",
    "host's address": "ip address del 10.9.0.1/32 dev $(ip -o route show 10.9.0.2 | cut -d' ' -f3)",
    "masquerade": "nft flush ruleset",
    "host's end down": "ip link set $(ip -o route show 10.9.0.2 | cut -d' ' -f3) down",
}
ON_THE_HOST = {"host's route", "host's address", "masquerade", "host's end down"}


@pytest.mark.parametrize(
    "damage", [pytest.param(key, marks=[HOSTS] if key in ON_THE_HOST else []) for key in DAMAGES]
)
def test_check_finds_damage(host: Host, container: Container, damage: str) -> None:
    conf = MASQUERADED if damage == "masquerade" else ROUTED
    attached = with_previous_result(conf, host.cni("ADD", conf, container))
    host.run("sh", "-c", DAMAGES[damage])

    with pytest.raises(CniFailure):
        host.cni("CHECK", attached, container)


def test_check_requires_the_result(host: Host, container: Container) -> None:
    host.cni("ADD", ROUTED, container)

    with pytest.raises(CniFailure, match="prevResult"):
        host.cni("CHECK", ROUTED, container)


@NO_GC
def test_gc_keeps_valid_attachments_and_removes_the_rest(host: Host) -> None:
    """The rest is links of containers that still run, rules of one that is gone, and every lease."""
    outside = host.outside()
    conf = MASQUERADED | {"cniVersion": "1.1.0"}
    (lives, _), (forgotten, _), (gone, _) = (add(host, conf) for _ in range(3))
    gone.destroy()

    valid = [{"containerID": lives.name, "ifname": "eth0"}]
    host.cni("GC", conf | {"cni.dev/valid-attachments": valid})

    assert forgotten.links() == {"lo"} and leased(host) == ["10.9.0.2"]
    assert connect(lives, outside, Outside.ADDRESS) == Outside.HOST
    host.cni("DEL", conf, lives)
    host.attachments.clear()  # the leak check now shows whether GC removed as much as DEL does


@SPEC_1_1
def test_gc_without_a_list_changes_nothing(host: Host) -> None:
    conf = ROUTED | {"cniVersion": "1.1.0"}
    one, result = add(host, conf)

    host.cni("GC", conf)

    assert connect(host, one, address(result)) == "10.9.0.1"


@NO_STATUS
def test_status_is_that_of_ipam(host: Host) -> None:
    conf = network("10.9.0.0/30", version="1.1.0")
    conf["ipam"]["statusWhenFull"] = True
    assert host.cni("STATUS", conf) is None
    add(host, conf)

    with pytest.raises(CniFailure, match=r"10\.9\.0\.") as failure:
        host.cni("STATUS", conf)
    assert failure.value.code == 50
