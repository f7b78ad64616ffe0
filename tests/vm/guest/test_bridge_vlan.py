# SPDX-License-Identifier: Apache-2.0
"""bridge: containers in VLANs of one bridge, access ports and trunks."""

import json
from typing import Any

import pytest

from tests.netns.differences import SPEC_1_1
from tests.support.host.host import Container, Host
from tests.support.host.namespace import Namespace
from tests.support.plugins.cni import CniFailure

UNTAGGED = ["PVID", "Egress Untagged"]

NO_TRUNK = pytest.mark.known_difference(
    "does not know vlanTrunk", here="accepts it", right="cnihook", fixed_in="1.9.1", run=False
)


def network(vlan: int | None = None, *, first: int = 10, **keys: Any) -> dict[str, Any]:
    """Return a network.  All have one subnet, so that only the VLAN separates containers."""
    ranges = [[{"subnet": "10.9.0.0/24", "rangeStart": f"10.9.0.{first}", "gateway": "10.9.0.1"}]]
    conf = {
        "cniVersion": "1.0.0",
        "name": f"net{first}",
        "type": "bridge",
        "bridge": "br0",
        "ipam": {"type": "host-local", "ranges": ranges},
    }
    return conf | ({} if vlan is None else {"vlan": vlan}) | keys


