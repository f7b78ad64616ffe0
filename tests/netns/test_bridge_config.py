# SPDX-License-Identifier: Apache-2.0
"""bridge: configurations that are refused before anything has changed."""

from typing import Any

import pytest

from tests.netns.differences import BACKEND, LEAKS_LINK, OLD_KEYS
from tests.support.host.host import Container, Host
from tests.support.plugins.bridge import add, leased, network
from tests.support.plugins.cni import CniFailure

SUBNET = "10.9.0.0/24"
WRONG: list[Any] = [
    pytest.param({"hairpinMode": True, "promiscMode": True}, "hairpin", id="hairpin and promiscuous"),
    pytest.param({"vlan": 4095}, "4095", id="vlan too high"),
    pytest.param({"vlan": -1}, "-1", id="vlan negative"),
    pytest.param({"vlan": "5"}, "vlan", id="vlan is a string"),
    pytest.param({"vlanTrunk": [{"minID": 5}]}, "maxID", marks=OLD_KEYS, id="trunk without an end"),
    pytest.param({"vlanTrunk": [{"maxID": 5}]}, "minID", marks=OLD_KEYS, id="trunk without a start"),
    pytest.param(
        {"vlanTrunk": [{"minID": 9, "maxID": 5}]}, "minID", marks=OLD_KEYS, id="trunk that ends first"
    ),
    pytest.param({"vlanTrunk": [{"id": 4095}]}, "trunk", marks=OLD_KEYS, id="trunk too high"),
    pytest.param({"vlanTrunk": [{"id": 0}]}, "trunk", marks=OLD_KEYS, id="trunk zero"),
    pytest.param(
        {"disableContainerInterface": True}, "IPAM", marks=OLD_KEYS, id="addresses, but interface down"
    ),
    pytest.param({"mtu": "1500"}, "mtu", id="mtu is a string"),
    pytest.param({"isGateway": "yes"}, "isGateway", id="isGateway is a string"),
    pytest.param({"bridge": 5}, "bridge", id="bridge is a number"),
    pytest.param({"ipam": "host-local"}, "ipam", id="ipam is a string"),
    pytest.param({"dns": {"nameservers": "192.0.2.1"}}, "nameservers", id="nameservers is a string"),
    pytest.param({"ipMasqBackend": "pf", "ipMasq": True}, "pf", marks=BACKEND, id="no such backend"),
    pytest.param(
        {"runtimeConfig": {"mac": "02:11"}},
        "02:11",
        id="mac too short",
    ),
    pytest.param({"args": {"cni": {"mac": "not a mac"}}}, "not a mac", id="not a mac"),
]


@pytest.mark.parametrize(("keys", "named"), WRONG)
def test_error_of_a_refused_configuration_names_the_key(
    host: Host, container: Container, keys: dict[str, Any], named: str
) -> None:
    conf = network(SUBNET)
    conf.update(keys)

    with pytest.raises(CniFailure) as failure:
        host.cni("ADD", conf, container)

    assert named.lower() in f"{failure.value.msg} {failure.value.details}".lower()
    assert host.links() - {"cni0"} == {"lo"} and container.links() == {"lo"}
    assert leased(host) == []


@pytest.mark.known_difference(
    "a refused configuration leaves the bridge", here="leaves nothing", right="cnihook"
)
def test_refused_configuration_makes_no_bridge(host: Host, container: Container) -> None:
    with pytest.raises(CniFailure):
        host.cni("ADD", network(SUBNET) | {"runtimeConfig": {"mac": "nonsense"}}, container)

    assert host.links() == {"lo"}


def test_keys_are_found_in_any_case(host: Host, container: Container) -> None:
    """Every plugin in Go ignores the case of keys, so existing configurations may have any case."""
    conf = network(SUBNET) | {"isgateway": True, "HairPinMode": True, "MTU": 1400}

    result = host.cni("ADD", conf, container)

    assert host.addresses("cni0") == ["10.9.0.1/24"]
    assert container.link("eth0")["mtu"] == 1400
    link = host.link(result["interfaces"][1]["name"])
    assert link["linkinfo"]["info_slave_data"]["hairpin"]


def test_unknown_keys_are_ignored(host: Host, container: Container) -> None:
    conf = network(SUBNET) | {"io.example.key": {"a": [1]}, "labels": None, "capabilities": {"mac": True}}

    assert host.cni("ADD", conf, container)["ips"][0]["address"] == "10.9.0.2/24"


def test_null_means_not_set(host: Host, container: Container) -> None:
    conf = network(SUBNET)
    conf.update(dict.fromkeys(("isGateway", "mtu", "vlan", "hairpinMode", "dns", "runtimeConfig", "args")))

    assert host.cni("ADD", conf, container)["ips"][0]["address"] == "10.9.0.2/24"
    assert host.addresses("cni0") == []


def test_error_names_a_bridge_name_that_is_too_long(host: Host, container: Container) -> None:
    with pytest.raises(CniFailure, match="a-name-of-17-chars"):
        host.cni("ADD", network(SUBNET, bridge="a-name-of-17-chars"), container)


def test_mtu_that_the_kernel_rejects_is_refused(host: Host, container: Container) -> None:
    with pytest.raises(CniFailure):
        host.cni("ADD", network(SUBNET, mtu=10), container)

    assert container.links() == {"lo"}


@pytest.mark.parametrize(("args", "named"), [("MAC=zz", "zz"), ("WHATEVER=1", "WHATEVER"), ("MAC", "MAC")])
def test_invalid_cni_args_are_refused(host: Host, container: Container, args: str, named: str) -> None:
    with pytest.raises(CniFailure, match=named):
        host.cni("ADD", network(), container, CNI_ARGS=args)
    assert container.links() == {"lo"}


def test_unknown_cni_args_can_be_allowed(host: Host, container: Container) -> None:
    """Kubernetes does so, because it passes a pod's names to every plugin."""
    host.cni("ADD", network(), container, CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAME=web-1")

    assert "eth0" in container.links()


@LEAKS_LINK
def test_number_as_a_requested_address_is_refused(host: Host, container: Container) -> None:
    conf = network(SUBNET) | {"runtimeConfig": {"ips": [7]}}

    with pytest.raises(CniFailure):
        add(host, conf, container)
    assert leased(host) == []
