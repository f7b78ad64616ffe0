# SPDX-License-Identifier: Apache-2.0
"""vlan and ipvlan on any kernel: ADDs that fail before a link is created, and DEL if something is gone."""

from typing import Any

import pytest

from tests.netns.differences import OLD_KEYS, SPEC_1_1
from tests.support.host.host import Container, Host, Outside
from tests.support.plugins.child_link import FIRST, network
from tests.support.plugins.cni import CniFailure, with_previous_result
from tests.support.plugins.ipam import leased


@pytest.fixture(autouse=True)
def outside(host: Host) -> Outside:
    return host.outside()


HUB = {"name": "up0", "mac": "02:00:00:00:00:01"}
RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "198.51.100.10/24"}]}
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("vlan", {"master": None}, '"master" field is required'),
    ("vlan", {"vlanId": -1}, r"invalid VLAN ID -1 \(must be between 0 and "),
    ("vlan", {"vlanId": 4095}, r"invalid VLAN ID 4095 \(must be between 0 and "),
    ("vlan", {"vlanId": 65637}, "invalid VLAN ID 65637"),  # 100 in the kernel's 16 bits
    ("vlan", {"vlanId": "100"}, "vlanId"),
    ("vlan", {"mtu": 1501}, r"must be \[0, master MTU\(1500\)\]"),
    ("vlan", {"mtu": -1}, "-1"),
    ("vlan", {"master": "up9"}, "not found|up9 does not exist"),
    ("ipvlan", {"mode": "l4"}, "l4"),
    ("ipvlan", {"mode": 2}, "mode"),
    ("ipvlan", {"master": "up9"}, "not found|up9"),
    (
        "ipvlan",
        {"master": None, "prevResult": RESULT | {"interfaces": [HUB, HUB | {"name": "eth0"}]}},
        "chained master failure. PrevResult lacks a single named interface",
    ),
    ("ipvlan", {"master": None, "prevResult": RESULT}, "chained master failure"),
]


@pytest.mark.parametrize(("kind", "keys", "problem"), WRONG)
def test_add_is_refused(
    host: Host, container: Container, kind: str, keys: dict[str, Any], problem: str
) -> None:
    conf = {key: value for key, value in (network(kind) | keys).items() if value is not None}
    with pytest.raises(CniFailure, match=problem):
        host.cni("ADD", conf, container)

    assert container.links() == {"lo"} and leased(host) == []


@pytest.mark.known_difference(
    "without `ipam`, the error is the kernel's, after the link is made",
    here="refused before, and the error names the key",
    right="either",
)
@pytest.mark.parametrize("kind", ["vlan", "ipvlan"])
def test_ipam_is_required(host: Host, container: Container, kind: str) -> None:
    with pytest.raises(CniFailure, match="no plugin name provided") as failure:
        host.cni("ADD", network(kind, ipam=None), container)
    assert failure.value.code == 7


@pytest.mark.known_difference(
    "accepts an ipvlan with an MTU above its master's", here="refused", right="cnihook"
)
def test_mtu_of_ipvlan_above_its_master_is_refused(host: Host, container: Container) -> None:
    with pytest.raises(CniFailure, match=r"must be \[0, master MTU\(1500\)\]"):
        host.cni("ADD", network("ipvlan", mtu=1501), container)


@pytest.mark.known_difference(
    "the error of a master that is down does not name it",
    here="it names the key and the link",
    right="either",
)
def test_vlan_on_a_master_that_is_down_is_refused(host: Host, container: Container) -> None:
    host.run("ip", "link", "set", "up0", "down")

    with pytest.raises(CniFailure, match="up0 is down"):
        host.cni("ADD", network("vlan", vlanId=100), container)


@OLD_KEYS
@pytest.mark.parametrize("kind", ["vlan", "ipvlan"])
def test_link_in_container_means_that_the_master_is_there(
    host: Host, container: Container, kind: str
) -> None:
    with pytest.raises(CniFailure, match="up0 does not exist in /run/netns/c1"):
        host.cni("ADD", network(kind, linkInContainer=True), container)


GONE = {
    "master": "ip link del up0",
    "default route": "ip route del default; ip -6 route del default",
    "namespace": "",
    "nothing": "",
}


@pytest.mark.known_difference(
    "DEL fails with a configuration that ADD refuses, and the lease stays",
    here="succeeds",
    right="SPEC.md, 4 Delegation",
)
@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("kind", ["vlan", "ipvlan"])
def test_del_releases_the_address_whatever_is_gone(host: Host, kind: str, gone: str) -> None:
    """DEL also works with a malformed result, and without the link."""
    one = host.container()
    conf = network(kind, master=None if gone == "default route" and kind == "ipvlan" else "up0")
    host.cni("ADD", conf, one, plugin="host-local")
    assert leased(host) == [FIRST]
    host.run("sh", "-c", GONE[gone])
    if gone == "namespace":
        one.destroy()

    damaged = conf | {"prevResult": {"ips": "none"}, "mtu": 9000}
    host.cni("DEL", damaged, one)
    host.cni("DEL", damaged, one, CNI_NETNS="")

    assert leased(host) == []


@pytest.mark.parametrize("kind", ["vlan", "ipvlan"])
def test_check_requires_the_result_and_the_link(host: Host, container: Container, kind: str) -> None:
    conf = network(kind)
    result = host.cni("ADD", conf, container, plugin="host-local")
    with pytest.raises(CniFailure, match="prevResult"):
        host.cni("CHECK", conf, container)

    inner = {"name": "eth0", "sandbox": container.path}
    with pytest.raises(CniFailure):
        host.cni("CHECK", with_previous_result(conf, result | {"interfaces": [inner]}), container)


@SPEC_1_1
@pytest.mark.parametrize("kind", ["vlan", "ipvlan"])
def test_status_and_gc_are_passed_on_to_ipam(host: Host, container: Container, kind: str) -> None:
    conf = network(kind, version="1.1.0")
    host.cni("ADD", conf, container, plugin="host-local")
    assert host.cni("STATUS", conf) is None
    for keys, code in (({"master": "up9"}, 50), ({"mtu": "x"}, 7), ({"ipam": {"type": "host-local"}}, 7)):
        with pytest.raises(CniFailure) as failure:
            host.cni("STATUS", conf | keys)
        assert failure.value.code == code

    host.cni("GC", conf | {"cni.dev/valid-attachments": []})

    assert leased(host) == []
