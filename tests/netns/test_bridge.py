# SPDX-License-Identifier: Apache-2.0
"""bridge: the links, addresses, routes and settings that ADD makes, and its result."""

import re
from typing import Any

import pytest

from tests.netns.differences import OLD_KEYS, SPEC_1_1
from tests.support.host.host import Container, Host
from tests.support.plugins.bridge import add, network, port
from tests.support.plugins.cni import CniFailure

SUBNET, SUBNET6 = "10.9.0.0/24", "2001:db8:9::/64"


@pytest.mark.parametrize("version", ["1.0.0", pytest.param("1.1.0", marks=SPEC_1_1)])
def test_result_lists_all_that_add_made(host: Host, container: Container, version: str) -> None:
    """The bridge, the port, the container end, and the interface that has the address."""
    conf = network(SUBNET, version=version, isGateway=True, ipam={"routes": [{"dst": "0.0.0.0/0"}]})
    result = host.cni("ADD", conf, container)

    bridge, port, inside = result["interfaces"]
    for interface in (bridge, port, inside):  # new in 1.1.0, and optional
        assert interface.pop("mtu", 1500) == 1500
    assert bridge == {"name": "cni0", "mac": host.link("cni0")["address"]}
    assert port == {"name": port["name"], "mac": host.link(port["name"])["address"]}
    assert inside == {"name": "eth0", "mac": container.link("eth0")["address"], "sandbox": container.path}
    assert result == {
        "cniVersion": version,
        "interfaces": [bridge, port, inside],
        "ips": [{"interface": 2, "address": "10.9.0.2/24", "gateway": "10.9.0.1"}],
        "routes": [{"dst": "0.0.0.0/0"}],
    }


@pytest.mark.parametrize("version", ["0.4.0", "0.3.1", "0.3.0"])
def test_result_of_0_3_has_the_family_of_each_address(
    host: Host, container: Container, version: str
) -> None:
    result = host.cni("ADD", network(SUBNET, SUBNET6, version=version), container)

    assert result["cniVersion"] == version
    assert result["ips"] == [
        {"version": "4", "interface": 2, "address": "10.9.0.2/24", "gateway": "10.9.0.1"},
        {"version": "6", "interface": 2, "address": "2001:db8:9::2/64", "gateway": "2001:db8:9::1"},
    ]
    assert len(result["interfaces"]) == 3 and result["dns"] == {}


