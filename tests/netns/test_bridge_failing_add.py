# SPDX-License-Identifier: Apache-2.0
"""bridge: a failed ADD leaves the machine as it was, whichever step fails."""

import json
from typing import Any

import pytest

from tests.netns.differences import HOST_NETNS, LEAKS_LINK
from tests.support.host.host import Container, Host
from tests.support.host.sockets import connect
from tests.support.plugins.bridge import add, leased, network
from tests.support.plugins.cni import CniFailure

SUBNET, SUBNET6 = "10.9.0.0/24", "2001:db8:9::/64"
ALL = network(SUBNET, SUBNET6, isDefaultGateway=True, ipMasq=True, macspoofchk=True)


def expect_nothing_of(host: Host, container: Container) -> None:
    assert container.links() == {"lo"}
    assert leased(host) == []
    assert not any(link.startswith("veth") for link in host.links())


def test_add_to_a_namespace_that_does_not_exist(host: Host, container: Container) -> None:
    with pytest.raises(CniFailure, match="/run/netns/none"):
        host.cni("ADD", ALL, container, CNI_NETNS="/run/netns/none")
    expect_nothing_of(host, container)


def test_add_to_a_file_that_is_not_a_namespace(host: Host, container: Container) -> None:
    with pytest.raises(CniFailure, match="/etc/hostname"):
        host.cni("ADD", ALL, container, CNI_NETNS="/etc/hostname")
    expect_nothing_of(host, container)


@HOST_NETNS
def test_add_to_the_hosts_own_namespace_is_refused(host: Host, container: Container) -> None:
    """Code 8: the plugin must not change the host for a container that shares the host's network."""
    with pytest.raises(CniFailure) as failure:
        host.cni("ADD", ALL, container, CNI_NETNS="/proc/1/ns/net")

    assert failure.value.code == 8
    assert host.links() == {"lo"}


def test_add_is_refused_if_the_interface_exists(host: Host, container: Container) -> None:
    """The interface is another program's, and stays."""
    container.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "0hte")
    before = container.link("eth0")

    with pytest.raises(CniFailure, match="eth0"):
        host.cni("ADD", ALL, container)

    assert container.link("eth0") == before
    container.run("ip", "link", "del", "eth0")
    expect_nothing_of(host, container)


def test_second_add_leaves_the_first_as_it_was(host: Host, container: Container) -> None:
    """The second ADD is refused without a DEL in between, and the container keeps its network."""
    _, result = add(host, network(SUBNET, isGateway=True), container)

    with pytest.raises(CniFailure, match="eth0"):
        host.cni("ADD", network(SUBNET, isGateway=True), container)

    assert leased(host) == ["10.9.0.2"]
    assert connect(host, container, "10.9.0.2") == "10.9.0.1"
    assert container.link("eth0")["address"] == result["interfaces"][2]["mac"]


@LEAKS_LINK
def test_add_without_a_free_address(host: Host, container: Container) -> None:
    conf = network("10.9.0.0/30", isGateway=True, ipMasq=True)
    add(host, conf)

    with pytest.raises(CniFailure, match="10.9.0.1-10.9.0.2"):
        host.cni("ADD", conf, container)

    assert container.links() == {"lo"} and leased(host) == ["10.9.0.2"]


@LEAKS_LINK
def test_add_without_a_free_address_in_the_second_range(host: Host, container: Container) -> None:
    conf = network(SUBNET6, "10.9.0.0/30", isGateway=True, ipMasq=True)
    add(host, conf)

    with pytest.raises(CniFailure, match="10.9.0.1-10.9.0.2"):
        host.cni("ADD", conf, container)

    assert container.links() == {"lo"} and leased(host) == ["10.9.0.2", "2001:db8:9::2"]


@LEAKS_LINK
def test_add_with_a_route_that_the_kernel_refuses(host: Host, container: Container) -> None:
    """The kernel refuses it late, when the links and the address exist."""
    conf = network(
        SUBNET, isGateway=True, ipMasq=True, ipam={"routes": [{"dst": "0.0.0.0/0", "gw": "192.0.2.1"}]}
    )

    with pytest.raises(CniFailure):
        host.cni("ADD", conf, container)
    expect_nothing_of(host, container)


@LEAKS_LINK
def test_add_with_a_bridge_that_has_another_address(host: Host, container: Container) -> None:
    host.run("ip", "link", "add", "mybr", "type", "bridge")
    host.run("ip", "address", "add", "10.1.0.1/24", "dev", "mybr")
    host.leaves("* mybr *")

    with pytest.raises(CniFailure, match="mybr"):
        host.cni("ADD", ALL | {"bridge": "mybr"}, container)
    expect_nothing_of(host, container)


def test_failed_add_leaves_the_bridge_of_other_containers(host: Host, container: Container) -> None:
    conf = network("10.9.0.0/30", isGateway=True)
    one, _ = add(host, conf)
    with pytest.raises(CniFailure):
        host.cni("ADD", conf, container)
    host.cni("DEL", conf, container)

    assert connect(host, one, "10.9.0.2") == "10.9.0.1"


