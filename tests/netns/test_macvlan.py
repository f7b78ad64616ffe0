# SPDX-License-Identifier: Apache-2.0
"""macvlan: the interface that ADD makes, its parent link, and the traffic that passes through it."""

from functools import partial
from typing import Any

import pytest

from tests.netns.differences import OLD_KEYS, SPEC_1_1
from tests.support.host.host import ACCEPT_DAD, Container, Host, Outside
from tests.support.host.sockets import arrives, connect, frame, packet_socket, reaches
from tests.support.plugins import child_link
from tests.support.plugins.bridge import add, address, leased
from tests.support.plugins.child_link import FIRST, SUBNET, SUBNET6
from tests.support.plugins.cni import CniFailure, with_previous_result

network = partial(child_link.network, "macvlan")
static = partial(child_link.static, "macvlan")


@pytest.fixture
def outside(host: Host) -> Outside:
    return host.outside()


@pytest.fixture
def master(outside: Outside, host: Host) -> Any:
    return host.link("up0")


def of(container: Container, ifname: str = "eth0") -> Any:
    """Return the attributes of a container's macvlan."""
    return container.link(ifname)["linkinfo"]["info_data"]


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", pytest.param("1.1.0", marks=SPEC_1_1)])
def test_result_has_the_interface_and_its_address(
    host: Host, container: Container, outside: Outside, version: str
) -> None:
    result = host.cni("ADD", network(version=version), container)

    link = container.link("eth0")
    marked = {"version": "4"} if version < "1" else {}
    assert result == {
        "cniVersion": version,
        "interfaces": [{"name": "eth0", "mac": link["address"], "sandbox": container.path}],
        "ips": [marked | {"interface": 0, "address": f"{FIRST}/24", "gateway": Outside.ADDRESS}],
        **({"dns": {}} if version < "1" else {}),
    }
    assert link["linkinfo"]["info_kind"] == "macvlan"
    assert container.addresses("eth0") == [f"{FIRST}/24"]


def test_result_of_0_2_has_addresses_only(host: Host, container: Container, outside: Outside) -> None:
    assert host.cni("ADD", network(version="0.2.0"), container) == {
        "cniVersion": "0.2.0",
        "ip4": {"ip": f"{FIRST}/24", "gateway": Outside.ADDRESS},
        "dns": {},
    }


# Traffic


def test_containers_reach_each_other_and_a_machine_beyond_the_uplink(host: Host, outside: Outside) -> None:
    """Each is a machine of that network with its own address, in both families."""
    conf = network(SUBNET, SUBNET6)
    containers = [host.container() for _ in range(2)]
    for container in containers:
        container.set_sysctl(ACCEPT_DAD, "0")
    (one, first), (two, second) = (add(host, conf, container) for container in containers)

    for family, beyond in enumerate([Outside.ADDRESS, Outside.ADDRESS6]):
        assert connect(one, two, address(second, family)) == address(first, family)
        assert connect(two, outside, beyond) == address(second, family)
        assert connect(outside, one, address(first, family)) == beyond


@pytest.mark.parametrize("mode", ["private", "vepa"])
def test_other_modes_separate_containers(host: Host, outside: Outside, mode: str) -> None:
    """In mode `vepa` a switch would have to send the frames back, and there is no switch here."""
    (one, first), (two, _) = (add(host, network(mode=mode)) for _ in range(2))

    assert of(one)["mode"] == mode
    assert not reaches(two, one, address(first))
    for container in (one, two):
        assert connect(container, outside, Outside.ADDRESS)


@pytest.mark.known_difference(
    "the error of a MAC address in use is the kernel's",
    here="the error names the address and its owner",
    right="either",
)
@pytest.mark.parametrize("whose", ["master", "container"])
def test_mac_of_a_neighbour_is_refused(host: Host, master: Any, whose: str) -> None:
    one, _ = add(host, network())
    mac = master["address"] if whose == "master" else container_mac(one)

    two = host.container()
    with pytest.raises(CniFailure, match=f"MAC address {mac} is taken"):
        host.cni("ADD", network(mac=mac), two)
    assert two.links() == {"lo"}


@pytest.mark.known_difference("accepts the MAC address of a neighbour", here="refused", right="cnihook")
def test_mac_of_a_neighbour_on_a_bridge_is_refused(host: Host) -> None:
    """If the parent link is a bridge, the bridge's containers are neighbours, too."""
    bridge = "02:00:00:00:00:01"
    host.run("ip", *f"link add br0 address {bridge} up type bridge".split())
    host.save_state()
    peer = host.container()
    host.run("ip", *"link add v1 master br0 type veth peer name eth0 netns".split(), peer.name)
    mac = peer.link("eth0")["address"]

    with pytest.raises(CniFailure, match=f"MAC address {mac} is taken"):
        host.cni("ADD", network(master="br0", mac=mac), host.container())
    with pytest.raises(CniFailure, match=f"MAC address {bridge} is taken"):
        host.cni("ADD", network(master="br0", mac=bridge), host.container())
    host.run("ip", "link", "del", "v1")


