# SPDX-License-Identifier: Apache-2.0
"""macvlan: a failed ADD leaves nothing, and DEL succeeds, whatever is gone already."""

import json
from functools import partial
from typing import Any

import pytest

from tests.netns.differences import HOST_NETNS, LEAKS_LINK, OLD_KEYS, RELEASES_EARLY
from tests.support.host.host import Container, Host, Outside
from tests.support.host.sockets import connect
from tests.support.plugins import child_link
from tests.support.plugins.bridge import add, leased
from tests.support.plugins.child_link import FIRST, SUBNET
from tests.support.plugins.cni import CniFailure, with_previous_result

network = partial(child_link.network, "macvlan")
static = partial(child_link.static, "macvlan")

NEEDS_MASTER = pytest.mark.known_difference(
    "DEL fails without the default route or master",
    here="succeeds",
    right="SPEC.md, 2 DEL",
    fixed_in="1.9.1",
)


@pytest.fixture(autouse=True)
def outside(host: Host) -> Outside:
    return host.outside()


def expect_nothing_of(host: Host, container: Container) -> None:
    assert container.links() == {"lo"}
    assert leased(host) == []


# An ADD that fails


UNREACHABLE = {
    "type": "host-local",
    "ranges": [[SUBNET]],
    "routes": [{"dst": "192.0.2.0/24", "gw": "203.0.113.1"}],
}
NAMELESS = pytest.mark.known_difference(
    "the error of a missing master does not name it",
    here="the error names the key and the link",
    right="either",
)

WRONG = [
    pytest.param({"master": "up9"}, "up9", marks=NAMELESS, id="no such master"),
    pytest.param({"master": 5}, "master", id="master is a number"),
    pytest.param({"mode": "bridged"}, "mode", id="no such mode"),
    pytest.param({"mode": 4}, "mode", id="mode is a number"),
    pytest.param({"mtu": 1501}, "master MTU(1500)", id="mtu above the master's"),
    pytest.param({"mtu": -1}, "-1", id="mtu below 0"),
    pytest.param({"mtu": 20}, "", id="mtu that the kernel refuses"),
    pytest.param({"mac": "02:00"}, "02:00", id="mac too short"),
    pytest.param({"mac": "01:00:5e:00:00:01"}, "", id="mac of a group"),
    pytest.param({"bcqueuelen": -1}, "bcqueuelen", marks=OLD_KEYS, id="bcqueuelen below 0"),
    pytest.param({"linkInContainer": "yes"}, "linkInContainer", marks=OLD_KEYS, id="linkInContainer"),
    pytest.param({"linkInContainer": True}, "up0", marks=NAMELESS, id="master is not in the container"),
    pytest.param({"dns": {"nameservers": "192.0.2.1"}}, "nameservers", id="nameservers is a string"),
    pytest.param({"ipam": {"type": "no-such-ipam"}}, "no-such-ipam", marks=LEAKS_LINK, id="no such ipam"),
    pytest.param({"ipam": UNREACHABLE}, "203.0.113.1", marks=LEAKS_LINK, id="route that the kernel refuses"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "named"), WRONG)
def test_add_that_fails_leaves_nothing(
    host: Host, container: Container, keys: dict[str, Any], named: str
) -> None:
    with pytest.raises(CniFailure) as failure:
        host.cni("ADD", network() | keys, container)

    assert named in f"{failure.value.msg} {failure.value.details}"
    expect_nothing_of(host, container)


def test_master_that_is_a_port_of_a_bridge_is_refused(host: Host, container: Container) -> None:
    """The error has a hint, because the kernel's says only that the link is busy."""
    host.run("sh", "-c", "ip link add br0 type bridge; ip link set up0 master br0")
    host.leaves("link br0 *")

    with pytest.raises(CniFailure, match="busy"):
        host.cni("ADD", network(), container)
    expect_nothing_of(host, container)


def test_add_to_a_namespace_that_does_not_exist(host: Host, container: Container) -> None:
    with pytest.raises(CniFailure, match="/run/netns/none"):
        host.cni("ADD", network(), container, CNI_NETNS="/run/netns/none")
    expect_nothing_of(host, container)


@HOST_NETNS
def test_add_to_the_hosts_own_namespace_is_refused(host: Host, container: Container) -> None:
    with pytest.raises(CniFailure) as failure:
        host.cni("ADD", network(), container, CNI_NETNS="/proc/1/ns/net")

    assert failure.value.code == 8
    assert host.links() == {"lo", "up0"} and leased(host) == []


def test_second_add_is_refused_and_leaves_the_first_as_it_was(
    host: Host, container: Container, outside: Outside
) -> None:
    add(host, network(), container)

    with pytest.raises(CniFailure, match="eth0"):
        host.cni("ADD", network(), container)

    assert container.links() == {"lo", "eth0"} and leased(host) == [FIRST]
    assert connect(outside, container, FIRST) == Outside.ADDRESS