def trunk(*entries: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """Return a network with a trunk port and no address: the container creates a link for each VLAN."""
    return network(vlanTrunk=list(entries), **keys) | {"name": "trunk", "ipam": {}}


def vlans(host: Host, result: Any) -> dict[int, list[str]]:
    """Return the VLANs of a container's bridge port, each with its flags."""
    port = result["interfaces"][1]["name"]
    (shown,) = json.loads(host.run("bridge", "-j", "vlan", "show", "dev", port).stdout)
    return {vlan["vlan"]: vlan.get("flags", []) for vlan in shown["vlans"]}


def reaches(source: Namespace, address: str) -> bool:
    return source.run("ping", "-c1", "-W1", address, check=False).returncode == 0


def filters(host: Host) -> bool:
    return bool(host.link("br0")["linkinfo"]["info_data"]["vlan_filtering"])


def test_vlan_is_untagged_at_the_port(host: Host, container: Container) -> None:
    result = host.cni("ADD", network(100, preserveDefaultVlan=True), container)

    assert vlans(host, result) == {1: ["Egress Untagged"], 100: UNTAGGED}
    assert filters(host)


@pytest.mark.known_difference(
    "a port with `vlan` keeps the default VLAN", here="leaves it", right="cnihook", fixed_in="1.8.0"
)
def test_port_leaves_the_default_vlan(host: Host, container: Container) -> None:
    """In the default VLAN the port would get the broadcasts of all containers without a VLAN."""
    result = host.cni("ADD", network(100), container)

    assert vlans(host, result) == {100: UNTAGGED}


def test_containers_reach_each_other_in_one_vlan_only(host: Host) -> None:
    blue, other_blue, red = host.container(), host.container(), host.container()
    host.cni("ADD", network(100, first=10), blue)
    host.cni("ADD", network(100, first=10), other_blue)
    host.cni("ADD", network(4094, first=20), red)

    assert reaches(blue, "10.9.0.11")
    assert not reaches(blue, "10.9.0.20")


@pytest.mark.known_difference(
    "enables VLAN filtering only on a bridge that it makes",
    here="also on one without ports",
    right="cnihook",
)
def test_bridge_begins_to_filter_for_the_first_vlan(host: Host) -> None:
    """A bridge that does not filter sends every frame to all ports, whatever VLANs they have."""
    plain, blue = host.container(), host.container()
    host.cni("ADD", network(0, first=10), plain)
    assert not filters(host)

    host.cni("ADD", network(100, first=20), blue)

    assert filters(host)
    assert not reaches(plain, "10.9.0.20")


def test_gateway_is_a_link_in_the_vlan(host: Host, container: Container) -> None:
    """The bridge itself is in the default VLAN only, so an address on it would not be reached."""
    conf = network(100, isGateway=True)
    result = host.cni("ADD", conf, container)
    if host.implementation and host.implementation.name == "reference":
        host.leaves("link *", "address br0.100 *", "route br0.100 *")  # see the next test

    assert [link["name"] for link in result["interfaces"]][2:] == ["eth0", "br0.100"]
    assert result["interfaces"][3]["mac"] == host.link("br0.100")["address"]
    assert host.addresses("br0.100") == ["10.9.0.1/24"]
    assert host.addresses("br0") == []
    assert reaches(container, "10.9.0.1")
    host.cni("CHECK", conf | {"prevResult": result}, container)


@pytest.mark.known_difference("a VLAN's gateway stays", here="removed with its last user", right="either")
def test_gateway_is_removed_with_its_last_user(host: Host) -> None:
    """The gateway stays until then, and a user of another VLAN does not keep it."""
    first, last, red = host.container(), host.container(), host.container()
    blue_conf, red_conf = network(100, isGateway=True), network(200, first=20)
    host.cni("ADD", red_conf, red)
    host.cni("ADD", blue_conf, first)
    host.cni("ADD", blue_conf, last)

    host.cni("DEL", blue_conf, first)
    assert reaches(last, "10.9.0.1")

    last.destroy()
    host.cni("DEL", blue_conf, last)
    assert sorted(link[:4] for link in host.links()) == ["br0", "lo", "veth"]


@NO_TRUNK
def test_gateway_is_removed_with_a_trunk_that_was_its_last_user(host: Host) -> None:
    """A trunk reaches the gateway, too, although its own configuration does not name the VLAN."""
    red, blue, router = host.container(), host.container(), host.container()
    blue_conf, trunk_conf = network(100, isGateway=True), trunk({"id": 100})
    host.cni("ADD", network(200, first=20), red)
    host.cni("ADD", blue_conf, blue)
    host.cni("ADD", trunk_conf, router)

    host.cni("DEL", blue_conf, blue)
    assert "br0.100" in host.links()

    host.cni("DEL", trunk_conf, router)
    assert sorted(link[:4] for link in host.links()) == ["br0", "lo", "veth"]


@SPEC_1_1
def test_gateway_is_removed_with_gc_of_its_last_user(host: Host) -> None:
    red, blue = host.container(), host.container()
    blue_conf = network(100, isGateway=True, cniVersion="1.1.0")
    host.cni("ADD", network(200, first=20), red)
    host.cni("ADD", blue_conf, blue)

    host.cni("GC", blue_conf | {"cni.dev/valid-attachments": []})

    assert sorted(link[:4] for link in host.links()) == ["br0", "lo", "veth"]


@NO_TRUNK
def test_trunk_carries_its_vlans_tagged_and_the_default_one_untagged(host: Host) -> None:
    blue, router = host.container(), host.container()
    host.cni("ADD", network(201), blue)

    result = host.cni("ADD", trunk({"id": 100}, {"minID": 200, "maxID": 202}), router)

    assert vlans(host, result) == {1: UNTAGGED, 100: [], 200: [], 201: [], 202: []}
    router.run("ip", "link", "add", "link", "eth0", "name", "tagged", "type", "vlan", "id", "201")
    router.run("ip", "address", "add", "10.9.0.2/24", "dev", "tagged")
    router.run("ip", "link", "set", "tagged", "up")
    assert reaches(router, "10.9.0.10")
    router.run("ip", "link", "del", "tagged")


@NO_TRUNK
def test_native_vlan_stays_untagged_if_it_is_also_in_the_trunk(host: Host) -> None:
    """A request for a range of VLANs and for a native one in the range means both."""
    result = host.cni(
        "ADD", trunk({"minID": 99, "maxID": 101}, vlan=100, preserveDefaultVlan=False), host.container()
    )
    assert vlans(host, result) == {99: [], 100: UNTAGGED, 101: []}

    result = host.cni("ADD", trunk({"minID": 1, "maxID": 3}), host.container())
    assert vlans(host, result) == {1: UNTAGGED, 2: [], 3: []}


@pytest.mark.known_difference("an ADD that fails leaves links", here="leaves nothing", right="cnihook")
def test_failed_add_leaves_nothing(host: Host) -> None:
    """The second gateway fails late: its link exists by then, on a bridge that other containers use."""
    red, blue = host.container(), host.container()
    host.cni("ADD", network(200, first=20), red)
    before = host.links()
    conf = network(100, isGateway=True)
    conf["ipam"]["ranges"].append([{"subnet": "10.8.0.0/24"}])

    with pytest.raises(CniFailure, match="already has an IP address different from 10.8.0.1/24"):
        host.cni("ADD", conf, blue)

    assert host.links() == before
    assert blue.links() == {"lo"}


@pytest.mark.known_difference("CHECK ignores VLANs", here="finds a lost one", right="SPEC.md, 2 CHECK")
def test_check_notices_that_a_port_has_lost_its_vlan(host: Host, container: Container) -> None:
    conf = network(100)
    result = host.cni("ADD", conf, container)
    conf["prevResult"] = result
    host.cni("CHECK", conf, container)

    host.run("bridge", "vlan", "del", "vid", "100", "dev", result["interfaces"][1]["name"])

    with pytest.raises(CniFailure, match="100"):
        host.cni("CHECK", conf, container)
