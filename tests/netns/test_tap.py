# SPDX-License-Identifier: Apache-2.0
"""tap: an interface whose other end is a program, which here is the test itself."""

import errno
import os
from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.plugins import cni
from tests.support.plugins.cni import CniFailure
from tests.support.plugins.ipam import leased
from tests.support.plugins.tap import IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, TUNSETIFF, arrives, attach

MAC = "02:00:00:00:00:99"
IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]]}
# Attaches as a program of another user, which has the device open as descriptor 3.
ATTACH = f"""/usr/bin/python3 -ISc '
import fcntl, struct
fcntl.ioctl(3, {TUNSETIFF}, struct.pack("16sH22x", b"eth0", {IFF_TAP | IFF_NO_PI}))'"""
IPAM6 = {"type": "host-local", "ranges": [[{"subnet": "2001:db8:9::/64"}]]}


@pytest.fixture
def implementation(implementations: dict[str, cni.Implementation]) -> cni.Implementation:
    """Return the built-in plugins only: plugins 1.1.1 have no tap yet."""
    return implementations["builtin"]


def conf(version: str = "1.0.0", **keys: Any) -> dict[str, Any]:
    return {"cniVersion": version, "name": "net1", "type": "tap", **keys}


def test_frames_pass_both_ways(host: Host, container: Container) -> None:
    """A program reads a frame of the container, and writes a frame that the container answers."""
    result = host.cni("ADD", conf(ipam=IPAM), container)
    address = result["ips"][0]["address"].partition("/")[0]
    mac = result["interfaces"][0]["mac"]

    tun = attach(container)
    try:
        with container.socket(2) as client:  # SOCK_DGRAM
            client.sendto(b"out of the container", ("10.9.0.77", 9))
        assert arrives(tun, lambda data: data[12:14] == b"\x08\x06" and data[38:42] == bytes([10, 9, 0, 77]))

        reply = bytes.fromhex((mac + MAC).replace(":", "")) + b"\x08\x06" + bytes.fromhex("0001080006040001")
        sender = bytes.fromhex(MAC.replace(":", "")) + bytes([10, 9, 0, 77])
        target = bytes(6) + bytes(map(int, address.split(".")))
        os.write(tun, reply + sender + target)  # an ARP request for ADDRESS
        assert arrives(tun, lambda data: data[12:14] == b"\x08\x06" and data[20:22] == b"\x00\x02")
    finally:
        os.close(tun)


def test_result_without_ipam(host: Host, container: Container) -> None:
    result = host.cni("ADD", conf(), container)

    link = container.link("eth0")
    assert result == {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "mac": link["address"], "sandbox": container.path}],
    }
    assert link["linkinfo"]["info_kind"] == "tun" and link["linkinfo"]["info_data"]["type"] == "tap"
    assert "UP" in link["flags"]
    assert host.links() == {"lo"}
    host.cni("CHECK", conf(prevResult=result), container)


def test_addresses_and_routes_are_set(host: Host, container: Container) -> None:
    routes = [{"dst": "0.0.0.0/0"}]
    result = host.cni("ADD", conf(ipam=IPAM | {"routes": routes}), container)

    assert container.addresses("eth0") == ["10.9.0.2/24"]
    assert ("default", "10.9.0.1", "eth0") in container.routes()
    assert container.sysctl("net/ipv4/conf/eth0/arp_notify") == "1"
    assert result["routes"] == routes
    host.cni("CHECK", conf(ipam=IPAM, prevResult=result), container)


def test_ipv6_address_does_not_wait_for_a_carrier(host: Host, container: Container) -> None:
    """Duplicate address detection needs a carrier: without a program at the other end, it never starts."""
    container.set_sysctl("net/ipv6/conf/default/accept_dad", "1")

    host.cni("ADD", conf(ipam=IPAM6), container)

    (address,) = [a for a in container.link("eth0")["addr_info"] if a["scope"] == "global"]
    assert not address.get("tentative")


