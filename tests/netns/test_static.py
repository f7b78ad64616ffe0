# SPDX-License-Identifier: Apache-2.0
"""static: the addresses that a container gets, and their gateways."""

from typing import Any

import pytest

from tests.netns.differences import NO_STATUS, SPEC_1_1
from tests.support.host.host import Container, Host
from tests.support.plugins.cni import CniFailure, with_previous_result

CONFIGURED = {"address": "10.9.0.5/24", "gateway": "10.9.0.1"}
CONFIGURED6 = {"address": "2001:db8:9::5/64", "gateway": "2001:db8:9::1"}
ASKED = pytest.mark.known_difference(
    "a requested address has no gateway (plugins#654)",
    here="it has the gateway of its subnet",
    right="cnihook",
)
PASSES = pytest.mark.known_difference(
    "CHECK accepts a missing address", here="finds it", right="SPEC.md, 2 CHECK"
)


def network(*addresses: Any, version: str = "1.0.0", **ipam: Any) -> dict[str, Any]:
    """Return a configuration as an interface plugin passes it on.  A string is an address only."""
    items = [{"address": item} if isinstance(item, str) else item for item in addresses]
    ipam = {"type": "static", **({"addresses": items} if items else {}), **ipam}
    return {"cniVersion": version, "name": "net1", "type": "anything", "ipam": ipam}


def request(host: Host, command: str, conf: Any, **env: str) -> Any:
    env = {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1"} | env
    return host.cni(command, conf, None, "eth0", "static", **env)


def ips(host: Host, conf: Any, args: str = "") -> list[Any]:
    addresses: list[Any] = request(host, "ADD", conf, CNI_ARGS=args)["ips"]
    return addresses


def test_result_is_what_the_configuration_says(host: Host) -> None:
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.9.0.9"}]
    dns = {"nameservers": ["192.0.2.53"], "domain": "x.test", "search": ["y.test"], "options": ["ndots:2"]}

    assert request(host, "ADD", network(CONFIGURED, CONFIGURED6, routes=routes, dns=dns)) == {
        "cniVersion": "1.0.0",
        "ips": [CONFIGURED, CONFIGURED6],
        "routes": routes,
        "dns": dns,
    }


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0"])
def test_result_of_0_3_has_the_family_of_each_address(host: Host, version: str) -> None:
    assert request(host, "ADD", network(CONFIGURED, CONFIGURED6, version=version)) == {
        "cniVersion": version,
        "ips": [{"version": "4"} | CONFIGURED, {"version": "6"} | CONFIGURED6],
        "dns": {},
    }


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_result_of_0_2_has_one_address_of_each_family(host: Host, version: str) -> None:
    assert request(host, "ADD", network(CONFIGURED, CONFIGURED6, version=version)) == {
        "cniVersion": version,
        "ip4": {"ip": "10.9.0.5/24", "gateway": "10.9.0.1"},
        "ip6": {"ip": "2001:db8:9::5/64", "gateway": "2001:db8:9::1"},
        "dns": {},
    }


def test_second_address_of_a_family_is_refused_before_0_3(host: Host) -> None:
    """The result has no place for it, so the container would have an address that is not in the result."""
    with pytest.raises(CniFailure, match="0.2.0"):
        request(host, "ADD", network("10.9.0.5/24", "10.8.0.5/24", version="0.2.0"))


@SPEC_1_1
def test_routes_keep_the_keys_of_1_1(host: Host) -> None:
    route = {"dst": "192.0.2.0/24", "mtu": 1400, "advmss": 1360, "priority": 7, "table": 0, "scope": 0}

    assert request(host, "ADD", network(CONFIGURED, version="1.1.0", routes=[route]))["routes"] == [route]


def test_addresses_of_cni_args_are_added_to_the_configured_ones(host: Host) -> None:
    addresses = ips(host, network(CONFIGURED), "IP=10.8.0.7/24,2001:db8:8::7/64")

    assert [ip["address"] for ip in addresses] == ["10.9.0.5/24", "10.8.0.7/24", "2001:db8:8::7/64"]


def test_gateway_of_cni_args_is_for_the_address_in_its_subnet(host: Host) -> None:
    args = "IP=10.8.0.7/24,2001:db8:8::7/64;GATEWAY=2001:db8:8::1,10.8.0.1"

    assert ips(host, network(), args) == [
        {"address": "10.8.0.7/24", "gateway": "10.8.0.1"},
        {"address": "2001:db8:8::7/64", "gateway": "2001:db8:8::1"},
    ]


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({}, id="configured"),
        pytest.param({"args": {"cni": {"ips": ["10.9.0.5/24"]}}}, id="args.cni"),
        pytest.param({"runtimeConfig": {"ips": ["10.9.0.5/24"]}}, id="capability"),
    ],
)
@pytest.mark.parametrize("more", ["", "IP=10.8.0.7/24;"], ids=["alone", "with IP"])
def test_gateway_of_cni_args_is_not_for_addresses_of_other_sources(
    host: Host, keys: dict[str, Any], more: str
) -> None:
    args = f"{more}GATEWAY=10.9.0.254"

    assert ips(host, network("10.9.0.5/24") | keys, args)[0] == {"address": "10.9.0.5/24"}


