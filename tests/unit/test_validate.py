# SPDX-License-Identifier: Apache-2.0
"""cnihook validate: no valid key of a plugin is reported as misspelled."""

import json
from pathlib import Path
from typing import Any

import pytest

from cnihook.cli import validate

IPAM: dict[str, Any] = {
    "type": "host-local", "subnet": "10.1.0.0/24", "rangeStart": "10.1.0.5", "rangeEnd": "10.1.0.9",
    "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1400, "advmss": 1360}],
    "ranges": [[{"subnet": "10.2.0.0/24", "rangeStart": "10.2.0.5", "rangeEnd": "10.2.0.9"}]],
    "resolvConf": "/etc/resolv.conf", "dataDir": "/run/leases",
}  # fmt: skip
SUB = {"master": "eth0", "mtu": 1400, "linkInContainer": False, "ipam": IPAM}
KEYS: dict[str, dict[str, Any]] = {
    "bridge": {
        "bridge": "br0", "isGateway": True, "isDefaultGateway": True, "forceAddress": True, "ipMasq": True,
        "ipMasqBackend": "nftables", "mtu": 1400, "hairpinMode": True, "promiscMode": False, "vlan": 5,
        "ipMasqSubnets": ["10.0.0.0/8"],
        "vlanTrunk": [{"minID": 1, "maxID": 9}, {"id": 12}], "preserveDefaultVlan": False,
        "macspoofchk": True, "enabledad": True, "disableContainerInterface": False, "portIsolation": True,
        "ipam": IPAM, "dns": {"nameservers": ["10.0.0.1"], "domain": "x", "search": ["y"], "options": ["z"]},
    },
    "ptp": {"ipMasq": True, "ipMasqBackend": "iptables", "mtu": 1400, "ipam": IPAM},
    "macvlan": {**SUB, "mode": "bridge", "mac": "02:00:00:00:00:09", "bcqueuelen": 5},
    "ipvlan": {**SUB, "mode": "l2"},
    "vlan": {**SUB, "vlanId": 5},
    "host-device": {"device": "eth1", "hwaddr": "02:00:00:00:00:09", "kernelpath": "/x", "ipam": IPAM},
    "tap": {
        "multiQueue": True, "owner": 1, "group": 1, "selinuxContext": "", "mtu": 1400, "bridge": "br0",
        "mac": "02:00:00:00:00:09", "ipam": IPAM,
    },
    "portmap": {
        "snat": True, "masqAll": True, "markMasqBit": 13, "externalSetMarkChain": "X", "backend": "nftables",
        "conditionsV4": ["ip saddr 10.0.0.0/8"], "conditionsV6": ["ip6 saddr fd00::/8"],
    },
    "firewall": {
        "backend": "iptables", "iptablesAdminChainName": "X", "firewalldZone": "trusted",
        "ingressPolicy": "same-bridge",
    },
    "bandwidth": {
        "ingressRate": 80000, "ingressBurst": 8000, "egressRate": 80000, "egressBurst": 8000,
        "unshapedSubnets": ["10.0.0.0/8"], "shapedSubnets": [],
    },
    "tuning": {
        "sysctl": {"net.core.somaxconn": "500"}, "mac": "02:00:00:00:00:09", "mtu": 1400, "promisc": True,
        "allmulti": True, "txQLen": 100, "dataDir": "/run/t",
    },
    "sbr": {"table": 100, "addSourceHints": True, "gateways": ["10.1.0.1"]},
    "vrf": {"vrfname": "red", "table": 100},
}  # fmt: skip


@pytest.mark.parametrize("plugin", KEYS)
def test_each_key_of_a_plugin_is_known_alone(tmp_path: Path, plugin: str) -> None:
    path = tmp_path / "10-x.conf"
    keys = KEYS[plugin]
    for names in ([], *([name] for name in keys), list(keys)):
        own = {name: keys[name] for name in names}
        path.write_text(json.dumps({"cniVersion": "1.1.0", "name": "x", "type": plugin, **own}))
        for problem in validate.problems_of(str(path), None):
            assert "not read" not in problem["problem"], (own, problem)


def problems(path: Path, text: str) -> list[str]:
    path.write_text(text)
    return [
        problem["problem"].removeprefix(f"{path}: ") for problem in validate.problems_of(str(path), None)
    ]


