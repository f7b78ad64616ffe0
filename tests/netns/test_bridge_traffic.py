# SPDX-License-Identifier: Apache-2.0
"""bridge: the traffic that passes, shown by connections, datagrams and frames that do or do not arrive."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.netns.differences import OLD_KEYS
from tests.support.host.host import Container, Host, Outside
from tests.support.host.sockets import arrives, connect, frame, packet_socket, reaches, source_seen
from tests.support.plugins.bridge import add, address, leased, network
from tests.support.plugins.cni import with_previous_result

SUBNET, SUBNET6 = "10.9.0.0/24", "2001:db8:9::/64"


@pytest.mark.parametrize("subnet", [SUBNET, SUBNET6], ids=["IPv4", "IPv6"])
def test_containers_reach_each_other_and_the_gateway(host: Host, subnet: str) -> None:
    """The host reaches them, too."""
    conf = network(subnet, isGateway=True)
    (one, first), (two, second) = (add(host, conf) for _ in range(2))

    assert connect(one, two, address(second)) == address(first)
    assert connect(two, one, address(first)) == address(second)
    assert connect(one, host, first["ips"][0]["gateway"]) == address(first)
    assert connect(host, two, address(second)) == second["ips"][0]["gateway"]


def test_both_families_work_side_by_side(host: Host) -> None:
    conf = network(SUBNET, SUBNET6, isGateway=True)
    (one, first), (two, second) = (add(host, conf) for _ in range(2))

    for family in (0, 1):
        assert connect(one, two, address(second, family)) == address(first, family)


def test_containers_reach_each_other_without_a_gateway(host: Host) -> None:
    """The host forwards their frames and has no address on the bridge."""
    (one, first), (two, second) = (add(host, network(SUBNET)) for _ in range(2))

    assert connect(one, two, address(second)) == address(first)
    assert not reaches(host, two, address(second))


def test_containers_without_ipam_reach_each_other(host: Host) -> None:
    """The containers choose their addresses themselves, by any protocol."""
    one, two = (add(host, network())[0] for _ in range(2))
    one.run("ip", "address", "add", "192.0.2.1/24", "dev", "eth0")
    two.run("ip", "address", "add", "192.0.2.2/24", "dev", "eth0")

    assert connect(one, two, "192.0.2.2") == "192.0.2.1"


def test_networks_on_two_bridges_are_separate(host: Host) -> None:
    one, _ = add(host, network(bridge="br1", name="a"))
    two, _ = add(host, network(bridge="br2", name="b"))
    sender, receiver = packet_socket(one, "eth0"), packet_socket(two, "eth0")

    with sender, receiver:
        sender.send(frame(one.link("eth0")["address"], "ff:ff:ff:ff:ff:ff"))
        assert not arrives(receiver)


@pytest.mark.parametrize(
    ("subnet", "there", "seen"),
    [(SUBNET, Outside.ADDRESS, Outside.HOST), (SUBNET6, Outside.ADDRESS6, Outside.HOST6)],
    ids=["IPv4", "IPv6"],
)
def test_masqueraded_container_reaches_the_outside(host: Host, subnet: str, there: str, seen: str) -> None:
    """The outside has no route to the container; it sees the host's address."""
    outside = host.outside()
    one, _ = add(host, network(subnet, isDefaultGateway=True, ipMasq=True))

    assert connect(one, outside, there) == seen


def test_masquerade_covers_both_families_of_a_container(host: Host) -> None:
    outside = host.outside()
    one, _ = add(host, network(SUBNET, SUBNET6, isDefaultGateway=True, ipMasq=True))

    assert connect(one, outside, Outside.ADDRESS) == Outside.HOST
    assert connect(one, outside, Outside.ADDRESS6) == Outside.HOST6


def test_without_masquerade_the_outside_sees_the_container(host: Host) -> None:
    outside = host.outside()
    one, result = add(host, network(SUBNET, isDefaultGateway=True))

    assert source_seen(one, outside, Outside.ADDRESS) == address(result)
    assert not reaches(one, outside, Outside.ADDRESS)