def test_passthru_gives_the_master_to_one_container(host: Host, master: Any, outside: Outside) -> None:
    one, _ = add(host, network(mode="passthru"))

    assert container_mac(one) == master["address"]
    assert connect(outside, one, FIRST) == Outside.ADDRESS

    two = host.container()
    with pytest.raises(CniFailure):
        host.cni("ADD", network(mode="passthru"), two)
    assert two.links() == {"lo"} and leased(host) == [FIRST]


def container_mac(container: Container) -> str:
    return str(container.link("eth0")["address"])


def test_without_ipam_the_link_has_no_address(host: Host, container: Container, outside: Outside) -> None:
    """The link is up and frames pass.  A program in the container may request an address."""
    result = host.cni("ADD", network(ipam=None), container)

    assert "ips" not in result
    assert "UP" in container.link("eth0")["flags"] and container.addresses("eth0") == []
    with packet_socket(outside, "up0") as receiver, packet_socket(container, "eth0") as sender:
        sender.send(frame(container_mac(container), outside.link("up0")["address"]))
        assert arrives(receiver, expected=True)


def test_neighbours_learn_the_new_mac_of_an_address(host: Host, outside: Outside) -> None:
    """The container need not send a packet: neighbours reach the address's next owner at once."""
    one, _ = add(host, static(f"{FIRST}/24"))
    assert connect(outside, one, FIRST)
    host.cni("DEL", static(f"{FIRST}/24"), one)

    two, _ = add(host, static(f"{FIRST}/24"))

    (neighbour,) = outside.ip("neighbour", "show", FIRST)
    assert neighbour["lladdr"] == container_mac(two)
    assert connect(outside, two, FIRST) == Outside.ADDRESS


def test_default_route_is_that_of_ipam(host: Host, container: Container, outside: Outside) -> None:
    ipam = {"type": "host-local", "ranges": [[SUBNET]], "routes": [{"dst": "0.0.0.0/0"}]}
    host.cni("ADD", network(ipam=ipam), container)
    outside.run("ip", "address", "add", "192.0.2.1/32", "dev", "lo")

    assert ("default", Outside.ADDRESS, "eth0") in container.routes()
    assert connect(container, outside, "192.0.2.1") == FIRST


# The parent link (master)

# Debian 13 built it with a newer library, in which a default route has a destination.
NO_DEFAULT_ROUTE = pytest.mark.known_difference(
    "the build of Debian 13 finds no default route",
    here="finds it",
    right="cnihook",
    debian="13",
)


@NO_DEFAULT_ROUTE
def test_master_is_the_interface_of_the_default_route(host: Host, container: Container, master: Any) -> None:
    host.cni("ADD", network(master=None), container)

    assert container.link("eth0")["link_index"] == master["ifindex"]


@NO_DEFAULT_ROUTE
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("ip route add default dev second metric 10", "up0"),
        ("ip route replace default via 198.51.100.2 metric 20; ip route del default metric 0; "
         "ip route add default dev second metric 10", "second"),
        ("ip route del default; ip -6 route add default dev second metric 1", "second"),
        ("ip route del default; ip -6 route add default dev second metric 2000", "up0"),
        ("ip route del default; ip -6 route flush default; ip route add default dev second table 9; "
         "ip -6 route add default dev second", "second"),
    ],
    ids=["first", "lower metric", "IPv6", "lower IPv6 metric", "main table"],
)  # fmt: skip
def test_master_is_the_link_of_the_default_route_in_use(
    host: Host, container: Container, outside: Outside, command: str, expected: str
) -> None:
    """The route of IPv4, if there is one."""
    host.run("sh", "-ec", f"ip link add second type bridge; ip link set second up; {command}")
    host.leaves("* second *", "route second*")

    host.cni("ADD", network(master=None), container)

    assert container.link("eth0")["link_index"] == host.link(expected)["ifindex"]
    host.cni("DEL", network(master=None), container)


@pytest.mark.known_difference(
    "takes the device of an `unreachable` default route as master",
    here="uses only a route that works, lowest metric first",
    right="cnihook",
    debian="12",
)
def test_without_a_default_route_a_master_has_to_be_named(
    host: Host, container: Container, outside: Outside
) -> None:
    host.run(
        "sh", "-c", "ip route del default; ip -6 route del default; ip -6 route add unreachable default"
    )
    host.leaves("route lo unreachable default *")

    with pytest.raises(CniFailure, match="no default route interface found"):
        host.cni("ADD", network(master=None), container)
    assert leased(host) == [] and container.links() == {"lo"}