@pytest.mark.parametrize(
    ("keys", "env", "mac"),
    [
        ({"mac": MAC}, {}, MAC),
        ({"mac": MAC.upper()}, {}, MAC),
        ({"mac": "02:00:00:00:00:01"}, {"CNI_ARGS": f"MAC={MAC}"}, MAC),
        ({"args": {"cni": {"mac": MAC}}}, {"CNI_ARGS": "MAC=02:00:00:00:00:01"}, MAC),
        ({"runtimeConfig": {"mac": MAC}, "args": {"cni": {"mac": "02:00:00:00:00:01"}}}, {}, MAC),
        ({"mac": MAC, "owner": 1000, "group": 1000}, {}, MAC),
    ],
)
def test_mac_address_is_set(
    host: Host, container: Container, keys: dict[str, Any], env: dict[str, str], mac: str
) -> None:
    """The last case is the one in which the reference ignores the address."""
    result = host.cni("ADD", conf(**keys), container, **env)

    assert container.link("eth0")["address"] == mac
    assert result["interfaces"][0]["mac"] == mac
    host.cni("CHECK", conf(**keys, prevResult=result), container, **env)


def test_mtu_is_set(host: Host, container: Container) -> None:
    host.cni("ADD", conf(mtu=9000), container)

    assert container.link("eth0")["mtu"] == 9000


def test_each_program_can_open_its_own_queue(host: Host, container: Container) -> None:
    host.cni("ADD", conf(multiQueue=True), container)

    first = attach(container, IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE)
    second = attach(container, IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE)
    os.close(first)
    os.close(second)


def test_one_queue_is_for_one_program(host: Host, container: Container) -> None:
    host.cni("ADD", conf(), container)

    first = attach(container)
    try:
        with pytest.raises(OSError) as caught:
            attach(container)
        assert caught.value.errno == errno.EBUSY
    finally:
        os.close(first)


@pytest.mark.needs("setpriv")
@pytest.mark.parametrize(
    ("keys", "user", "group", "may"),
    [
        ({"owner": 1000}, 1000, 1, True),
        ({"owner": 1000}, 1001, 1, False),
        ({"group": 1001}, 7, 1001, True),
        ({"group": 1001}, 7, 1000, False),
        ({"owner": 4294967294, "group": 5}, 4294967294, 5, True),
        ({"owner": 0}, 1000, 1000, False),
        ({}, 1000, 1000, True),
    ],
)
def test_owner_and_group_may_attach(
    host: Host, container: Container, keys: dict[str, Any], user: int, group: int, may: bool
) -> None:
    """0 is an owner.  Without owner and group, every user with access to /dev/net/tun may attach."""
    host.cni("ADD", conf(**keys), container)

    program = f"exec 3<>/dev/net/tun; exec setpriv --regid={group} --clear-groups --reuid={user} {ATTACH}"
    assert (container.run("sh", "-c", program, check=False).returncode == 0) == may


def test_tap_may_be_a_port_of_the_containers_bridge(host: Host, container: Container) -> None:
    container.run("ip", "link", "add", "br0", "address", MAC, "type", "bridge")
    container.run("ip", "link", "set", "br0", "up")
    host.save_state()

    result = host.cni("ADD", conf(bridge="br0"), container)

    assert container.link("eth0")["master"] == "br0"
    sent = conf(bridge="br0", prevResult=result)
    host.cni("CHECK", sent, container)
    container.run("ip", "link", "set", "eth0", "nomaster")
    with pytest.raises(CniFailure, match="not a port of bridge br0"):
        host.cni("CHECK", sent, container)


def test_dns_of_ipam_is_kept_unless_the_network_has_its_own(host: Host, container: Container) -> None:
    host.write("/etc/resolv.d", "nameserver 192.0.2.53\n")
    host.save_state()
    own = {"nameservers": ["192.0.2.99"]}
    ipam = IPAM | {"resolvConf": "/etc/resolv.d"}

    assert host.cni("ADD", conf(ipam=ipam), container)["dns"] == {"nameservers": ["192.0.2.53"]}
    host.cni("DEL", conf(ipam=ipam), container)
    assert host.cni("ADD", conf(ipam=ipam, dns=own), container)["dns"] == own