ARGS = {"args": {"cni": {"ips": ["10.8.0.7/24"]}}}
CAPABILITY = {"runtimeConfig": {"ips": ["10.7.0.7/24", "2001:db8:7::7/64"]}}


@pytest.mark.parametrize(
    ("keys", "args", "addresses"),
    [
        pytest.param(ARGS, "", ["10.8.0.7/24"], id="args.cni before configured"),
        pytest.param(ARGS, "IP=10.6.0.7/24", ["10.8.0.7/24"], id="args.cni before CNI_ARGS"),
        pytest.param(CAPABILITY, "", ["10.7.0.7/24", "2001:db8:7::7/64"], id="capability before configured"),
        pytest.param(
            CAPABILITY | ARGS,
            "IP=10.6.0.7/24",
            ["10.7.0.7/24", "2001:db8:7::7/64"],
            id="capability before all",
        ),
    ],
)
def test_requested_addresses_replace_the_others(
    host: Host, keys: dict[str, Any], args: str, addresses: list[str]
) -> None:
    assert ips(host, network(CONFIGURED) | keys, args) == [{"address": address} for address in addresses]


@ASKED
@pytest.mark.parametrize(
    "keys",
    [{"args": {"cni": {"ips": ["10.9.0.7/24"]}}}, {"runtimeConfig": {"ips": ["10.9.0.7/24"]}}],
    ids=["args.cni", "capability"],
)
def test_requested_address_has_the_gateway_of_its_subnet(host: Host, keys: dict[str, Any]) -> None:
    """Neither kind of request has a place for a gateway, and without one there is no default route."""
    assert ips(host, network(CONFIGURED) | keys) == [{"address": "10.9.0.7/24", "gateway": "10.9.0.1"}]


@ASKED
@pytest.mark.parametrize("asked", ["10.9.0.7/24", "2001:db8:9::7/64"])
def test_gateway_of_cni_args_replaces_the_configured_one(host: Host, asked: str) -> None:
    """An address of CNI_ARGS without GATEWAY has the configured gateway, like any requested address."""
    conf = network(CONFIGURED, CONFIGURED6)
    gateway = asked.rpartition("7/")[0]

    assert ips(host, conf, f"IP={asked}")[-1] == {"address": asked, "gateway": f"{gateway}1"}
    args = f"IP={asked};GATEWAY={gateway}9"
    assert ips(host, conf, args)[-1] == {"address": asked, "gateway": f"{gateway}9"}


@pytest.mark.known_difference(
    "an address that is requested and configured is in the result twice", here="once", right="cnihook"
)
def test_requested_and_configured_address_is_returned_once(host: Host) -> None:
    assert ips(host, network(CONFIGURED), "IP=10.9.0.5/24") == [CONFIGURED]


@pytest.mark.parametrize(
    ("keys", "args", "named"),
    [
        pytest.param({"runtimeConfig": {"ips": ["10.9.0.7"]}}, "", "10.9.0.7", id="capability"),
        pytest.param({"args": {"cni": {"ips": ["10.9.0.7"]}}}, "", "10.9.0.7", id="args.cni"),
        pytest.param({"runtimeConfig": {"ips": [7]}}, "", "ips", id="number"),
        pytest.param({}, "IP=10.9.0.7", "10.9.0.7", id="CNI_ARGS"),
        pytest.param({}, "IP=10.9.0.7/24,nonsense", "nonsense", id="second of CNI_ARGS"),
        pytest.param({}, "IP=10.9.0.7/24;GATEWAY=nonsense", "nonsense", id="gateway"),
        pytest.param({}, "WHATEVER=1", "WHATEVER", id="unknown argument"),
    ],
)
def test_invalid_request_is_refused(host: Host, keys: dict[str, Any], args: str, named: str) -> None:
    with pytest.raises(CniFailure) as failure:
        ips(host, network(CONFIGURED) | keys, args)
    assert named in f"{failure.value.msg} {failure.value.details}"


