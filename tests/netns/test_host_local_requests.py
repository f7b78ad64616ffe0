# SPDX-License-Identifier: Apache-2.0
"""host-local: addresses that a container requests."""

from typing import Any

import pytest

from tests.support.host.host import Host
from tests.support.plugins.cni import CniFailure
from tests.support.plugins.ipam import add, leased, network, request


def add_ip46(host: Host, conf: Any) -> list[str]:
    result = request(host, "ADD", conf)
    return [result[key]["ip"].partition("/")[0] for key in ("ip4", "ip6")]


REQUESTS: list[Any] = [
    pytest.param({}, {"CNI_ARGS": "IP=10.9.0.77"}, id="CNI_ARGS"),
    pytest.param(
        {}, {"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.9.0.77"}, id="CNI_ARGS among others"
    ),
    pytest.param({"args": {"cni": {"ips": ["10.9.0.77"]}}}, {}, id="args.cni"),
    pytest.param({"runtimeConfig": {"ips": ["10.9.0.77"]}}, {}, id="runtimeConfig"),
    pytest.param({"runtimeConfig": {"ips": ["10.9.0.77/16"]}}, {}, id="runtimeConfig with a prefix"),
    pytest.param(
        {"runtimeConfig": {"ips": ["10.9.0.77"]}, "args": {"cni": {"ips": ["10.9.0.77"]}}},
        {},
        id="two with the same address",
    ),
]


@pytest.mark.parametrize(("keys", "env"), REQUESTS)
def test_requested_address_is_leased(host: Host, keys: dict[str, Any], env: dict[str, str]) -> None:
    """The address gets the prefix of its subnet, whatever the request says."""
    result = request(host, "ADD", network("10.9.0.0/24") | keys, **env)

    assert result["ips"] == [{"address": "10.9.0.77/24", "gateway": "10.9.0.1"}]


def test_requested_addresses_come_from_their_sets(host: Host) -> None:
    """One address of each set, in the order of the sets.  A set without a request chooses its own."""
    conf = network("10.9.0.0/24", "10.8.0.0/24", "2001:db8::/64")
    conf["runtimeConfig"] = {"ips": ["2001:db8::7", "10.9.0.7"]}

    assert add(host, conf) == ["10.9.0.7", "10.8.0.2", "2001:db8::7"]


def test_requested_address_in_use_is_refused(host: Host) -> None:
    conf = network("10.9.0.0/24") | {"runtimeConfig": {"ips": ["10.9.0.77"]}}
    add(host, conf, "a")

    with pytest.raises(CniFailure, match="10.9.0.77"):
        add(host, conf, "b")


@pytest.mark.known_difference(
    "the error of a refused address names neither its owner nor a free one",
    here="the error names both",
    right="either",
)
def test_error_of_a_refused_address_names_the_reason(host: Host) -> None:
    conf = network("10.9.0.0/24") | {"runtimeConfig": {"ips": ["10.9.0.77"]}}
    add(host, conf, "a")

    with pytest.raises(CniFailure, match="container a has it; if that is gone, `cnihook gc net1`"):
        add(host, conf, "b")
    with pytest.raises(CniFailure, match=r"10\.9\.0\.1-10\.9\.0\.254"):
        add(host, conf | {"runtimeConfig": {"ips": ["10.8.0.1"]}}, "b")


def test_requested_gateway_is_refused(host: Host) -> None:
    conf = network("10.9.0.0/24") | {"runtimeConfig": {"ips": ["10.9.0.1"]}}

    with pytest.raises(CniFailure, match="10.9.0.1"):
        add(host, conf)


def test_requested_address_outside_of_all_ranges_is_refused(host: Host) -> None:
    """The addresses that were leased before the error are free again."""
    conf = network("10.9.0.0/24", "10.8.0.0/24") | {"runtimeConfig": {"ips": ["10.9.0.5", "192.0.2.1"]}}

    with pytest.raises(CniFailure, match="192.0.2.1"):
        add(host, conf)
    assert leased(host) == []


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ("IP=10.9.0.300", "10.9.0.300"),
        ("IP=nonsense", "nonsense"),
        ("UNKNOWN=1", "UNKNOWN"),
        ("IP", "IP"),
    ],
)
def test_invalid_cni_args_are_refused(host: Host, args: str, named: str) -> None:
    with pytest.raises(CniFailure, match=named):
        add(host, network("10.9.0.0/24"), CNI_ARGS=args)
    assert leased(host) == []