ONCE_MORE = "is there more than once"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            '{"cniVersion":"1.0.0","name":"a","name":"b","type":"bridge","mtu":1,"mtu":1}',
            [f'"name" {ONCE_MORE}', f'"mtu" {ONCE_MORE}'],
            id="plugin",
        ),
        pytest.param(
            '{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"loopback"}],"plugins":[{"type":"dummy",'
            '"ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/24","subnet":"10.1.0.0/24"}]]}}]}',
            [f'"plugins" {ONCE_MORE}', f'plugins[0]: ipam: ranges[0][0]: "subnet" {ONCE_MORE}'],
            id="list",
        ),
        pytest.param(
            '{"cniVersion":"1.0.0","name":"a","type":"tuning","sysctl":'
            '{"net.core.somaxconn":"1","net.core.somaxconn":"2"}}',
            [f'sysctl: "net.core.somaxconn" {ONCE_MORE}'],
            id="tuning",
        ),
        pytest.param(
            '{"cniVersion":"1.0.0","name":"a","type":"bridge","args":{"x":{"y":1,"y":2}},"x":{"y":1,"y":2}}',
            [f'args: x: "y" {ONCE_MORE}', f'x: "y" {ONCE_MORE}'],
            id="unknown key",
        ),
        pytest.param(
            '{"cniVersion":"1.0.0","name":"a","type":"loopback","cnihook":{"annotations":false},"cnihook":{}}',
            [f'"cnihook" {ONCE_MORE}'],
            id="cnihook",
        ),
        pytest.param(
            '{"cniVersion":"1.0.0","name":"a","type":"bridge","isGateway":true,"isgateway":false}',
            ['(bridge): "isgateway" is isGateway once more'],
            id="case",
        ),
        pytest.param(
            '{"annotations":{"allow":["ip"],"allow":[]}}', [f'annotations: "allow" {ONCE_MORE}'], id="bounds"
        ),
    ],
)
def test_duplicate_key_is_reported_once(tmp_path: Path, text: str, expected: list[str]) -> None:
    reported = problems(tmp_path / "10-x.conf", text)

    assert [problem.removeprefix(f"{tmp_path}/10-x.conf ") for problem in reported] == expected


def ipam(**keys: Any) -> dict[str, Any]:
    return {"type": "bridge", "ipam": {"type": "host-local", **keys}}


RANGE = {"subnet": "10.7.0.0/24"}
A_LIST = "must be a list of ranges, not"
VERSION = 'incompatible CNI versions: "{}" is not a version of the specification'


@pytest.mark.parametrize(
    ("plugins", "expected"),
    [
        ([ipam(ranges=[RANGE])], [f'ipam: "ranges[0]" {A_LIST} an object']),
        ([ipam(ranges=[[RANGE], "x"])], [f'ipam: "ranges[1]" {A_LIST} a string']),
        ([ipam(ranges=RANGE)], ['ipam: "ranges" must be a list, not an object']),
        ([ipam(ranges=[[RANGE, "x"]])], ['ipam: "ranges[0][1]" must be an object, not a string']),
        ([ipam(ranges=[[RANGE], []])], ['ipam: "ranges[1]" is an empty range set']),
        ([ipam(subnet="10.8.0.0/24", ranges=[[RANGE], [{"subnet": 7}]])],
         ['ipam: ranges[1][0]: "subnet" must be a string, not an integer']),
        ([ipam(subnet="10.7.0.0/24", ranges=[[RANGE]])],
         ["ipam: ranges[0]: range set 1 overlaps with 0, which is subnet"]),
        ([ipam(ranges=[[RANGE, RANGE]])],
         ["ipam: ranges[0]: invalid range set 0: subnets 10.7.0.0/24 and 10.7.0.0/24 overlap"]),
        ([ipam(**RANGE, rangeStart="10.7.0.9", rangeEnd="10.7.0.3")],
         ['ipam: "rangeEnd" is wrong: RangeEnd 10.7.0.3 is before RangeStart 10.7.0.9']),
        ([ipam(subnet="10.7.0")],
         ['ipam: "subnet" is wrong: \'10.7.0\' is not an address in CIDR notation']),
        ([ipam(**RANGE, routes=[{"dst": 5}])], ['ipam: routes[0]: "dst" must be a string, not an integer']),
        ([ipam()], ['ipam: "subnet" is missing: no IP ranges specified']),
        ([{"type": "bridge", "mtu": "x", "vlan": "y"}],
         ['"mtu" must be an integer, not a string', '"vlan" must be an integer, not a string']),
        ([{"type": "bridge", "ipam": {"type": "static", "addresses": [{"address": "10.1.0.2"}]}}],
         ['ipam: addresses[0]: "address" is wrong: \'10.1.0.2\' is not an address in CIDR notation']),
    ],
)  # fmt: skip
def test_problem_is_reported_once_with_its_place(
    tmp_path: Path, plugins: list[dict[str, Any]], expected: list[str]
) -> None:
    """A key is not reported as missing if it is present but malformed."""
    text = json.dumps({"cniVersion": "1.0.0", "name": "a", "plugins": plugins})

    reported = problems(tmp_path / "10-x.conflist", text)
    assert [problem.removeprefix("plugins[0] (bridge): ") for problem in reported] == expected


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        ("9.9.9", f"is wrong: {VERSION.format('9.9.9')}"),
        ("1.0", f"is wrong: {VERSION.format('1.0')}"),
        ("x", f"is wrong: {VERSION.format('x')}"),
        (1, "must be a string, not an integer"),
    ],
)
def test_version_that_does_not_exist_is_reported_once(tmp_path: Path, version: Any, problem: str) -> None:
    """The number of plugins has no effect, and the plugins are still checked."""
    single = {"cniVersion": version, "name": "a", **ipam(**RANGE)}
    path = tmp_path / "10-x.conf"
    assert problems(path, json.dumps(single)) == [f'"cniVersion" {problem}']

    plugins = [ipam(**RANGE), {"type": "portmap"}, {"type": "bridge", "mtu": "x"}]
    first, *others = problems(path, json.dumps({"cniVersion": version, "name": "a", "plugins": plugins}))
    assert first == f'"cniVersion" {problem}'
    assert others == ['plugins[2] (bridge): "mtu" must be an integer, not a string']