# Configurations that are refused


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mac": "02:00"}, "02:00"),
        ({"mtu": -1}, '"mtu"'),
        ({"owner": -1}, '"owner"'),
        ({"owner": 4294967295}, '"owner"'),
        ({"group": "wheel"}, '"group"'),
        ({"multiQueue": "yes"}, '"multiQueue"'),
        ({"bridge": "absent0"}, "failed to find bridge interface absent0"),
        ({"bridge": "lo"}, "lo in .* is not a bridge"),
        ({"cniVersion": "0.2.0"}, "no valid IP addresses"),
        ({"mtu": 1}, "eth0"),
    ],
)
def test_wrong_configuration_changes_nothing(
    host: Host, container: Container, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(CniFailure, match=message):
        host.cni("ADD", conf(**keys), container)


@pytest.mark.skipif(os.path.exists("/sys/fs/selinux/enforce"), reason="SELinux is enabled")
def test_context_is_refused_without_selinux(host: Host, container: Container) -> None:
    """The plugin does not ignore the key, because a configuration that has it relies on it."""
    with pytest.raises(CniFailure, match='"selinuxContext" is set, and SELinux is not enabled') as caught:
        host.cni("ADD", conf(selinuxContext="system_u:system_r:container_t:s0"), container)

    assert caught.value.code == 7


def test_interface_name_that_the_container_has_already_is_refused(host: Host, container: Container) -> None:
    container.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    host.save_state()

    with pytest.raises(CniFailure, match="eth0 already exists"):
        host.cni("ADD", conf(), container)


@pytest.mark.parametrize(
    "ipam",
    [
        {"type": "host-local", "ranges": []},
        IPAM | {"routes": [{"dst": "192.0.2.0/24", "gw": "203.0.113.1"}]},
    ],
)
def test_failed_add_leaves_nothing(host: Host, container: Container, ipam: Any) -> None:
    with pytest.raises(CniFailure):
        host.cni("ADD", conf(ipam=ipam), container)

    assert container.links() == {"lo"}
    assert leased(host) == []


def test_error_names_the_missing_tun_device(host: Host, container: Container) -> None:
    host.run("busybox", "mount", "-t", "tmpfs", "tmpfs", "/dev/net")

    with pytest.raises(CniFailure, match="there is no /dev/net/tun") as caught:
        host.cni("ADD", conf(), container)

    assert "modprobe tun" in caught.value.details
    host.run("busybox", "umount", "/dev/net")


# DEL


def test_del_succeeds_whatever_is_missing(host: Host) -> None:
    """DEL runs twice; without the namespace's path; after the namespace has gone; after the tap has gone."""
    first, second, third, fourth = (host.container() for _ in range(4))
    for container in (first, second, third, fourth):
        host.cni("ADD", conf(ipam=IPAM), container)

    host.cni("DEL", conf(ipam=IPAM), first)
    host.cni("DEL", conf(ipam=IPAM), first)
    host.cni("DEL", conf(ipam=IPAM), second, CNI_NETNS="")
    second.destroy()
    third.destroy()
    host.cni("DEL", conf(ipam=IPAM), third)
    fourth.run("ip", "link", "del", "eth0")
    host.cni("DEL", conf(ipam=IPAM), fourth)

    assert leased(host) == []


def test_del_removes_a_tap_that_a_program_has_open(host: Host, container: Container) -> None:
    host.cni("ADD", conf(), container)
    tun = attach(container)
    try:
        host.cni("DEL", conf(), container)
        assert container.links() == {"lo"}
    finally:
        os.close(tun)


@pytest.mark.parametrize("link", ["tuntap add eth0 mode tap", "link add eth0 type veth peer name eth1"])
def test_late_del_leaves_what_another_network_has_made(host: Host, container: Container, link: str) -> None:
    container.run("ip", *link.split())
    container.run("ip", "link", "set", "eth0", "alias", "net2 c1 eth0")
    host.save_state()

    host.cni("DEL", conf(), container)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("link del eth0", "does not exist"),
        ("link set eth0 down", "is down|route"),
        ("link set eth0 address 02:00:00:00:00:01", "has MAC 02:00:00:00:00:01"),
        ("link set eth0 mtu 1300", "MTU 1300, not 1400"),
        ("address del 10.9.0.2/24 dev eth0", "does not have address"),
    ],
)
def test_check_finds_what_has_changed(host: Host, container: Container, change: str, message: str) -> None:
    keys: Any = {"ipam": IPAM, "mtu": 1400}
    result = host.cni("ADD", conf(**keys), container)

    container.run("ip", *change.split())

    with pytest.raises(CniFailure, match=message):
        host.cni("CHECK", conf(**keys, prevResult=result), container)


def test_status_and_gc_reach_ipam(host: Host, container: Container) -> None:
    host.cni("ADD", conf("1.1.0", ipam=IPAM), container)

    host.cni("STATUS", conf("1.1.0", ipam=IPAM))
    with pytest.raises(CniFailure, match="mtu"):
        host.cni("STATUS", conf("1.1.0", mtu=-1))
    host.cni("GC", conf("1.1.0", ipam=IPAM) | {"cni.dev/valid-attachments": []})

    assert leased(host) == []