@pytest.mark.parametrize(
    ("conf", "named"),
    [
        pytest.param(network("10.9.0.5"), "10.9.0.5", id="no prefix"),
        pytest.param(network("10.9.0.5/33"), "10.9.0.5/33", id="prefix too long"),
        pytest.param(network({"address": "10.9.0.5/24", "gateway": "x"}), "x", id="gateway"),
        pytest.param(network(addresses="10.9.0.5/24"), "addresses", id="not a list"),
        pytest.param(network(CONFIGURED, routes=[{"dst": "x"}]), "x", id="route"),
        pytest.param(network(CONFIGURED) | {"ipam": None}, "ipam", id="no ipam"),
    ],
)
def test_invalid_configuration_is_refused(host: Host, conf: Any, named: str) -> None:
    with pytest.raises(CniFailure) as failure:
        request(host, "ADD", conf)
    assert named in f"{failure.value.msg} {failure.value.details}"


def test_keys_are_found_in_any_case_and_null_means_not_set(host: Host) -> None:
    conf = network() | {"runtimeConfig": {"IPs": None}, "args": None}
    conf["IPAM"] = conf.pop("ipam") | {"Addresses": [{"ADDRESS": "10.9.0.5/24", "gateway": None}]}

    assert ips(host, conf) == [{"address": "10.9.0.5/24"}]


def test_unknown_cni_args_can_be_allowed(host: Host) -> None:
    assert ips(host, network(CONFIGURED), "IgnoreUnknown=1;K8S_POD_NAME=web-1") == [CONFIGURED]


def test_del_succeeds_whatever_it_is_given(host: Host) -> None:
    """There is nothing to release, so a configuration that became invalid must not make DEL fail."""
    for conf in (network(CONFIGURED), network(), network("nonsense")):
        for _ in range(2):
            assert request(host, "DEL", conf, CNI_NETNS="") is None


def checked(conf: dict[str, Any], *given: Any) -> dict[str, Any]:
    """Return `conf` as it comes with CHECK, after an ADD that returned these addresses."""
    return with_previous_result(conf, {"cniVersion": conf["cniVersion"], "ips": list(given)})  # type: ignore[no-any-return]


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", pytest.param("1.1.0", marks=SPEC_1_1)])
def test_check_accepts_the_result_of_add(host: Host, version: str) -> None:
    conf = network(CONFIGURED, CONFIGURED6, version=version)
    result = request(host, "ADD", conf)

    assert request(host, "CHECK", with_previous_result(conf, result)) is None


def test_check_accepts_a_gateway_that_the_interface_plugin_chose(host: Host) -> None:
    request(host, "CHECK", checked(network("10.9.0.5/24"), CONFIGURED))


def test_check_finds_another_gateway(host: Host) -> None:
    with pytest.raises(CniFailure, match="10.9.0.5"):
        request(host, "CHECK", checked(network(CONFIGURED), CONFIGURED | {"gateway": "10.9.0.9"}))


@PASSES
def test_check_finds_a_missing_address(host: Host) -> None:
    with pytest.raises(CniFailure, match="10.9.0.5"):
        request(host, "CHECK", checked(network(CONFIGURED, CONFIGURED6), CONFIGURED6))


@PASSES
def test_check_finds_a_missing_requested_address(host: Host) -> None:
    conf = network(CONFIGURED) | {"runtimeConfig": {"ips": ["10.9.0.7/24"]}}

    with pytest.raises(CniFailure, match="10.9.0.7"):
        request(host, "CHECK", checked(conf, CONFIGURED))


def test_check_requires_the_result(host: Host) -> None:
    with pytest.raises(CniFailure, match="prevResult"):
        request(host, "CHECK", network(CONFIGURED))


@SPEC_1_1
def test_gc_and_status_of_a_good_configuration_succeed(host: Host) -> None:
    conf = network(CONFIGURED, version="1.1.0")

    assert request(host, "GC", conf | {"cni.dev/valid-attachments": []}) is None
    assert request(host, "STATUS", conf) is None


@NO_STATUS
def test_status_reports_an_invalid_configuration(host: Host) -> None:
    with pytest.raises(CniFailure, match="nonsense"):
        request(host, "STATUS", network("nonsense", version="1.1.0"))


def test_interface_plugin_sets_the_addresses_of_static(host: Host, container: Container) -> None:
    routes = [{"dst": "0.0.0.0/0"}]
    conf = network(CONFIGURED, CONFIGURED6, routes=routes) | {"type": "bridge"}

    host.cni("ADD", conf, container)

    assert container.addresses("eth0") == ["10.9.0.5/24", "2001:db8:9::5/64"]
    assert ("default", "10.9.0.1", "eth0") in container.routes()