@pytest.mark.parametrize("version", ["0.2.0", "0.1.0"])
def test_result_of_0_2_has_addresses_only(host: Host, container: Container, version: str) -> None:
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "2001:db8:1::/64"}]
    conf = network(SUBNET, SUBNET6, version=version, ipam={"routes": routes})

    assert host.cni("ADD", conf, container) == {
        "cniVersion": version,
        "ip4": {"ip": "10.9.0.2/24", "gateway": "10.9.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
        "ip6": {
            "ip": "2001:db8:9::2/64",
            "gateway": "2001:db8:9::1",
            "routes": [{"dst": "2001:db8:1::/64"}],
        },
        "dns": {},
    }


def test_configuration_without_a_version_means_0_1(host: Host, container: Container) -> None:
    conf = network(SUBNET)
    del conf["cniVersion"]

    result = host.cni("ADD", conf, container)

    assert result["cniVersion"] == "0.1.0" and result["ip4"]["ip"] == "10.9.0.2/24"


def test_container_gets_address_and_link(host: Host, container: Container) -> None:
    host.cni("ADD", network(SUBNET), container)

    link = container.link("eth0")
    assert link["linkinfo"]["info_kind"] == "veth" and "UP" in link["flags"]
    (v4,) = [address for address in link["addr_info"] if address["family"] == "inet"]
    assert (v4["local"], v4["prefixlen"], v4["broadcast"]) == ("10.9.0.2", 24, "10.9.0.255")
    assert container.routes() == [("10.9.0.0/24", None, "eth0")]


def test_port_is_on_the_bridge_and_up(host: Host, container: Container) -> None:
    result = host.cni("ADD", network(SUBNET), container)

    link = port(host, result)
    assert re.fullmatch("veth[0-9a-f]{8}", link["ifname"])
    assert (link["master"], link["operstate"]) == ("cni0", "UP")
    bridge = host.link("cni0")
    assert bridge["linkinfo"]["info_kind"] == "bridge" and "UP" in bridge["flags"]


def test_bridge_is_called_cni0_by_default(host: Host, container: Container) -> None:
    result = host.cni("ADD", network(SUBNET, bridge=None), container)

    assert result["interfaces"][0]["name"] == port(host, result)["master"] == "cni0"


def test_interface_has_the_requested_name(host: Host, container: Container) -> None:
    result = host.cni("ADD", network(SUBNET), container, "net0.5")

    assert result["interfaces"][2]["name"] == "net0.5"
    assert container.links() == {"lo", "net0.5"}


def test_second_container_joins_the_same_bridge(host: Host) -> None:
    conf = network(SUBNET, isGateway=True)
    first, second = (add(host, conf)[1] for _ in range(2))

    assert port(host, first)["master"] == port(host, second)["master"] == "cni0"
    assert second["ips"][0]["address"] == "10.9.0.3/24"


def test_container_may_be_twice_on_one_network(host: Host, container: Container) -> None:
    conf = network(SUBNET)
    add(host, conf, container, "eth0")
    add(host, conf, container, "eth1")

    assert container.addresses("eth0") == ["10.9.0.2/24"]
    assert container.addresses("eth1") == ["10.9.0.3/24"]
    host.cni("DEL", conf, container, "eth0")
    assert container.addresses("eth1") == ["10.9.0.3/24"]


@pytest.mark.known_difference(
    "ignores mtu and advmss of routes", here="sets them", right="SPEC.md, 5 Success"
)
def test_routes_of_1_1_keep_priority_table_and_sizes(host: Host, container: Container) -> None:
    routes = [
        {"dst": "192.0.2.0/24", "priority": 77, "mtu": 1400, "advmss": 1300},
        {"dst": "198.51.100.0/24", "table": 123},
    ]
    host.cni("ADD", network(SUBNET, version="1.1.0", ipam={"routes": routes}), container)

    (first,) = container.ip("route", "show", "192.0.2.0/24")
    assert first["metric"] == 77 and first["metrics"] == [{"mtu": 1400, "advmss": 1300}]
    assert container.ip("route", "show", "table", "123")[0]["dst"] == "198.51.100.0/24"


def test_mtu_is_set_on_bridge_port_and_container(host: Host, container: Container) -> None:
    result = host.cni("ADD", network(SUBNET, mtu=1400), container)

    links = (host.link("cni0"), port(host, result), container.link("eth0"))
    assert [link["mtu"] for link in links] == [1400, 1400, 1400]


def port_data(host: Host, result: Any) -> Any:
    return port(host, result)["linkinfo"]["info_slave_data"]


@pytest.mark.parametrize("wanted", [True, False])
def test_hairpin_mode_is_set_on_the_port(host: Host, container: Container, wanted: bool) -> None:
    result = host.cni("ADD", network(SUBNET, hairpinMode=wanted), container)

    assert port_data(host, result)["hairpin"] == wanted


@pytest.mark.parametrize(
    "wanted", [pytest.param(True, marks=OLD_KEYS), False], ids=["isolated", "not isolated"]
)
def test_port_isolation_is_set_on_the_port(host: Host, container: Container, wanted: bool) -> None:
    result = host.cni("ADD", network(SUBNET, portIsolation=wanted), container)

    assert port_data(host, result)["isolated"] == wanted


def test_promiscuous_mode_is_set_on_the_bridge(host: Host) -> None:
    """The plugin turns it on and never off: another network may share the bridge and need it."""
    add(host, network(SUBNET))
    assert "PROMISC" not in host.link("cni0")["flags"]
    add(host, network(SUBNET, promiscMode=True))
    assert "PROMISC" in host.link("cni0")["flags"]
    add(host, network(SUBNET))
    assert "PROMISC" in host.link("cni0")["flags"]


def test_mac_of_the_bridge_does_not_change_with_its_ports(host: Host) -> None:
    """The kernel would use the lowest MAC of its ports, and neighbours would have to learn a new one."""
    conf = network(SUBNET, isGateway=True)
    _, result = add(host, conf)
    for _ in range(3):
        add(host, conf)

    assert host.link("cni0")["address"] == result["interfaces"][0]["mac"]


def test_bridge_that_exists_is_used_as_it_is(host: Host, container: Container) -> None:
    host.run("ip", "link", "add", "mybr", "mtu", "1350", "type", "bridge")
    host.leaves("link mybr *")

    result = host.cni("ADD", network(SUBNET, bridge="mybr"), container)

    assert port(host, result)["master"] == "mybr"
    assert "UP" in host.link("mybr")["flags"]


def test_link_that_is_not_a_bridge_is_refused(host: Host, container: Container) -> None:
    host.run("ip", "link", "add", "mybr", "type", "veth", "peer", "name", "rbym")
    host.leaves("link mybr *", "link rbym *")

    with pytest.raises(CniFailure, match="mybr"):
        host.cni("ADD", network(SUBNET, bridge="mybr"), container)


def test_without_ipam_the_container_has_a_link_without_address(host: Host, container: Container) -> None:
    result = host.cni("ADD", network(), container)

    assert "ips" not in result and len(result["interfaces"]) == 3
    assert container.addresses("eth0") == []
    assert "UP" in container.link("eth0")["flags"]
    assert port(host, result)["master"] == "cni0"


@OLD_KEYS
def test_container_interface_can_stay_down(host: Host, container: Container) -> None:
    """A virtual machine takes the interface over and must not find it up."""
    host.cni("ADD", network(disableContainerInterface=True), container)

    assert "UP" not in container.link("eth0")["flags"]


def test_ipv6_address_can_be_used_at_once(host: Host, container: Container) -> None:
    host.cni("ADD", network(SUBNET6), container)

    (address,) = [item for item in container.link("eth0")["addr_info"] if item["scope"] == "global"]
    assert "tentative" not in address
    assert container.sysctl("net/ipv6/conf/eth0/accept_dad") == "0"


def test_duplicate_address_detection_can_be_enabled(host: Host, container: Container) -> None:
    host.cni("ADD", network(SUBNET6, enabledad=True), container)

    assert container.sysctl("net/ipv6/conf/eth0/accept_dad") == "1"
    assert container.sysctl("net/ipv6/conf/eth0/enhanced_dad") == "1"
    (address,) = [item for item in container.link("eth0")["addr_info"] if item["scope"] == "global"]
    assert "tentative" not in address, "the plugin returns when the address can be used"


def test_ipv6_is_enabled_if_the_container_needs_it(host: Host, container: Container) -> None:
    """Runtimes start containers with disable_ipv6=1."""
    container.run(
        "sh", "-c", "for f in all default; do echo 1 > /proc/sys/net/ipv6/conf/$f/disable_ipv6; done"
    )

    host.cni("ADD", network(SUBNET, SUBNET6), container)

    assert container.addresses("eth0") == ["10.9.0.2/24", "2001:db8:9::2/64"]


def test_bridge_ignores_router_advertisements_of_containers(host: Host, container: Container) -> None:
    """A container could otherwise announce itself as the host's router."""
    host.cni("ADD", network(SUBNET), container)

    # The bridge receives what comes from its ports, so the port's own setting means nothing.
    assert host.sysctl("net/ipv6/conf/cni0/accept_ra") == "0"


def test_container_announces_its_address(host: Host, container: Container) -> None:
    """Neighbours then forget the MAC address of the address's previous owner."""
    host.cni("ADD", network(SUBNET), container)

    assert container.sysctl("net/ipv4/conf/eth0/arp_notify") == "1"


NO_MAC_ARGUMENT = pytest.mark.known_difference("refuses MAC in CNI_ARGS", here="uses it", right="either")
MAC = "02:11:22:33:44:55"


@pytest.mark.parametrize(
    ("keys", "env"),
    [
        pytest.param({"runtimeConfig": {"mac": MAC}}, {}, id="runtimeConfig"),
        pytest.param({"args": {"cni": {"mac": MAC}}}, {}, id="args.cni"),
        pytest.param({}, {"CNI_ARGS": f"MAC={MAC}"}, id="CNI_ARGS", marks=NO_MAC_ARGUMENT),
        pytest.param(
            {"runtimeConfig": {"mac": MAC}, "args": {"cni": {"mac": "02:00:00:00:00:02"}}},
            {"CNI_ARGS": "MAC=02:00:00:00:00:03"},
            id="runtimeConfig first",
            marks=NO_MAC_ARGUMENT,
        ),
        pytest.param(
            {"args": {"cni": {"mac": MAC}}},
            {"CNI_ARGS": "MAC=02:00:00:00:00:03"},
            id="args.cni before CNI_ARGS",
            marks=NO_MAC_ARGUMENT,
        ),
    ],
)
def test_container_gets_the_requested_mac_address(
    host: Host, container: Container, keys: dict[str, Any], env: dict[str, str]
) -> None:
    result = host.cni("ADD", network(SUBNET) | keys, container, **env)

    assert container.link("eth0")["address"] == result["interfaces"][2]["mac"] == MAC


@pytest.mark.known_difference(
    "drops the DNS of its IPAM plugin",
    here="keeps it, unless the network has its own",
    right="SPEC.md, 5 Success",
    fixed_in="1.9.1",
)
def test_dns_of_the_network_overrides_that_of_ipam(host: Host) -> None:
    host.write("/run/resolv.conf", "nameserver 192.0.2.53\nsearch example.net\n")
    host.leaves("file /run/resolv.conf")
    ipam = {"resolvConf": "/run/resolv.conf"}
    dns = {"nameservers": ["192.0.2.99"], "options": ["ndots:3"]}

    _, result = add(host, network(SUBNET, ipam=ipam))
    assert result["dns"] == {"nameservers": ["192.0.2.53"], "search": ["example.net"]}

    _, result = add(host, network(SUBNET, ipam=ipam, dns=dns))
    assert result["dns"] == dns


def test_empty_key_of_dns_overrides_ipam(host: Host, container: Container) -> None:
    """A network with such a key uses nothing of the DNS that IPAM found on the host."""
    host.write("/run/resolv.conf", "nameserver 192.0.2.53\n")
    host.leaves("file /run/resolv.conf")

    conf = network(SUBNET, ipam={"resolvConf": "/run/resolv.conf"}, dns={"search": []})
    assert "dns" not in host.cni("ADD", conf, container)
