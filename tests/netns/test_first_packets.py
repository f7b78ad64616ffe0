# SPDX-License-Identifier: Apache-2.0
"""ADD returns when the path carries traffic: a packet that is sent at that moment is not lost.

The kernel activates links and IPv6 addresses some time after the request that sets them.
scripts/first-packets counts the packets that are lost because of this on a busy machine.
"""

from typing import Any

import pytest

from cnihook.fast.address import IPNet
from cnihook.links import ready
from cnihook.linux.rtnl import Rtnl
from tests.support.host.host import ACCEPT_DAD, Container, Host
from tests.support.host.netns_state import NetnsState
from tests.support.host.sockets import connect
from tests.support.plugins import cni
from tests.support.plugins.bridge import add, network
from tests.support.plugins.cni import CniFailure

SUBNET, SUBNET6 = "10.9.0.0/24", "2001:db8:9::/64"
GATEWAY, GATEWAY6 = "10.9.0.1", "2001:db8:9::1"
ROUTED = network(SUBNET, SUBNET6, isGateway=True)


@pytest.fixture
def implementation(implementations: dict[str, cni.Implementation]) -> cni.Implementation:
    """Return the built-in plugins: the reference's lose first packets, how many depends on the load."""
    return implementations["builtin"]


@pytest.fixture
def host(host: Host) -> Host:
    """Return a host that checks its IPv6 addresses for duplicates, as hosts do by default."""
    host.set_sysctl(ACCEPT_DAD, "1")
    return host


def pending(*namespaces: Host | Container) -> list[str]:
    return [line for namespace in namespaces for line in namespace.inside(NetnsState).pending]


def addressed(plugin: str, **keys: Any) -> dict[str, Any]:
    return network(SUBNET, SUBNET6, bridge=None) | {"type": plugin, **keys}


@pytest.mark.parametrize("key", ["", "enabledad", "portIsolation", "ipMasq"])
def test_new_bridge_its_gateway_and_the_interface_are_ready(host: Host, key: str) -> None:
    container, _ = add(host, ROUTED | ({key: True} if key else {}))

    assert not pending(host, container)
    assert connect(container, host, GATEWAY6) and connect(container, host, GATEWAY)


def test_bridge_without_addresses_is_ready(host: Host) -> None:
    container, _ = add(host, network())

    assert not pending(host, container)


def test_both_ends_of_ptp_are_ready(host: Host, container: Container) -> None:
    host.cni("ADD", addressed("ptp"), container)

    assert not pending(host, container)
    assert connect(container, host, GATEWAY6) and connect(container, host, GATEWAY)


def test_macvlan_is_ready(host: Host, container: Container) -> None:
    outside = host.outside()
    host.cni("ADD", addressed("macvlan", master="up0"), container)
    assert not pending(container)

    outside.run("ip", "address", "add", f"{GATEWAY6}/64", "dev", "up0", "nodad")
    assert connect(container, outside, GATEWAY6)


def test_address_without_a_gateway_is_ready(host: Host, container: Container) -> None:
    host.outside()
    ipam = {"type": "static", "addresses": [{"address": "2001:db8:9::7/64"}]}
    host.cni("ADD", addressed("macvlan", master="up0") | {"ipam": ipam}, container)

    assert not pending(container)


def test_tap_has_its_addresses_before_a_program_opens_it(host: Host, container: Container) -> None:
    host.cni("ADD", addressed("tap"), container)

    local = container.ip("-6", "route", "show", "table", "local")
    assert "2001:db8:9::2" in {route["dst"] for route in local}


def test_gateway_on_a_bridge_of_another_program_is_ready(host: Host, container: Container) -> None:
    """On such a bridge the kernel checks for a duplicate, which takes one to two seconds."""
    host.run("ip", *"link add cni0 up type bridge".split())
    host.save_state()
    host.leaves("address cni0 *", "route cni0 *")
    host.cni("ADD", ROUTED, container)

    assert not pending(host, container)


def test_duplicate_of_the_gateway_is_refused(host: Host, container: Container) -> None:
    """A machine with this address is connected to a bridge of another program."""
    other = host.container("other")
    host.run("ip", "-batch", "-", input=f"""\
link add cni0 up type bridge
link add port master cni0 up type veth peer name eth0 netns {other.name}
""")  # fmt: skip
    other.run("ip", "address", "add", f"{GATEWAY6}/64", "dev", "eth0", "nodad")
    other.run("ip", "link", "set", "eth0", "up")
    host.save_state()
    host.leaves("address cni0 *", "route cni0 *")

    with pytest.raises(
        CniFailure, match=f"{GATEWAY6}/64 on cni0: another host on the link has this address"
    ):
        host.cni("ADD", ROUTED, container)


def test_add_does_not_wait_for_a_port_that_spanning_tree_blocks(host: Host, container: Container) -> None:
    """The port is blocked for 30 s by default, as the operator configured it."""
    host.run("ip", *"link add cni0 up type bridge stp_state 1 forward_delay 1500".split())
    host.save_state()
    host.leaves("address cni0 *", "route cni0 *")
    result = host.cni("ADD", ROUTED, container)

    port = host.link(result["interfaces"][1]["name"])
    assert port["linkinfo"]["info_slave_data"]["state"] == "listening"


@pytest.mark.parametrize("kind", ["macvlan", "veth"])
def test_add_does_not_wait_for_addresses_of_a_link_without_carrier(
    host: Host, container: Container, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The IPv6 addresses stay tentative until the link has a carrier, which may never happen."""
    host.run("ip", "link", "add", "dev0", "type", "veth", "peer", "name", "ved0")
    host.run("ip", "link", "set", "dev0", "up")
    if kind == "veth":
        link = "dev0"
    else:
        host.run("ip", "link", "add", "child0", "link", "dev0", "type", kind)
        link = "child0"
    host.run("ip", "address", "add", "2001:db8:9::9/64", "dev", link)
    host.run("ip", "link", "set", link, "up")

    def wait() -> None:
        rtnl = Rtnl()
        ready.wait_for_addresses(rtnl, rtnl.link(link), [IPNet.parse("2001:db8:9::9/64")])

    def sleep(_seconds: float) -> None:
        raise AssertionError("the plugin waits")

    monkeypatch.setattr("time.sleep", sleep)
    host.inside(wait)
    monkeypatch.undo()
    host.run("ip", "link", "delete", "dev0")
