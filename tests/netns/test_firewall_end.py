# SPDX-License-Identifier: Apache-2.0
"""firewall: DEL, GC and failed ADDs, all of which must leave what belongs to other owners."""

from typing import Any

import pytest

from tests.netns.differences import LEAVES_RULES, NO_GC, NO_STATUS, OLD_KEYS, SPEC_1_1
from tests.support.host.host import Container, Host
from tests.support.plugins import bridge
from tests.support.plugins.cni import CniFailure, with_previous_result
from tests.support.plugins.firewall import (
    NET,
    NET6,
    attach,
    conf,
    drop_forwarded,
    gc_conf,
    leave_to_reference,
    rules,
)

POLICY: dict[str, Any] = {"ingressPolicy": "same-bridge"}


@pytest.fixture(autouse=True)
def dropping(host: Host) -> None:
    """Drop forwarded packets.  With POLICY, the plugin then sets up everything that it can leave behind."""
    drop_forwarded(host)
    leave_to_reference(host)


def state(host: Host) -> tuple[str, ...]:
    """Return everything that the plugin may have set up."""
    tables = host.run("nft", "list", "table", "inet", "cnihook", check=False).stdout
    listed = (host.run(program, "-S").stdout for program in ("iptables", "ip6tables"))
    return (tables, *listed)


@LEAVES_RULES
@pytest.mark.parametrize(
    "keep,env",
    [
        ("prevResult", {}),
        ("", {"CNI_NETNS": ""}),
        ("", {"CNI_NETNS": "/run/netns/gone"}),
    ],
    ids=["prevResult", "neither prevResult nor netns", "netns gone"],
)
def test_del_leaves_nothing_and_can_be_repeated(host: Host, keep: str, env: dict[str, str]) -> None:
    """The owner is all that DEL needs."""
    before = state(host)
    attached = attach(host, NET, NET6, **POLICY)

    for _ in range(2):
        attached.delete(keep=keep, **env)
        assert state(host) == before


@LEAVES_RULES
def test_del_needs_neither_namespace_nor_links(host: Host) -> None:
    before = state(host)
    attached = attach(host, NET, NET6, **POLICY)
    attached.container.destroy()
    host.run("ip", "link", "delete", "cni0")

    attached.delete()

    assert state(host) == before


@pytest.mark.known_difference(
    "DEL fails with a configuration that ADD refuses", here="succeeds", right="SPEC.md, 2 DEL"
)
@pytest.mark.parametrize(
    "keys",
    [{"ingressPolicy": "closed"}, {"backend": "firewalld"}],
    ids=["policy", "firewalld"],
)
def test_del_succeeds_with_a_configuration_that_add_refuses(
    host: Host, container: Container, keys: dict[str, Any]
) -> None:
    """An error would keep the rest of the chain from its DEL."""
    result = {"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.2/24"}]}
    sent = with_previous_result(conf(**keys), result)
    with pytest.raises(CniFailure):
        host.cni("ADD", sent, container)

    host.cni("DEL", sent, container)


@pytest.mark.known_difference(
    "a late DEL removes the rules of the address's next owner", here="leaves them", right="SPEC.md, 2 DEL"
)
def test_late_del_does_not_touch_the_new_owner_of_the_address(host: Host) -> None:
    """The runtime sends DEL late, when the address is leased again."""
    new = attach(host, **POLICY)
    before = state(host)

    host.cni("DEL", new.sent, host.container("late"))

    assert state(host) == before
    new.check()


@LEAVES_RULES
def test_two_interfaces_of_a_container_are_two_owners(host: Host) -> None:
    before = state(host)
    one = attach(host, **POLICY)
    result = host.cni("ADD", bridge.network(NET, isDefaultGateway=False), one.container, "eth1")
    sent = with_previous_result(conf(**POLICY), result)
    host.cni("ADD", sent, one.container, "eth1")

    one.delete()
    host.cni("CHECK", sent, one.container, "eth1")
    host.cni("DEL", sent, one.container, "eth1")

    assert state(host) == before


@LEAVES_RULES
def test_second_add_changes_nothing(host: Host) -> None:
    """A runtime that was killed does not know how far it came."""
    before = state(host)
    one = attach(host, NET, NET6, **POLICY)
    after = state(host)

    host.cni("ADD", one.sent, one.container)
    assert state(host) == after

    one.delete()
    assert state(host) == before


def test_failing_add_leaves_nothing(host: Host) -> None:
    """The last step fails: a base chain has the name, and no rule can jump to it."""
    hook = "{ type filter hook output priority 5 ; }"
    for family in ("ip", "ip6"):
        host.run("nft", f"add chain {family} filter CNI-FORWARD {hook}")
    before = host.nft()

    with pytest.raises(CniFailure):
        attach(host, NET, NET6, **POLICY)

    assert host.nft() == before


@NO_GC
def test_gc_removes_what_is_not_on_the_list(host: Host) -> None:
    """GC removes attachments of this network only."""
    one, two = (attach(host, NET, NET6, version="1.1.0", **POLICY) for _ in range(2))
    other = attach(host, "10.8.0.0/24", link="cni1", name="net2", version="1.1.0", **POLICY)

    host.cni("GC", gc_conf(two), plugin="firewall")

    with pytest.raises(CniFailure, match="not in force"):
        one.check()
    two.check()
    other.check()

    host.cni("GC", gc_conf(), plugin="firewall")
    assert len(rules(host, "CNI-FORWARD")) == 2
    with pytest.raises(CniFailure):
        two.check()
    other.check()


@SPEC_1_1
def test_gc_without_a_list_removes_nothing(host: Host) -> None:
    attach(host, version="1.1.0", **POLICY)
    before = state(host)

    host.cni("GC", conf("1.1.0"), plugin="firewall")

    assert state(host) == before


@NO_STATUS
def test_status(host: Host) -> None:
    host.cni("STATUS", conf("1.1.0"), plugin="firewall")
    with pytest.raises(CniFailure, match="firewalld does not run") as failed:
        host.cni("STATUS", conf("1.1.0", backend="firewalld"), plugin="firewall")
    assert failed.value.code == 50


@pytest.mark.parametrize("policy", ["same-bridge", pytest.param("isolated", marks=OLD_KEYS)])
@pytest.mark.known_difference(
    "DEL ends the policy while the link is up", here="sets the link down first", right="cnihook"
)
def test_link_is_down_before_the_policy_ends(host: Host, policy: str) -> None:
    """Runtimes other than cnihook call DEL of this plugin before that of the bridge plugin."""
    one = attach(host, ingressPolicy=policy)
    one.delete()

    port = next(each for each in one.result["interfaces"] if each["name"].startswith("veth"))
    assert "UP" not in host.link(port["name"])["flags"]
