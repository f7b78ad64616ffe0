# SPDX-License-Identifier: Apache-2.0
"""Policies as they are written: what is accepted, and the error for what is not."""

import json
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnihook.fast.address import Address, IPNet
from cnihook.linux.nft_sets import Count
from cnihook.policy import change, document, matcher, peers, rules
from cnihook.policy.denied import Denied
from cnihook.policy.document import Policy
from cnihook.policy.effective import Layer, Side
from cnihook.policy.endpoint import World
from cnihook.policy.matcher import Connection
from cnihook.policy.rules import Compiled
from cnihook.types.errors import CniError

WEB: dict[str, Any] = {"name": "web", "select": {}, "egress": {"allow": [{"to": ["all"]}]}}


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("none", []),
        ("dns", ["dns"]),
        ("10.0.0.0/8:5432/tcp", ["10.0.0.0/8 on 5432/tcp"]),
        ("10.0.0.1", ["10.0.0.1/32"]),
        ("[2001:db8::/32]:443", ["2001:db8::/32 on 443/tcp, 443/udp"]),
        ("fd00::1", ["fd00::1/128"]),
        ("label:app=db:5432/udp,host:icmp", ["label:app=db on 5432/udp", "host on icmp"]),
        ("container:web-*:80-90/tcp", ["container:web-* on 80-90/tcp"]),
        ("all,!10.0.0.0/8", ["all, !10.0.0.0/8"]),
        ("10.0.0.0/8:80/tcp,!10.9.0.0/16,host", ["10.0.0.0/8, !10.9.0.0/16 on 80/tcp", "host"]),
    ],
)
def test_short_form_lists_peers_and_ports(text: str, listed: list[str]) -> None:
    assert [str(rule) for rule in peers.parse_short(text, "egress")] == listed


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", 'egress is empty; "none" denies all'),
        ("none,dns", 'egress is "none" and something else'),
        ("pypi.org", "egress: 'pypi.org' is not an address or a network; a DNS name is name:pypi.org"),
        ("lable:app=db", "egress: 'lable:app=db' is not"),
        ("hots", "egress: 'hots' is not an address; did you mean host?"),
        ("10.0.0.1/8", "egress: '10.0.0.1/8' has bits behind its prefix; 10.0.0.0/8 is the network"),
        ("10.0.0.0/8:http", "egress: port 'http' is not PORT, PORT-PORT or icmp"),
        (
            "10.0.0.0/8:80/tpc",
            "egress: port '80/tpc' has an unknown protocol 'tpc'; there are tcp, udp, sctp",
        ),
        ("10.0.0.0/8:90-80", "egress: port '90-80' ends before it begins"),
        ("10.0.0.0/8:70000", "egress: port '70000' is not between 1 and 65535"),
        ("!10.0.0.0/8", "egress excepts !10.0.0.0/8 of nothing"),
        ("name:pypi..org:443", "egress: 'name:pypi..org' is not a DNS name"),
        (",".join(["host"] * 300), "egress has more than 256 items"),
    ],
)
def test_error_of_short_form_names_the_item(text: str, problem: str) -> None:
    with pytest.raises(CniError) as error:
        peers.parse_short(text, "egress")

    assert str(error.value).startswith(problem)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change_of", "problem"),
    [
        ({"egres": {}}, 'x: "egres" is not a key of a policy; did you mean egress?'),
        ({"select": None}, 'x: "select" is missing; "select": {} selects every container'),
        ({"name": "Web"}, "x: \"name\" is not the name of a policy: 'Web'"),
        ({"name": "../a"}, "x: \"name\" is not the name of a policy: '../a'"),
        ({"mode": "off"}, "x: \"mode\" must be one of enforce, audit, not 'off'"),
        ({"egress": None}, 'x: "egress" and "ingress" are missing'),
        ({"egress": {"allow": [{"to": []}]}}, "x: egress: allow[0]: egress has a rule without a peer"),
        ({"egress": {"allow": [{"from": ["all"]}]}}, 'x: egress: allow[0]: "from" is not a key of a policy'),
        (
            {"ingress": {"allow": [{"from": ["host"]}]}},
            "x: ingress: allow[0]: ingress: 'host' is for egress only",
        ),
        ({"select": {"labels": {"app": 1}}}, 'x: select: "labels.app" must be a string, not an integer'),
        ({"select": {"networks": ["a b"]}}, "x: select: 'network:a b' is not a peer"),
        ({"tests": [{"from": "a", "to": "b"}]}, 'x: tests[0]: "expect" is missing'),
        (
            {"egress": {"allow": [{"to": ["all"]}] * 257}},
            'x: egress: "allow" has 257 rules; 256 is the most',
        ),
    ],
)
def test_error_of_policy_names_the_key(change_of: dict[str, Any], problem: str) -> None:
    raw = {key: value for key, value in (WEB | change_of).items() if value is not None}
    with pytest.raises(CniError) as error:
        Policy(raw, "x")

    assert str(error.value).startswith(problem)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 99999)
    | st.text(max_size=8)
    | st.sampled_from(["all", "10.0.0.0/8"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["allow", "deny", "to", "from", "ports", "labels", "expect"]), inner
        )
    ),
    max_leaves=4,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(document._KEYS), JSON, max_size=4))
