# SPDX-License-Identifier: Apache-2.0
"""tuning: a failed ADD, DEL with parts missing, CHECK, GC, and its place in a chain."""

import json
from typing import Any

import pytest

from tests.netns.differences import NO_GC
from tests.support.host.host import Container, Host
from tests.support.plugins import bridge
from tests.support.plugins.cni import CniFailure, with_previous_result
from tests.support.plugins.tuning import (
    ALL,
    FILE,
    FILES,
    MAC,
    OWN_MAC,
    SOMAXCONN,
    add,
    conf,
    made_by_another,
    state,
    untuned,
)

NO_UNDO = pytest.mark.known_difference(
    "an ADD that fails leaves its changes and its file", here="leaves nothing", right="cnihook"
)


@pytest.fixture
def container(host: Host) -> Container:
    return untuned(host)


# An ADD that fails


@NO_UNDO
@pytest.mark.parametrize(
    "change",
    [
        {"sysctl": {"net.core.somaxconn": "77", "net.ipv4.ip_default_ttl": "nonsense"}},
        {"sysctl": {"net.core.somaxconn": "77"}, "mac": MAC, "mtu": 70000},
        {"mac": "01:00:00:00:00:01", "promisc": True},
    ],
    ids=["sysctl", "mtu", "multicast mac"],
)
def test_add_that_fails_changes_nothing(host: Host, container: Container, change: dict[str, Any]) -> None:
    before = container.sysctl(SOMAXCONN), state(container)

    # The reference begins with any sysctl of its map, one time in eight with the wrong one.
    for _ in range(4):
        with pytest.raises(CniFailure):
            add(host, container, conf(**change))

    assert (container.sysctl(SOMAXCONN), state(container)) == before
    assert not host.exists(FILE)


@NO_UNDO
def test_second_of_a_chain_that_fails_leaves_the_file_of_the_first(host: Host, container: Container) -> None:
    before = state(container)
    add(host, container, conf(mtu=1400))
    with pytest.raises(CniFailure):
        add(host, container, conf(promisc=True, mtu=70000))
    assert state(container) == before | {"mtu": 1400}

    host.delete_attachments()

    assert state(container) == before


# DEL


def test_del_can_be_repeated_and_needs_no_result(host: Host, container: Container) -> None:
    change = conf(**ALL)
    add(host, container, change)

    for _ in range(2):
        host.cni("DEL", change, container)


def test_del_without_an_add_succeeds(host: Host, container: Container) -> None:
    host.cni("DEL", conf(**ALL), container)


@pytest.mark.known_difference(
    "DEL without the link leaves its file", here="removes it", right="SPEC.md, 2 DEL"
)
def test_del_after_the_link_has_gone(host: Host, container: Container) -> None:
    made_by_another(host, container, "eth1")
    sent = add(host, container, conf(**ALL), "eth1")
    container.run("ip", "link", "del", "eth1")

    host.cni("DEL", sent, container, "eth1")

    host.before = host.before.without("in c1: link eth1").without("in c1: link xeth1")
    assert host.listdir(FILES) == []


@pytest.mark.known_difference(
    "DEL without the namespace leaves its file", here="removes it", right="SPEC.md, 2 DEL"
)
@pytest.mark.parametrize("netns", ["/run/netns/c1", ""], ids=["path", "no path"])
def test_del_after_the_namespace_has_gone(host: Host, container: Container, netns: str) -> None:
    sent = add(host, container, conf(**ALL))
    container.destroy()

    host.cni("DEL", sent, container, CNI_NETNS=netns)

    assert host.listdir(FILES) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"mac": "nonsense"}', '{"mac": 1, "sysctl": {"x": 1}}'])
@pytest.mark.known_difference("DEL leaves a damaged file", here="removes it", right="SPEC.md, 2 DEL")
def test_del_succeeds_with_an_unreadable_file(host: Host, container: Container, text: str) -> None:
    host.write(FILE, text)

    host.cni("DEL", conf(), container)

    assert host.listdir(FILES) == []


# CHECK


def test_check_accepts_what_add_made(host: Host, container: Container) -> None:
    sent = add(host, container, conf(**ALL, sysctl={"net.core.somaxconn": "77"}))

    host.cni("CHECK", sent, container)


@pytest.mark.parametrize(
    "sysctl",
    [
        pytest.param({"net.ipv4.tcp_rmem": "4096 131072 4194304"}, id="tabs"),
        pytest.param({"net.ipv4.ip_local_reserved_ports": "8080,8081"}, id="range"),
        pytest.param({"net.ipv6.conf.IFNAME.stable_secret": "2001:db8::1"}, id="address"),
    ],
)
@pytest.mark.known_difference(
    "CHECK compares sysctls as text, and fails if the kernel writes tabs",
    here="compares them as the kernel writes them",
    right="SPEC.md, 2 CHECK",
)
def test_check_accepts_a_setting_as_the_kernel_writes_it(
    host: Host, container: Container, sysctl: dict[str, str]
) -> None:
    sent = add(host, container, conf(sysctl=sysctl))

    host.cni("CHECK", sent, container)


