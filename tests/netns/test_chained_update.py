# SPDX-License-Identifier: Apache-2.0
"""firewall and sbr: another configuration while the container runs, with what an ADD with it would give."""

import copy
import json
from typing import Any

import pytest

from tests.support.host.host import Host, Outside
from tests.support.host.sockets import connect, reaches
from tests.support.plugins.cni import Implementation, with_previous_result
from tests.support.plugins.firewall import Attached, attach, conf, publish, routed_outside
from tests.support.plugins.routing import all_of, network, quick
from tests.support.plugins.routing import attach as attach_chain
from tests.support.plugins.update import update

SBR = {"type": "sbr"}
SBR_KEYS: tuple[dict[str, Any], ...] = (
    {},
    {"gateways": ["10.1.0.9", "2001:db8:1::9"]},
    {"addSourceHints": True},
    {"table": 500},
)


@pytest.fixture
def implementation(implementations: dict[str, Implementation]) -> Implementation:
    """Return the built-in plugin: the reference cannot change anything."""
    return implementations["builtin"]


def changed(one: Attached, **keys: Any) -> None:
    """Change the plugin's keys; CHECK agrees, and the same change again does nothing."""
    before = one.sent
    for _ in range(2):
        one.sent = update(one.host, one.container, conf(**keys), before)
        before = one.sent
    one.check()


def test_policies_of_a_bridge_change(host: Host) -> None:
    host.run("sh", "-c", "for f in /proc/sys/net/bridge/bridge-nf-call-*; do echo 0 > $f; done")
    outside = routed_outside(host)
    one, two = attach(host), attach(host)
    publish(host, 8080, one.address())

    def between(*, expected: bool) -> bool:
        return reaches(one.container, two.container, two.address(), expected=expected)

    assert between(expected=True)
    for each in (one, two):
        changed(each, ingressPolicy="isolated")
    assert not between(expected=False)
    for each in (one, two):
        changed(each, forwardPolicy="published")
    assert between(expected=True)
    assert connect(outside, one.container, Outside.HOST, port=8080) == Outside.ADDRESS
    assert not reaches(outside, one.container, one.address(), expected=False)
    for each in (one, two):
        changed(each)
    assert reaches(outside, one.container, one.address(), expected=True)
    assert "forward" not in host.run("nft", "list", "ruleset").stdout.replace("hook forward", "")


def test_sbr_changes_to_what_an_add_gives(host: Host) -> None:
    """Routes and rules are those of a new container, after a change from each configuration to another."""
    addresses = [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}]
    addresses.append({"address": "2001:db8:1::2/64", "gateway": "2001:db8:1::1"})
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.0.7"}]
    first = network(1, ipam={"type": "static", "addresses": addresses, "routes": routes})
    expected = []
    for keys in SBR_KEYS:
        new = quick(host)
        chain = attach_chain(host, new, "eth0", first, SBR | keys)
        expected.append(all_of(new))
        chain.delete()
    container = quick(host)
    chain = attach_chain(host, container, "eth0", first, SBR)
    result = copy.deepcopy(chain.result)
    sent = with_previous_result(chain.shared | SBR, result)
    for number in (1, 2, 3, 1, 0, 2, 0, 3, 0):
        sent = update(host, container, chain.shared | SBR | SBR_KEYS[number], sent)
        assert sorted(map(json.dumps, all_of(container))) == sorted(map(json.dumps, expected[number])), (
            number
        )
        host.cni("CHECK", sent, container)
    chain.delete()