def test_version_that_a_plugin_does_not_support_is_a_problem_of_that_plugin(tmp_path: Path) -> None:
    plugins = [ipam(**RANGE), {"type": "firewall"}]
    text = json.dumps({"cniVersion": "0.3.1", "name": "a", "plugins": plugins})

    assert problems(tmp_path / "10-x.conflist", text) == ["plugins[1] (firewall): incompatible CNI versions"]


def test_keys_that_only_differ_in_case_may_be_two_settings(tmp_path: Path) -> None:
    """Such an object has names as keys, for example sysctl and args."""
    keys = '"sysctl":{"net.ipv4.conf.a.forwarding":"1","net.ipv4.conf.A.forwarding":"1"}'
    text = f'{{"cniVersion":"1.0.0","name":"a","type":"tuning",{keys}}}'

    assert problems(tmp_path / "10-x.conf", text) == []


GATEWAY = "is wrong: {} is not of the IP version of {}"


@pytest.mark.parametrize(
    ("plugin", "expected"),
    [
        ({"type": "bridge", "ipam": {"subnet": "10.7.0.0/24"}}, ['ipam: "type" is missing']),
        ({"type": "bridge", "ipam": {}}, []),
        ({"type": "portmap", "ipam": {"subnet": "10.7.0.0/24"}}, []),
        ({"type": "bridge", "vlanTrunk": [{"id": 5}, {}]}, ['"vlanTrunk[1]" has none of its keys']),
        ({"type": "bridge", "vlanTrunk": [{"colour": 5}]}, ['"vlanTrunk[0]" has none of its keys']),
        (ipam(**RANGE, gateway="fd00::1"),
         [f'ipam: "gateway" {GATEWAY.format("fd00::1", "subnet, 10.7.0.0/24")}']),
        (ipam(**RANGE, gateway="10.9.9.9"), []),
        (ipam(ranges=[[{"subnet": "fd00:7::/64", "gateway": "10.7.0.1"}]]),
         [f'ipam: ranges[0][0]: "gateway" {GATEWAY.format("10.7.0.1", "subnet, fd00:7::/64")}']),
        ({"type": "bridge", "ipam": {"type": "static", "addresses": [
            {"address": "10.7.0.5/24", "gateway": "10.7.0.1"},
            {"address": "fd00:7::5/64", "gateway": "10.7.0.1"}]}},
         [f'ipam: addresses[1]: "gateway" {GATEWAY.format("10.7.0.1", "address, fd00:7::5/64")}']),
    ],
)  # fmt: skip
def test_what_has_no_effect_or_contradicts_is_reported(
    tmp_path: Path, plugin: dict[str, Any], expected: list[str]
) -> None:
    """ADD accepts such keys, as the reference does, so only validate can report them."""
    text = json.dumps({"cniVersion": "1.0.0", "name": "a", "plugins": [plugin]})

    reported = problems(tmp_path / "10-x.conflist", text)
    assert [problem.removeprefix("plugins[0] (bridge): ") for problem in reported] == expected


def test_misspelled_key_is_reported_beside_another_problem(tmp_path: Path) -> None:
    """A wrong value does not hide it, nor does an option that excludes another."""
    text = json.dumps({
        "cniVersion": "1.0.0", "name": "a", "type": "bridge", "isGatway": True, "hairpinMode": True,
        "promiscMode": True,
    })  # fmt: skip

    first, second = problems(tmp_path / "10-x.conf", text)
    assert "hairpin mode and promiscuous mode" in first
    assert second.endswith('"isGatway" is a key that is not read')