def test_nothing_is_masqueraded_within_the_subnet(host: Host) -> None:
    """Neighbours and services of the host see the container's address."""
    conf = network(SUBNET, isGateway=True, ipMasq=True)
    (one, first), (two, second) = (add(host, conf) for _ in range(2))

    assert connect(one, two, address(second)) == address(first)
    assert connect(one, host, first["ips"][0]["gateway"]) == address(first)


def test_multicast_is_not_masqueraded(host: Host) -> None:
    """Receivers that answer have to find its sender."""
    outside = host.outside()
    group = "239.9.9.9"
    conf = network(SUBNET, isDefaultGateway=True, ipMasq=True)
    one, result = add(host, conf)
    outside.run("ip", "route", "add", "default", "via", Outside.HOST)  # to be able to answer

    with multicast_route(host, address(result), group), outside.socket(socket.SOCK_DGRAM) as receiver:
        receiver.bind(("", 9))
        membership = socket.inet_aton(group) + socket.inet_aton(Outside.ADDRESS)
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        with one.socket(socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 8)
            sender.sendto(b"ping", (group, 9))
        assert receiver.recvfrom(16)[1][0] == address(result)


@contextmanager
def multicast_route(host: Host, source: str, group: str) -> Iterator[None]:
    """Make the host forward a group from cni0 to its uplink, as long as the context lasts."""
    init, add_vif, add_route, use_index = 200, 202, 204, 8  # MRT_INIT and on, VIFF_USE_IFINDEX
    with host.socket(socket.SOCK_RAW, protocol=socket.IPPROTO_IGMP) as router:
        router.setsockopt(socket.IPPROTO_IP, init, 1)
        for number, link in enumerate(("cni0", "up0")):
            vif = struct.pack("HBBIiI", number, use_index, 1, 0, host.link(link)["ifindex"], 0)
            router.setsockopt(socket.IPPROTO_IP, add_vif, vif)
        thresholds = bytes([0, 1]).ljust(32, b"\0")  # in on the first, out on the second
        addresses = socket.inet_aton(source) + socket.inet_aton(group)
        route = struct.pack("8sH32s4I", addresses, 0, thresholds, 0, 0, 0, 0)
        router.setsockopt(socket.IPPROTO_IP, add_route, route)
        yield


def test_masquerade_of_one_network_does_not_touch_the_other(host: Host) -> None:
    outside = host.outside()
    one, first = add(host, network(SUBNET, name="a", bridge="br1", isDefaultGateway=True, ipMasq=True))
    two, second = add(host, network("10.8.0.0/24", name="b", bridge="br2", isDefaultGateway=True))

    assert source_seen(one, outside, Outside.ADDRESS) == Outside.HOST
    assert source_seen(two, outside, Outside.ADDRESS) == address(second)
    assert source_seen(two, one, address(first)) == address(second)


def test_masquerade_lasts_as_long_as_its_container(host: Host) -> None:
    """DEL of a neighbour removes the neighbour's masquerade only."""
    outside = host.outside()
    conf = network(SUBNET, isDefaultGateway=True, ipMasq=True)
    (one, _), (two, second) = (add(host, conf) for _ in range(2))

    host.cni("DEL", with_previous_result(conf, second), two)

    assert connect(one, outside, Outside.ADDRESS) == Outside.HOST


def test_late_del_does_not_touch_the_new_owner_of_the_address(host: Host) -> None:
    """The runtime sends DEL late, when the address is leased again."""
    outside = host.outside()
    conf = network(SUBNET, isDefaultGateway=True, ipMasq=True)
    conf["ipam"]["ranges"] = [[{"subnet": SUBNET, "rangeStart": "10.9.0.5", "rangeEnd": "10.9.0.5"}]]
    old, result = add(host, conf)
    host.cni("DEL", with_previous_result(conf, result), old)
    new, _ = add(host, conf)

    host.cni("DEL", with_previous_result(conf, result), old)

    assert connect(new, outside, Outside.ADDRESS) == Outside.HOST
    assert leased(host) == ["10.9.0.5"]