@pytest.mark.known_difference(
    "CHECK fails for a sysctl with IFNAME", here="succeeds", right="SPEC.md, 2 CHECK", fixed_in="1.9.1"
)
def test_check_finds_a_changed_setting_of_the_interface(host: Host, container: Container) -> None:
    sent = add(host, container, conf(sysctl={"net.ipv4.conf.IFNAME.arp_notify": "1"}))
    host.cni("CHECK", sent, container)
    container.set_sysctl("net/ipv4/conf/eth0/arp_notify", "0")

    with pytest.raises(CniFailure, match="eth0/arp_notify"):
        host.cni("CHECK", sent, container)


@pytest.mark.known_difference(
    "CHECK fails for a MAC address in capital letters", here="succeeds", right="SPEC.md, 2 CHECK"
)
def test_check_accepts_a_mac_in_capital_letters(host: Host, container: Container) -> None:
    sent = add(host, container, conf(mac="02:00:00:00:00:AB"))

    host.cni("CHECK", sent, container)


@pytest.mark.known_difference(
    "CHECK requires promiscuous mode to be off if it is not configured",
    here="ignores it",
    right="SPEC.md, 2 CHECK",
)
def test_check_ignores_promiscuous_mode_that_is_not_configured(host: Host, container: Container) -> None:
    """A program in the container may capture packets."""
    sent = add(host, container, conf(mtu=1400))
    container.run("ip", "link", "set", "eth0", "promisc", "on")
    host.cni("CHECK", sent, container)
    container.run("ip", "link", "set", "eth0", "promisc", "off")


@pytest.mark.parametrize(
    "damage",
    [
        f"ip link set eth0 address {OWN_MAC}",
        "ip link set eth0 mtu 1450",
        "ip link set eth0 promisc off",
        "ip link set eth0 allmulticast off",
        f"echo 78 > /proc/sys/{SOMAXCONN}",
        "ip link set eth0 name eth9",
    ],
)
def test_check_finds_damage(host: Host, container: Container, damage: str) -> None:
    sent = add(host, container, conf(**ALL, sysctl={"net.core.somaxconn": "77"}))
    container.run("sh", "-c", damage)

    with pytest.raises(CniFailure):
        host.cni("CHECK", sent, container)

    container.run("sh", "-c", "ip link set eth9 name eth0 2> /dev/null || true")


# GC


@NO_GC
@pytest.mark.parametrize(
    ("network", "keep", "left"),
    [
        ("net1", [], []),
        ("net1", [{"containerID": "c1", "ifname": "eth0"}], ["c1_eth0.json"]),
        ("net1", [{"containerID": "c1", "ifname": "eth1"}], []),
        ("net1", None, ["c1_eth0.json"]),
        ("net2", [], ["c1_eth0.json"]),
    ],
)
def test_gc_removes_files_that_are_not_kept(
    host: Host, container: Container, network: str, keep: Any, left: list[str]
) -> None:
    """GC removes files of its own network only.  The reference's files are in the same folder."""
    add(host, container, conf("1.1.0", mtu=1400))
    host.write(f"{FILES}/c2_eth0.json", json.dumps({"mtu": 1500}))
    host.leaves(f"file {FILES}/c2_eth0.json")
    lists = {} if keep is None else {"cni.dev/valid-attachments": keep}

    host.cni("GC", conf("1.1.0", name=network) | {"name": network} | lists)

    assert host.listdir(FILES) == [*left, "c2_eth0.json"]
    container.run("ip", "link", "set", "eth0", "mtu", "1500")


# In a chain


def test_interface_of_a_bridge_is_tuned(host: Host) -> None:
    container = host.container()
    host.leaves("dir /run/cni", f"dir {FILES}")
    bridged = bridge.network("10.9.0.0/24", isGateway=True)
    _, first = bridge.add(host, bridged, container)
    tuned = conf(mac=MAC, mtu=1400, sysctl={"net.core.somaxconn": "77"})

    result = host.cni("ADD", tuned | {"prevResult": first}, container)

    assert result["interfaces"][2] == {"name": "eth0", "mac": MAC, "sandbox": container.path}
    container.run("ping", "-c1", "-W30", "10.9.0.1")
    for one in (bridged, tuned):
        host.cni("CHECK", with_previous_result(one, result), container)
    for one in (tuned, bridged):
        host.cni("DEL", with_previous_result(one, result), container)
    assert container.links() == {"lo"}
