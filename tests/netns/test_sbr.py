# SPDX-License-Identifier: Apache-2.0
"""sbr ADD: several networks in one container, each with a default route, and all of them usable.

The leak check after each test finds the rules and the tables that are left.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.netns.differences import OLD_KEYS, SPEC_1_1
from tests.support.host.host import Container, Host
from tests.support.host.sockets import connect, source_seen
from tests.support.plugins import cni
from tests.support.plugins.cni import VERSIONS, CniFailure
from tests.support.plugins.routing import (
    FAR,
    FAR6,
    address,
    all_of,
    attach,
    far_machine,
    network,
    quick,
    routed,
    rules,
    shown,
    subnet,
    table,
)

SBR = {"type": "sbr"}
ECMP = pytest.mark.known_difference(
    "leaves IPv6 routes with two next hops in table main", here="moves them", right="cnihook"
)
PARTS = pytest.mark.known_difference(
    "moved routes lose attributes, or are lost", here="they keep every attribute", right="cnihook"
)
FAILED = pytest.mark.known_difference(
    "an ADD that fails leaves some rules and routes moved", here="restores all of them", right="cnihook"
)


@pytest.fixture
def container(host: Host) -> Container:
    return quick(host)


def static(number: int, *addresses: str, **keys: Any) -> dict[str, Any]:
    """Return a network whose container has these addresses, and the routes that are given as `routes`."""
    routes = keys.pop("routes", [])
    ipam = {"type": "static", "addresses": [{"address": text} for text in addresses], "routes": routes}
    return network(number, ipam=ipam) | keys


# Traffic


@pytest.mark.parametrize(("version", "far"), [(4, FAR), (6, FAR6)])
def test_reply_leaves_by_the_interface_of_the_request(
    host: Host, container: Container, version: int, far: str
) -> None:
    """Two machines have the same address, each behind the router of another network."""
    machines = [far_machine(host, number) for number in (1, 2)]
    attach(host, container, "eth0", network(1, version), SBR)
    attach(host, container, "eth1", network(2, version), SBR)

    for number, machine in enumerate(machines, start=1):
        assert connect(machine, container, address(number, version)) == far


@pytest.mark.parametrize("version", [4, pytest.param(6, marks=ECMP)])
def test_network_without_sbr_keeps_the_default_route(host: Host, container: Container, version: int) -> None:
    """A program that chooses no source address uses the first network, as if it were the only one."""
    first, second = (far_machine(host, number) for number in (1, 2))
    attach(host, container, "eth0", network(1, version))
    before = table(container, "main")
    attach(host, container, "eth1", network(2, version), SBR)

    assert table(container, "main") == before
    far = FAR if version == 4 else FAR6
    assert source_seen(container, first, far) == address(1, version)
    assert connect(second, container, address(2, version)) == far


# Rules, tables, routes


@pytest.mark.parametrize("version", [*VERSIONS[:-1], pytest.param("1.1.0", marks=SPEC_1_1)])
def test_result_is_passed_on_unchanged(host: Host, container: Container, version: str) -> None:
    chain = attach(host, container, "eth0", network(1, version=version))
    before = chain.result

    assert chain.then(SBR).result == before


def test_each_address_has_a_rule_and_a_table(host: Host, container: Container) -> None:
    attach(host, container, "eth0", network(1, 4, 6), SBR)

    own_rules = rules(container)
    assert own_rules.keys() == {address(1), address(1, 6)}
    for version in (4, 6):
        ((own,)) = own_rules[address(1, version)]
        assert int(own) >= 100
        assert table(container, own) >= routed(1, version)
    assert table(container, "main") == set()


def test_table_of_an_address_has_the_routes_of_its_subnet(host: Host, container: Container) -> None:
    """And the routes that belong to no subnet."""
    routes = [
        {"dst": "192.0.2.0/24", "gw": "10.1.0.1"},
        {"dst": "198.51.100.0/24", "gw": "10.1.1.1"},
        {"dst": "203.0.113.0/24"},
    ]
    attach(host, container, "eth0", static(1, "10.1.0.2/24", "10.1.1.2/24", routes=routes), SBR)

    own_rules = rules(container)
    (first,), (second,) = own_rules["10.1.0.2"], own_rules["10.1.1.2"]
    assert table(container, first) == {
        ("10.1.0.0/24", None, "eth0"),
        ("192.0.2.0/24", "10.1.0.1", "eth0"),
        ("203.0.113.0/24", None, "eth0"),
    }
    assert table(container, second) == {
        ("10.1.1.0/24", None, "eth0"),
        ("198.51.100.0/24", "10.1.1.1", "eth0"),
        ("203.0.113.0/24", None, "eth0"),
    }


WHOLE = {
    "10.77.0.0/16 via 10.1.0.1 dev eth0 src 10.1.0.2 metric 50 mtu 1300 advmss 1200": 4,
    "10.77.0.0/16 via 10.9.9.9 dev eth0 onlink": 4,
    "10.77.0.0/16 nexthop via 10.1.0.5 dev eth0 weight 3 nexthop via 10.1.0.6 dev eth0": 4,
    "2001:db8:77::/48 via 2001:db8:1::1 dev eth0 metric 50 mtu 1300 pref high": 6,
    "2001:db8:77::/48 via fe80::1 dev eth0": 6,
}


@pytest.mark.parametrize(
    "route", [pytest.param(key, marks=[] if "metric 50 mtu 1300 adv" in key else [PARTS]) for key in WHOLE]
)
def test_route_is_moved_whole(host: Host, container: Container, route: str) -> None:
    """The route keeps metrics, preferred source and next hops, and works in its table as in main."""
    version = WHOLE[route]
    chain = attach(host, container, "eth0", network(1, 4, 6))
    container.run("ip", f"-{version}", "route", "add", *route.split())
    destination = route.split()[0]
    (before,) = container.ip(f"-{version}", "route", "show", destination)

    chain.then(SBR)

    ((own,)) = rules(container)[address(1, version)]
    (after,) = container.ip(f"-{version}", "route", "show", destination, "table", own)
    assert after == before
    assert not container.ip(f"-{version}", "route", "show", destination)


def test_table_that_a_rule_uses_is_not_taken(host: Host, container: Container) -> None:
    chain = attach(host, container, "eth0", network(1))
    container.run("ip", "rule", "add", "from", "192.0.2.9", "lookup", "100")

    chain.then(SBR)

    assert rules(container)[address(1)] == ["101"]
    container.run("ip", "rule", "del", "from", "192.0.2.9", "lookup", "100")


@pytest.mark.known_difference("takes a table that has routes", here="takes a free one", right="cnihook")
def test_table_that_has_routes_is_not_taken(host: Host, container: Container) -> None:
    """No rule leads to the table yet."""
    chain = attach(host, container, "eth0", network(1))
    container.run("ip", "route", "add", "blackhole", "192.0.2.0/24", "table", "100")

    chain.then(SBR)

    assert rules(container)[address(1)] == ["101"]
    container.run("ip", "route", "del", "blackhole", "192.0.2.0/24", "table", "100")


def test_networks_that_are_added_at_once_have_separate_tables(host: Host, container: Container) -> None:
    chains = [attach(host, container, f"eth{number}", network(number)) for number in range(1, 5)]

    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda chain: chain.then(SBR), chains))

    own_tables = [own for tables in rules(container).values() for own in tables]
    assert len(own_tables) == len(set(own_tables)) == 4
    for number in range(1, 5):
        ((own,)) = rules(container)[address(number)]
        assert table(container, own) == routed(number, ifname=f"eth{number}")


# Keys


@OLD_KEYS
def test_configured_table_gets_rules_only(host: Host, container: Container) -> None:
    chain = attach(host, container, "eth0", network(1, 4, 6))
    before = table(container, "main")

    chain.then(SBR | {"table": 1000})

    assert rules(container) == {address(1): ["1000"], address(1, 6): ["1000"]}
    assert table(container, "1000") == set()
    assert table(container, "main") == before
    chain.check()
    container.run("ip", "rule", "add", "from", address(1), "lookup", "1001")
    chain.delete()
    assert rules(container) == {address(1): ["1001"]}
    container.run("ip", "rule", "del", "from", address(1), "lookup", "1001")


@pytest.mark.known_difference(
    "does not know gateways and addSourceHints; they came after 1.9.1", here="supports them", right="cnihook"
)
def test_configured_gateways_replace_all_others(host: Host, container: Container) -> None:
    """Both those of the addresses and an existing default route: the key is there to choose."""
    gateways = ["10.1.0.254", "2001:db8:1::fe"]
    chain = attach(host, container, "eth0", network(1, 4, 6), SBR | {"gateways": gateways})

    for version, gateway in ((4, gateways[0]), (6, gateways[1])):
        ((own,)) = rules(container)[address(1, version)]
        defaults = {route for route in table(container, own) if route[0] == "default"}
        assert defaults == {("default", gateway, "eth0")}
    chain.check()


@pytest.mark.known_difference(
    "does not know gateways and addSourceHints; they came after 1.9.1", here="supports them", right="cnihook"
)
def test_source_hints_keep_the_subnets_in_main(host: Host, container: Container) -> None:
    """A program that chooses no source address reaches neighbours directly, and from the right address."""
    attach(host, container, "eth0", network(1, 4, 6), SBR | {"addSourceHints": True})

    assert table(container, "main") == {(subnet(1), None, "eth0"), (subnet(1, 6), None, "eth0")}
    sources = {route["dst"]: route.get("prefsrc") for route in shown(container, "route")}
    assert (sources[subnet(1)], sources[subnet(1, 6)]) == (address(1), address(1, 6))
    for version in (4, 6):
        ((own,)) = rules(container)[address(1, version)]
        assert routed(1, version) <= table(container, own)


WRONG = [
    ({"gateways": ["10.1.0.1", "10.1.0.3"]}, "multiple IPv4 addresses: 10.1.0.1 and 10.1.0.3"),
    ({"gateways": ["fd00::1", "fd00::2"]}, "multiple IPv6 addresses: fd00::1 and fd00::2"),
    ({"gateways": ["10.1.0.1", "fd00::1", "fd00::2"]}, "cannot contain more than 2 entries"),
    ({"gateways": ["here"]}, "invalid static gateway IP address: here"),
    ({"gateways": "10.1.0.1"}, "gateways"),
    ({"table": "100"}, "table"),
    ({"table": -1}, "table"),
    ({"addSourceHints": "yes"}, "addSourceHints"),
]


@pytest.mark.known_difference(
    "does not know gateways and addSourceHints; they came after 1.9.1", here="supports them", right="cnihook"
)
@pytest.mark.parametrize(("keys", "message"), WRONG)
def test_wrong_key_is_refused_before_any_change(
    host: Host, container: Container, keys: dict[str, Any], message: str
) -> None:
    chain = attach(host, container, "eth0", network(1))
    before = all_of(container)

    with pytest.raises(CniFailure) as failure:
        chain.then(SBR | keys)

    assert message in failure.value.msg
    assert all_of(container) == before


def test_sbr_must_follow_another_plugin(host: Host, container: Container) -> None:
    with pytest.raises(CniFailure, match="This plugin must be called as chained plugin"):
        attach(host, container, "eth0", network(1) | SBR)


def test_result_without_addresses_is_refused(host: Host, container: Container) -> None:
    chain = attach(host, container, "eth0", network(1, ipam={}))

    with pytest.raises(CniFailure, match="No IP addresses supplied on interface: eth0"):
        chain.then(SBR)


@pytest.mark.known_difference(
    "if the result has no address of the interface, its routes are lost", here="refused", right="cnihook"
)
def test_result_without_addresses_of_the_interface_is_refused(host: Host, container: Container) -> None:
    chain = attach(host, container, "eth0", network(1))
    before = all_of(container)
    for interface in chain.result["interfaces"]:
        interface["name"] = "other"

    with pytest.raises(CniFailure, match="No IP addresses supplied on interface: eth0"):
        chain.then(SBR)

    assert all_of(container) == before
    chain.result = None


@pytest.mark.known_difference("logs each step on stderr", here="prints nothing", right="either")
def test_sbr_prints_nothing_on_stderr(host: Host, container: Container) -> None:
    """Output on stderr is for a plugin that fails."""
    chain = attach(host, container, "eth0", network(1))
    conf = chain.shared | SBR | {"prevResult": chain.result}
    attachment = cni.Attachment(conf, container, "eth0", "sbr", {})
    assert host.implementation

    for command in ("ADD", "DEL"):
        environment = attachment.environment(command, host.implementation.folder)
        program = host.implementation.program("sbr")
        assert host.run(program, input=json.dumps(conf), env=environment).stderr == ""


# A failed ADD


@FAILED
@pytest.mark.parametrize("hints", [False, True])
def test_add_that_fails_changes_nothing(host: Host, container: Container, hints: bool) -> None:
    """The failure is late, when the first address has its table."""
    chain = attach(host, container, "eth0", network(1, 4, 6))
    before = all_of(container)

    with pytest.raises(CniFailure, match="2001:db8:dead::1"):
        chain.then(SBR | {"gateways": ["2001:db8:dead::1"], "addSourceHints": hints})

    assert all_of(container) == before


@FAILED
def test_add_that_fails_at_its_end_moves_routes_back_to_main(host: Host, container: Container) -> None:
    """The last step fails, because an address that does not exist cannot be a source."""
    chain = attach(host, container, "eth0", network(1, 4, 6))
    before = all_of(container)
    true = json.dumps(chain.result)
    chain.result["ips"][1]["address"] = "2001:db8:1::99/64"

    with pytest.raises(CniFailure, match="2001:db8:1::/64"):
        chain.then(SBR | {"addSourceHints": True})

    assert all_of(container) == before
    chain.result = json.loads(true)
