# SPDX-License-Identifier: Apache-2.0
"""conformance.result_schema: faults of a result are found, and correct results are accepted."""

from typing import Any

import pytest

from cnihook.conformance.result_schema import problems
from cnihook.types.result import Result
from cnihook.types.versions import ALL

FULL: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "interfaces": [
        {"name": "veth1", "mac": "02:00:00:00:00:01", "mtu": 1500},
        {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/x", "pciID": "0000:00:1f.6"},
    ],
    "ips": [
        {"interface": 1, "address": "10.1.2.3/24", "gateway": "10.1.2.1"},
        {"interface": 1, "address": "fd00::3/64"},
    ],
    "routes": [
        {"dst": "0.0.0.0/0", "gw": "10.1.2.1", "priority": 5, "table": 0, "scope": 253},
        {"dst": "::/0"},
    ],
    "dns": {"nameservers": ["10.1.2.1"], "search": ["example.org"]},
}


def in_version(version: str) -> dict[str, Any]:
    return Result.from_json(FULL, "1.1.0").to_json(version)


@pytest.mark.parametrize("version", ALL)
def test_result_of_cnihook_is_correct_in_every_version(version: str) -> None:
    """Two independent implementations of the specification have to agree."""
    assert problems(in_version(version), version) == []


def test_full_result_is_correct() -> None:
    assert problems(FULL, "1.1.0") == []
    assert problems({"cniVersion": "1.0.0"}, "1.0.0") == []
    assert problems({"cniVersion": "0.4.0", "dns": {}, "org.example": 1}, "0.4.0") == []


@pytest.mark.parametrize(
    ("version", "change", "word"),
    [
        ("1.0.0", {"cniVersion": "1.1.0"}, "cniVersion is '1.1.0'"),
        ("1.0.0", {"cniVersion": None}, "cniVersion is None"),
        ("1.0.0", {"ips": [{"version": "4", "address": "10.1.2.3/24"}]}, "version, which 1.0.0 does not"),
        ("0.4.0", {"ips": [{"address": "10.1.2.3/24"}]}, "ips[0] has no version"),
        ("0.4.0", {"ips": [{"version": "6", "address": "10.1.2.3/24"}]}, "is not an IPv6 address"),
        ("1.0.0", {"ips": [{"address": "10.1.2.3"}]}, "'10.1.2.3' is not an address with a prefix length"),
        ("1.0.0", {"ips": [{"address": "10.1.2.3/24", "gateway": "10.1.2.1/24"}]}, "ips[0].gateway"),
        ("1.0.0", {"ips": [{"address": "10.1.2.3/24", "interface": "1"}]}, "interface is '1'"),
        ("1.0.0", {"ips": [{"gateway": "10.1.2.1"}]}, "ips[0] has no address"),
        ("1.0.0", {"ips": {"address": "10.1.2.3/24"}}, "ips is not a list"),
        ("1.0.0", {"interfaces": [{"mac": "02:00:00:00:00:01"}]}, "interfaces[0] has no name"),
        ("1.0.0", {"interfaces": [{"name": "x", "mac": "zz"}]}, "mac is 'zz'"),
        ("1.0.0", {"interfaces": [{"name": "x", "mtu": 1500}]}, "mtu, which 1.0.0 does not know"),
        ("1.0.0", {"interfaces": ["x"]}, "interfaces[0] is not an object"),
        ("1.0.0", {"routes": [{"dst": "10.0.0.0/8", "priority": 1}]}, "priority, which 1.0.0"),
        ("1.0.0", {"routes": [{"gw": "10.1.2.1"}]}, "routes[0] has no dst"),
        ("1.0.0", {"dns": {"nameservers": "10.1.2.1"}}, "nameservers is not a list of strings"),
        ("1.0.0", {"ip4": {"ip": "10.1.2.3/24"}}, "ip4 ended with 0.2.0"),
        ("0.2.0", {"ips": []}, "ips came with 0.3.0"),
        ("0.2.0", {"ip4": {"ip": "fd00::3/64"}}, "is not an IPv4 address"),
        ("0.1.0", {"ip4": None, "ip6": None}, "neither ip4 nor ip6"),
    ],
)
def test_fault_is_named(version: str, change: dict[str, Any], word: str) -> None:
    changed = {key: value for key, value in {**in_version(version), **change}.items() if value is not None}

    assert any(word in problem for problem in problems(changed, version)), problems(changed, version)