@pytest.mark.parametrize("wanted", [True, False])
def test_hairpin_sends_frames_back(host: Host, container: Container, wanted: bool) -> None:
    """A container needs this to reach itself through an address of the host."""
    add(host, network(SUBNET, hairpinMode=wanted), container)

    with packet_socket(container, "eth0") as own:
        own.send(frame("02:00:00:00:00:01", "ff:ff:ff:ff:ff:ff"))
        assert arrives(own, wanted) == wanted


@OLD_KEYS
def test_isolated_ports_reach_the_gateway_only(host: Host) -> None:
    conf = network(SUBNET, isGateway=True, portIsolation=True)
    (one, first), (two, second) = (add(host, conf) for _ in range(2))

    assert not reaches(one, two, address(second))
    assert connect(one, host, first["ips"][0]["gateway"]) == address(first)


def test_isolated_port_reaches_ports_that_are_not_isolated(host: Host) -> None:
    one, _ = add(host, network(SUBNET, portIsolation=True))
    two, second = add(host, network(SUBNET))

    assert reaches(one, two, address(second), expected=True)


def send_as(sender: Container, receiver: Container, source: str, *, expected: bool = False) -> bool:
    """Return True if a frame that claims to be from `source` arrives."""
    with packet_socket(sender, "eth0") as outgoing, packet_socket(receiver, "eth0") as incoming:
        outgoing.send(frame(source, receiver.link("eth0")["address"]))
        return arrives(incoming, expected)


def test_mac_spoof_check_drops_frames_from_other_macs(host: Host) -> None:
    conf = network(SUBNET, macspoofchk=True)
    (one, first), (two, second) = (add(host, conf) for _ in range(2))

    assert send_as(one, two, one.link("eth0")["address"], expected=True)
    assert not send_as(one, two, "02:00:00:00:00:99")
    assert not send_as(one, two, two.link("eth0")["address"])
    assert connect(one, two, address(second)) == address(first)


def test_without_mac_spoof_check_any_mac_passes(host: Host) -> None:
    one, two = (add(host, network(SUBNET))[0] for _ in range(2))

    assert send_as(one, two, "02:00:00:00:00:99", expected=True)


def test_mac_spoof_check_stays_when_another_container_is_deleted(host: Host) -> None:
    conf = network(SUBNET, macspoofchk=True)
    (one, _), (two, _), (gone, third) = (add(host, conf) for _ in range(3))
    host.cni("DEL", with_previous_result(conf, third), gone)

    assert not send_as(one, two, "02:00:00:00:00:99")
    assert send_as(one, two, one.link("eth0")["address"], expected=True)


def test_mac_spoof_check_follows_a_requested_mac(host: Host) -> None:
    conf = network(SUBNET, macspoofchk=True)
    one, _ = add(host, conf | {"runtimeConfig": {"mac": "02:00:00:00:00:77"}})
    two, _ = add(host, conf)

    assert send_as(one, two, "02:00:00:00:00:77", expected=True)
    assert not send_as(one, two, "02:00:00:00:00:78")


def test_packets_up_to_the_mtu_pass(host: Host) -> None:
    """A packet that is one byte larger does not."""
    (one, _), (two, second) = (add(host, network(SUBNET, mtu=1400)) for _ in range(2))
    size = 1400 - 20 - 8  # without the headers of IP and UDP
    mtu_discover, do = 10, 2  # IP_MTU_DISCOVER, IP_PMTUDISC_DO

    with one.socket(socket.SOCK_DGRAM) as sender, two.socket(socket.SOCK_DGRAM) as receiver:
        receiver.bind(("", 0))
        sender.setsockopt(socket.IPPROTO_IP, mtu_discover, do)
        there = (address(second), receiver.getsockname()[1])
        sender.sendto(bytes(size), there)
        assert len(receiver.recv(2000)) == size
        with pytest.raises(OSError, match="Message too long"):
            sender.sendto(bytes(size + 1), there)