def test_interface_of_another_network_stays(host: Host, container: Container) -> None:
    container.run("ip", "link", "add", "eth0", "type", "bridge")
    before = container.link("eth0")

    with pytest.raises(CniFailure, match="eth0"):
        host.cni("ADD", network(), container)

    assert container.link("eth0") == before
    container.run("ip", "link", "del", "eth0")
    expect_nothing_of(host, container)


@pytest.mark.known_difference(
    "an ADD that fails leaves the link and the lease", here="leaves nothing", right="SPEC.md, 4 Delegation"
)
@pytest.mark.parametrize(
    "answer",
    [{"cniVersion": "1.0.0"}, {"cniVersion": "1.0.0", "code": 11, "msg": "busy"}],
    ids=["no address", "refusal"],
)
def test_ipam_plugin_that_fails_gets_a_del(host: Host, container: Container, answer: dict[str, Any]) -> None:
    fake_ipam(host, f"echo '{json.dumps(answer)}'; exit {int('code' in answer)}")

    with pytest.raises(CniFailure) as failure:
        host.cni("ADD", network(ipam={"type": "fake"}), container, CNI_PATH="/run/plugins")

    assert failure.value.code == answer.get("code", 999)
    commands = host.read("/run/asked").split()
    assert commands[0] == "ADD" and commands[-1] == "DEL"
    expect_nothing_of(host, container)


def fake_ipam(host: Host, script: str) -> None:
    host.write("/run/plugins/fake", f"#!/bin/sh\necho $CNI_COMMAND >> /run/asked\n{script}\n", mode=0o755)
    host.leaves("dir /run/plugins", "file /run/plugins/fake", "file /run/asked", "file /run/seen.*")


# The order of link and address


def links_that_ipam_sees(host: Host) -> dict[str, str]:
    """Return, for each operation, the container's links while the IPAM plugin runs."""
    answer = {"cniVersion": "1.0.0", "ips": [{"address": f"{FIRST}/24"}]}
    fake_ipam(host, f"ip -n c1 link > /run/seen.$CNI_COMMAND; echo '{json.dumps(answer)}'")
    conf = network(ipam={"type": "fake"})
    one, result = add(host, conf, CNI_PATH="/run/plugins")
    host.cni("DEL", with_previous_result(conf, result), one, CNI_PATH="/run/plugins")
    return {command: host.read(f"/run/seen.{command}") for command in ("ADD", "DEL")}


def test_link_exists_when_the_address_is_requested(host: Host) -> None:
    """A plugin such as dhcp asks a server on the other side of the link."""
    assert "eth0" in links_that_ipam_sees(host)["ADD"]


@RELEASES_EARLY
def test_address_is_released_after_its_link_is_deleted(host: Host) -> None:
    assert "eth0" not in links_that_ipam_sees(host)["DEL"]


# DEL


def test_del_undoes_all_of_add_and_can_be_repeated(host: Host, container: Container) -> None:
    result = host.cni("ADD", network(), container)

    for _ in range(3):
        assert host.cni("DEL", with_previous_result(network(), result), container) is None
    expect_nothing_of(host, container)


def test_del_without_an_add_succeeds(host: Host, container: Container) -> None:
    host.cni("DEL", network(), container)


@NEEDS_MASTER
@pytest.mark.parametrize("alive", [True, False], ids=["alive", "gone"])
def test_del_needs_no_default_route(host: Host, alive: bool) -> None:
    conf = network(master=None)
    one, result = add(host, conf)
    host.run("sh", "-c", "ip route del default; ip -6 route del default")
    if not alive:
        one.destroy()

    host.cni("DEL", with_previous_result(conf, result), one)

    assert leased(host) == []
    assert not alive or one.links() == {"lo"}


@NEEDS_MASTER
def test_del_after_the_master_has_gone(host: Host) -> None:
    """The kernel deletes the container's link with it."""
    one, _ = add(host, network(master=None))
    host.run("ip", "link", "del", "up0")

    host.cni("DEL", network(master=None), one)

    expect_nothing_of(host, one)


READS_ALL = pytest.mark.known_difference(
    "DEL fails with a configuration that ADD refuses", here="succeeds", right="SPEC.md, 2 DEL"
)


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"mode": "bridged", "mtu": "x"}, marks=READS_ALL, id="values"),
        pytest.param({"mtu": 9000, "master": "up9"}, marks=READS_ALL, id="master"),
        pytest.param({"prevResult": {"ips": [{"address": "x"}], "interfaces": 5}}, id="result"),
        pytest.param({"prevResult": "nothing"}, marks=READS_ALL, id="no result at all"),
    ],
)
def test_del_ignores_keys_that_it_does_not_need(
    host: Host, container: Container, keys: dict[str, Any]
) -> None:
    """The configuration may have been edited since the ADD, or damaged."""
    host.cni("ADD", network(), container)

    host.cni("DEL", network() | keys, container)

    expect_nothing_of(host, container)