@LEAKS_LINK
@pytest.mark.parametrize("result", [{}, {"cniVersion": "1.0.0", "routes": [{"dst": "0.0.0.0/0"}]}])
def test_add_fails_if_the_ipam_plugin_returns_no_address(
    host: Host, container: Container, result: dict[str, Any]
) -> None:
    """The IPAM plugin still gets DEL, to release what it may have kept."""
    path = ipam_plugin(host, f"""echo $CNI_COMMAND >> /run/asked; echo '{json.dumps(result)}'""")

    with pytest.raises(CniFailure):
        host.cni("ADD", network(ipam={"type": "fake"}), container, CNI_PATH=path)

    assert host.read("/run/asked").split() == ["ADD", "DEL"]
    expect_nothing_of(host, container)


def ipam_plugin(host: Host, script: str) -> str:
    """Make a plugin `fake` that runs a shell script; return a CNI_PATH that includes it."""
    assert host.implementation
    host.write("/run/plugins/fake", f"#!/bin/sh\n{script}\n", mode=0o755)
    host.leaves("dir /run/plugins", "file /run/plugins/fake", "file /run/asked")
    return f"/run/plugins:{host.implementation.folder}"


@LEAKS_LINK
def test_error_of_the_ipam_plugin_keeps_its_code(host: Host, container: Container) -> None:
    """The runtime acts on it: code 11 means try again."""
    error = {"cniVersion": "1.0.0", "code": 11, "msg": "ipam server is busy"}
    path = ipam_plugin(host, f"echo '{json.dumps(error)}'; exit 1")

    with pytest.raises(CniFailure, match="ipam server is busy") as failure:
        host.cni("ADD", network(ipam={"type": "fake"}), container, CNI_PATH=path)

    assert failure.value.code == 11


@pytest.mark.parametrize(
    "output", ["", "no JSON", "[]", '{"cniVersion":"9.9.9"}', '{"ips":[{"address":"x"}]}']
)
@LEAKS_LINK
def test_invalid_output_of_the_ipam_plugin_is_an_error(
    host: Host, container: Container, output: str
) -> None:
    path = ipam_plugin(host, f"echo '{output}'")

    with pytest.raises(CniFailure):
        host.cni("ADD", network(ipam={"type": "fake"}), container, CNI_PATH=path)
    expect_nothing_of(host, container)


@LEAKS_LINK
def test_error_names_a_missing_ipam_plugin(host: Host, container: Container) -> None:
    with pytest.raises(CniFailure, match="no-such-ipam"):
        host.cni("ADD", network(ipam={"type": "no-such-ipam"}), container)
    expect_nothing_of(host, container)


def test_ipam_plugin_gets_the_whole_request(host: Host, container: Container) -> None:
    """The whole configuration, and every variable as the caller set it."""
    answer = {"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.7/24"}]}
    script = f"(env; cat) > /run/asked.$CNI_COMMAND; echo '{json.dumps(answer)}'"
    path = ipam_plugin(host, script)
    host.leaves("file /run/asked.*")
    conf = network(ipam={"type": "fake", "own": "key"}, args={"cni": {"labels": []}})

    host.cni("ADD", conf, container, "eth7", CNI_PATH=path, CNI_ARGS="IgnoreUnknown=1;A=b")
    host.cni("DEL", conf, container, "eth7", CNI_PATH=path, CNI_ARGS="IgnoreUnknown=1;A=b")

    for command in ("ADD", "DEL"):
        request = host.read(f"/run/asked.{command}")
        for line in ("CNI_CONTAINERID=c1", f"CNI_NETNS={container.path}", "CNI_IFNAME=eth7"):
            assert line in request.splitlines()
        assert f"CNI_PATH={path}" in request  # the caller may append folders
        assert f"CNI_COMMAND={command}\n" in request and "CNI_ARGS=IgnoreUnknown=1;A=b\n" in request
        assert '"own"' in request and '"labels"' in request and '"bridge"' in request


@pytest.mark.known_difference(
    "does not enable VLAN filtering on an existing bridge, and `vlan` has no effect",
    here="refused if other programs have ports on it",
    right="cnihook",
)
def test_vlan_filtering_is_not_enabled_on_a_bridge_with_foreign_ports(
    host: Host, container: Container
) -> None:
    """Filtering would drop the tagged frames of these ports."""
    host.run("ip", "link", "add", "cni0", "type", "bridge")
    host.run("ip", "link", "add", "vm7", "type", "veth", "peer", "name", "7mv")
    host.run("ip", "link", "set", "vm7", "master", "cni0")

    with pytest.raises(CniFailure, match="does not filter VLANs, and has ports of other programs: vm7"):
        host.cni("ADD", network(SUBNET, vlan=100), container)

    for link in ("vm7", "cni0"):
        host.run("ip", "link", "del", link)
    expect_nothing_of(host, container)