def test_any_object_is_a_policy_or_an_error(raw: dict[str, Any]) -> None:
    try:
        policy = Policy(WEB | raw, "x")
    except CniError as error:
        assert "\n" not in str(error)
    else:
        assert Policy(policy.raw, "x").name == policy.name


@given(st.text(max_size=40))
def test_any_text_is_a_list_or_an_error(text: str) -> None:
    try:
        rules_of_text = peers.parse_short(text, "egress")
    except CniError:
        return
    layer = Layer(rules_of_text, "enforce", "reject", "x")
    side = Side("egress", [], [layer], ["192.0.2.53"])
    assert Side.from_json(json.loads(json.dumps(side.to_json()))).digest == side.digest


NETS = st.lists(st.tuples(st.integers(0, 255), st.integers(24, 32)), max_size=5)


@given(NETS, NETS)
def test_ranges_are_the_named_networks_without_the_excepted(
    named: list[tuple[int, int]], excepted: list[tuple[int, int]]
) -> None:
    nets = [
        [IPNet(Address.parse(f"10.0.0.{low}"), prefix) for low, prefix in each] for each in (named, excepted)
    ]
    ranges = rules.merged(*nets)

    for number in range(256):
        address = Address.parse(f"10.0.0.{number}")
        expected = any(address in net for net in nets[0]) and not any(address in net for net in nets[1])
        assert any(low <= address <= high for low, high in ranges) == expected
    assert all(first[1] < second[0] for first, second in zip(ranges, ranges[1:], strict=False))
    assert all(int(ip_address(bytes(low))) <= int(ip_address(bytes(high))) for low, high in ranges)


@pytest.mark.parametrize(
    ("protocol", "port", "ports"), [(6, 443, "443/tcp"), (1, 0, "icmp"), (47, 0, ""), (17, 0, "")]
)
def test_learned_rule_names_only_what_a_rule_can_name(protocol: int, port: int, ports: str) -> None:
    key = bytes([10, 0, 0, 1, 192, 0, 2, 1, protocol, 0, 0, 0]) + port.to_bytes(2, "big") + bytes(2)
    one = Denied("egress", 4, Count(key, 1, 0))
    assert one.ports == ports
    if ports:
        assert peers.parse_ports(one.ports, "egress")


METADATA, CLOCK = "169.254.169.254", "169.254.169.123"


@pytest.mark.parametrize(
    ("to", "is_deny", "addresses"),
    [
        (["all"], False, set()),
        (["all", CLOCK], False, {CLOCK}),
        (["169.0.0.0/8", CLOCK], False, {CLOCK}),
        (["all", "169.254.0.0/16", f"!{METADATA}"], False, {CLOCK}),
        (["all"], True, {METADATA, CLOCK}),
        (["0.0.0.0/0", f"!{CLOCK}"], True, {METADATA}),
        (["169.0.0.0/8"], True, {METADATA, CLOCK}),
        (["outside"], False, set()),
        (["outside"], True, {METADATA, CLOCK}),
    ],
)
def test_link_local_addresses_are_allowed_by_name_and_denied_without(
    to: list[str], is_deny: bool, addresses: set[str]
) -> None:
    """The credentials of a machine in a cloud are there; the kernel's sets and the matcher agree."""
    rule = peers.make_rule(to, [], "egress")
    layer = Layer([rule], "enforce", "reject", "x")
    side = Side("egress", [layer] if is_deny else [], [] if is_deny else [layer], [])
    compiled = Compiled(side)
    source = Address.parse("10.0.0.1")
    for text in (METADATA, CLOCK):
        address = Address.parse(text)
        connection = Connection(source, address, "tcp", 80)
        is_match = matcher.matches(
            rule, side, address, connection, World([]), to_host=False, is_deny=is_deny
        )
        assert is_match == (text in addresses)
        if "outside" not in to:
            sets = [content for version, content in compiled.sets.values() if version == 4]
            assert any(low <= address <= high for ranges in sets for low, high in ranges) == is_match


KUBERNETES: dict[str, Any] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "proxy"}}}], "ports": [{"port": 80}]},
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.9.0.0/16"]}}]},
        ],
        "egress": [{"ports": [{"protocol": "UDP", "port": 53, "endPort": 54}]}],
    },
}


def test_policy_of_kubernetes_is_translated() -> None:
    (policy,), warnings = change.read("x", json.dumps({"kind": "List", "items": [KUBERNETES]}).encode())

    assert policy.selection.labels == {"app": "web"}
    assert policy.ingress and policy.egress
    assert list(map(str, policy.ingress.allow or ())) == [
        "label:app=proxy on 80/tcp",
        "10.0.0.0/8, !10.9.0.0/16",
    ]
    assert list(map(str, policy.egress.allow or ())) == ["all on 53-54/udp"]
    assert warnings == ["x: the namespace shop is ignored"]


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"podSelector": {"matchExpressions": []}}, "cannot be translated"),
        ({"ingress": [{"from": [{"podSelector": {}}]}]}, "selects every pod"),
        ({"ingress": [{"ports": [{"port": "http"}]}]}, "is not a number"),
    ],
)
def test_policy_of_kubernetes_without_equivalent_is_an_error(spec: dict[str, Any], problem: str) -> None:
    raw = KUBERNETES | {"spec": {"podSelector": {}, "policyTypes": ["Ingress"]} | spec}
    with pytest.raises(CniError, match=problem):
        change.read("x", json.dumps(raw).encode())