@pytest.mark.parametrize("with_result", [True, False], ids=["result", "no result"])
@pytest.mark.parametrize("netns", [None, ""], ids=["path", "no path"])
def test_del_after_the_namespace_has_gone(host: Host, with_result: bool, netns: str | None) -> None:
    one, result = add(host, network())
    one.destroy()

    path = one.path if netns is None else netns
    host.cni("DEL", with_previous_result(network(), result if with_result else None), one, CNI_NETNS=path)

    assert leased(host) == []


def test_del_after_the_link_has_gone(host: Host, container: Container) -> None:
    host.cni("ADD", network(), container)
    container.run("ip", "link", "del", "eth0")

    host.cni("DEL", network(), container)

    expect_nothing_of(host, container)


def test_del_on_layer_2_needs_no_ipam(host: Host, container: Container) -> None:
    host.cni("ADD", network(ipam=None), container)

    host.cni("DEL", network(ipam={}), container)

    expect_nothing_of(host, container)


def test_del_of_one_leaves_the_others(host: Host, outside: Outside) -> None:
    (one, _), (two, _) = (add(host, network()) for _ in range(2))

    host.cni("DEL", network(), one)

    assert leased(host) == ["198.51.100.11"]
    assert connect(outside, two, "198.51.100.11")


@pytest.mark.known_difference(
    "DEL removes any link with the interface's name", here="removes its own only", right="cnihook"
)
def test_del_leaves_a_link_of_another_kind(host: Host, container: Container) -> None:
    """Another program has replaced the plugin's link by it."""
    host.cni("ADD", network(), container)
    container.run("sh", "-c", "ip link del eth0; ip link add eth0 type bridge")

    host.cni("DEL", network(), container)

    assert container.links() == {"lo", "eth0"} and leased(host) == []
    container.run("ip", "link", "del", "eth0")


@pytest.mark.known_difference(
    "DEL removes any link with the interface's name", here="removes its own only", right="cnihook"
)
def test_del_leaves_another_containers_link(host: Host, outside: Outside) -> None:
    """A path that contains a PID may be that of another container's namespace now."""
    (one, _), (two, _) = (add(host, network()) for _ in range(2))

    host.cni("DEL", network(), one, CNI_NETNS=two.path)

    assert connect(outside, two, "198.51.100.11")
    assert leased(host) == ["198.51.100.11"]
    one.run("ip", "link", "del", "eth0")


@pytest.mark.known_difference(
    "DEL leaves a link that the container renamed", here="removes it", right="SPEC.md, 2 DEL"
)
def test_del_finds_a_link_that_the_container_has_renamed(host: Host, container: Container) -> None:
    """The address is not released while it is in use, neither by DEL nor by an ADD before DEL."""
    host.cni("ADD", network(), container)
    container.run("ip", "link", "set", "eth0", "down", "name", "uplink0")
    with pytest.raises(CniFailure, match="exists"):
        host.cni("ADD", network(), container)
    assert container.links() == {"lo", "uplink0"} and leased(host) == [FIRST]

    host.cni("DEL", network(), container)

    expect_nothing_of(host, container)


def test_del_of_a_passthru_restores_the_master(host: Host, container: Container, outside: Outside) -> None:
    mac = host.link("up0")["address"]
    host.cni("ADD", network(mode="passthru"), container)

    host.cni("DEL", network(mode="passthru"), container)

    assert host.link("up0")["address"] == mac and host.link("up0")["promiscuity"] == 0
    assert connect(outside, host, Outside.HOST) == Outside.ADDRESS


@pytest.mark.needs("strace")
@pytest.mark.known_difference(
    "not tested: it makes so many system calls that the test takes minutes",
    here="DEL removes everything, wherever ADD was killed",
    right="either",
    run=False,
)
@pytest.mark.parametrize("taken", [False, True], ids=["name is free", "host has the name"])
def test_del_undoes_an_add_that_was_killed_anywhere(host: Host, container: Container, taken: bool) -> None:
    """Also while the link has the temporary name that it gets if the host has a link of its name."""
    if taken:
        host.run("ip", "link", "add", "eth0", "type", "bridge")
        host.leaves("link eth0 bridge *")
    assert host.implementation
    conf = network()
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": container.name,
        "CNI_NETNS": container.path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/nowhere",
    }
    program = host.implementation.program("macvlan")
    number = 0
    while True:
        number += 1
        inject = f"inject=sendto:signal=KILL:when={number}"
        strace = ("strace", "-qq", "-o", "/dev/null", "-e", "trace=sendto", "-e", inject)
        answer = host.run(*strace, program, input=json.dumps(conf), env=environment, check=False)
        if answer.returncode == 0:
            break
        host.leaves("file /var/lib/cni/networks/net1/lock")
        host.cni("DEL", conf, container)
        expect_nothing_of(host, container)
    assert number > 5
    host.cni("DEL", conf, container)
