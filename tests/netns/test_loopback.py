# SPDX-License-Identifier: Apache-2.0
"""loopback: ADD sets lo of the container up, and DEL sets it down."""

from typing import Any

import pytest

from tests.netns.differences import SPEC_1_1
from tests.support.host.host import Container, Host
from tests.support.plugins.cni import CniFailure

OWN_SHAPE = pytest.mark.known_difference(
    "prints the result in the format of 1.0.0 for every version",
    here="prints it in the format of the version",
    right="SPEC.md, 5 Success",
)

LOOPBACK = {"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}


def is_up(container: Container) -> bool:
    return "UP" in container.link("lo")["flags"]


def test_lo_carries_traffic(host: Host, container: Container) -> None:
    """lo of a new namespace is down: nothing in the container could reach itself."""
    host.cni("ADD", LOOPBACK, container, "lo")

    container.run("ping", "-c1", "-W30", "127.0.0.1")
    container.run("ping", "-c1", "-W30", "::1")


def test_result_names_lo_and_its_addresses(host: Host, container: Container) -> None:
    assert host.cni("ADD", LOOPBACK, container, "lo") == {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": container.path}],
        "ips": [{"interface": 0, "address": "127.0.0.1/8"}, {"interface": 0, "address": "::1/128"}],
    }


def test_interface_is_lo_whatever_the_request_says(host: Host, container: Container) -> None:
    """Runtimes that number interfaces request eth0 here, too."""
    result = host.cni("ADD", LOOPBACK, container, "eth0")

    assert result["interfaces"][0]["name"] == "lo"
    assert is_up(container)
    assert container.links() == {"lo"}


def test_result_of_an_earlier_plugin_is_passed_on(host: Host, container: Container) -> None:
    previous = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/x"}],
        "ips": [{"interface": 0, "address": "10.9.0.2/24"}],
        "dns": {"nameservers": ["10.9.0.1"]},
    }

    assert host.cni("ADD", LOOPBACK | {"prevResult": previous}, container, "lo") == previous


def test_del_sets_lo_down_and_can_be_repeated(host: Host, container: Container) -> None:
    host.cni("ADD", LOOPBACK, container, "lo")

    host.cni("DEL", LOOPBACK, container, "lo")
    assert not is_up(container)

    host.cni("DEL", LOOPBACK, container, "lo")


def test_del_succeeds_without_a_namespace(host: Host, container: Container) -> None:
    """The namespace may be gone, or the runtime may no longer know it."""
    host.cni("ADD", LOOPBACK, container, "lo")
    container.destroy()

    host.cni("DEL", LOOPBACK, container, "lo")
    host.cni("DEL", LOOPBACK, container, "lo", CNI_NETNS="")


def test_check_fails_if_lo_is_down(host: Host, container: Container) -> None:
    result = host.cni("ADD", LOOPBACK, container, "lo")
    conf = LOOPBACK | {"prevResult": result}

    host.cni("CHECK", conf, container, "lo")

    container.run("ip", "link", "set", "lo", "down")
    with pytest.raises(CniFailure, match="lo"):
        host.cni("CHECK", conf, container, "lo")


def test_foreign_address_on_lo_is_refused(host: Host, container: Container) -> None:
    """The address is not part of the plain loopback interface that this plugin promises."""
    container.run("ip", "address", "add", "10.9.0.1/24", "dev", "lo")

    with pytest.raises(CniFailure, match="10.9.0.1"):
        host.cni("ADD", LOOPBACK, container, "lo")

    container.run("ip", "address", "del", "10.9.0.1/24", "dev", "lo")
    container.run("ip", "link", "set", "lo", "down")


IPS = [{"address": "127.0.0.1/8", "interface": 0}, {"address": "::1/128", "interface": 0}]
IPS_0_3 = [{"version": "4", **IPS[0]}, {"version": "6", **IPS[1]}]
INTERFACES = [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": "/run/netns/c1"}]


@pytest.mark.parametrize(
    ("version", "shape"),
    [
        pytest.param("1.1.0", {"interfaces": INTERFACES, "ips": IPS}, marks=SPEC_1_1),
        ("1.0.0", {"interfaces": INTERFACES, "ips": IPS}),
        *(
            pytest.param(version, {"interfaces": INTERFACES, "ips": IPS_0_3, "dns": {}}, marks=OWN_SHAPE)
            for version in ("0.4.0", "0.3.1", "0.3.0")
        ),
        *(
            pytest.param(
                version, {"ip4": {"ip": "127.0.0.1/8"}, "ip6": {"ip": "::1/128"}, "dns": {}}, marks=OWN_SHAPE
            )
            for version in ("0.2.0", "0.1.0")
        ),
    ],
)
def test_result_has_the_shape_of_its_version(
    host: Host, container: Container, version: str, shape: dict[str, Any]
) -> None:
    result = host.cni("ADD", LOOPBACK | {"cniVersion": version}, container, "lo")

    if "interfaces" in shape and "mtu" in result["interfaces"][0]:  # new in 1.1.0, and optional
        assert version == "1.1.0" and result["interfaces"][0].pop("mtu") == 65536
    assert result == {"cniVersion": version} | shape