@OLD_KEYS
@pytest.mark.parametrize("named", [True, False], ids=["named", "of the default route"])
def test_master_may_be_in_the_container(host: Host, container: Container, named: bool) -> None:
    """An earlier network made it there, and the host has another interface of that name."""
    host.run("ip", "link", "add", "in0", "type", "veth", "peer", "name", "in0", "netns", "c1")
    host.leaves("in c1: link in0 *", "in c1: * in0 *", "link in0 *")
    container.run("sh", "-c", "ip link set in0 up; ip route add default dev in0")
    conf = network(master="in0" if named else None, linkInContainer=True)

    result = host.cni("ADD", conf, container)

    link = container.link("eth0")
    assert link["link"] == "in0"
    host.cni("CHECK", with_previous_result(conf, result), container)
    host.cni("DEL", conf, container)
    assert container.links() == {"lo", "in0"}


def test_host_may_have_an_interface_of_the_same_name(
    host: Host, container: Container, outside: Outside
) -> None:
    host.run("ip", "link", "add", "eth0", "type", "bridge")
    host.leaves("link eth0 bridge *")
    before = host.link("eth0")

    host.cni("ADD", network(), container)
    host.cni("DEL", network(), container)

    assert host.link("eth0") == before


def test_two_networks_of_a_container_may_share_a_master(
    host: Host, container: Container, outside: Outside
) -> None:
    other = static("198.51.100.99/24", name="net2")
    host.cni("ADD", network(), container)
    host.cni("ADD", other, container, "net1")

    host.cni("DEL", network(), container)

    assert container.links() == {"lo", "net1"}
    assert connect(outside, container, "198.51.100.99")


# Other keys

MACS: dict[str, dict[str, Any]] = {
    "mac": {"mac": "02:00:00:00:00:01"},
    "CNI_ARGS": {"CNI_ARGS": "IgnoreUnknown=1;MAC=02:00:00:00:00:02"},
    "args.cni": {"args": {"cni": {"mac": "02:00:00:00:00:03"}}},
    "runtimeConfig": {"runtimeConfig": {"mac": "02:00:00:00:00:04"}},
}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["mac"], 1),
        (["mac", "CNI_ARGS"], 2),
        pytest.param(
            ["mac", "CNI_ARGS", "args.cni"],
            3,
            marks=pytest.mark.known_difference("ignores args.cni.mac", here="uses it", right="either"),
        ),
        (["mac", "CNI_ARGS", "runtimeConfig"], 4),
    ],
)
def test_mac_address_is_that_of_the_most_specific_source(
    host: Host, container: Container, outside: Outside, given: list[str], expected: int
) -> None:
    conf = network()
    env: dict[str, str] = {}
    for where in given:
        (env if where == "CNI_ARGS" else conf).update(MACS[where])
    result = host.cni("ADD", conf, container, **env)

    mac = f"02:00:00:00:00:0{expected}"
    assert container_mac(container) == result["interfaces"][0]["mac"] == mac
    assert connect(outside, container, FIRST)


@pytest.mark.parametrize(("mtu", "expected"), [(None, 1500), (0, 1500), (1400, 1400), (1500, 1500)])
def test_mtu_is_up_to_that_of_the_master(
    host: Host, container: Container, outside: Outside, mtu: int | None, expected: int
) -> None:
    host.cni("ADD", network(mtu=mtu), container)

    assert container.link("eth0")["mtu"] == expected


@OLD_KEYS
def test_length_of_the_broadcast_queue(host: Host, container: Container, outside: Outside) -> None:
    host.cni("ADD", network(bcqueuelen=4000), container)

    assert of(container)["bcqueuelen"] == 4000


@pytest.mark.known_difference(
    "drops the DNS of its IPAM plugin",
    here="keeps it, unless the network has its own",
    right="SPEC.md, 5 Success",
)
def test_dns_of_ipam_is_returned_unless_the_network_has_its_own(host: Host, outside: Outside) -> None:
    own, ipam = {"nameservers": ["192.0.2.53"]}, {"domain": "x.test"}
    assert add(host, static(f"{FIRST}/24", ipam={"dns": ipam}))[1]["dns"] == ipam
    assert add(host, static("198.51.100.11/24", ipam={"dns": ipam}, dns=own))[1]["dns"] == own
    assert "dns" not in add(host, static("198.51.100.12/24", ipam={"dns": ipam}, dns={"search": []}))[1]
