# SPDX-License-Identifier: Apache-2.0
"""host-local: the address that an ADD leases, and when it is free again."""

import json
from typing import Any

import pytest

from tests.netns.differences import SPEC_1_1
from tests.netns.test_host_local_requests import add_ip46
from tests.support.host.host import Host
from tests.support.plugins import cni
from tests.support.plugins.cni import CniFailure
from tests.support.plugins.ipam import LEASES, OWNERS, add, delete, leased, network, request


def fill(host: Host, conf: Any, count: int) -> list[str]:
    return [address for number in range(count) for address in add(host, conf, f"fill{number}")]


def test_result_holds_address_gateway_and_routes(host: Host) -> None:
    """The result has all that an interface plugin needs.  That plugin adds the interface itself."""
    conf = network("10.9.0.0/24", routes=[{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.9.0.9"}])

    assert request(host, "ADD", conf) == {
        "cniVersion": "1.0.0",
        "ips": [{"address": "10.9.0.2/24", "gateway": "10.9.0.1"}],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.9.0.9"}],
    }


@pytest.mark.parametrize(
    ("version", "result"),
    [
        pytest.param(
            "1.1.0",
            {"ips": [{"address": "10.9.0.2/24", "gateway": "10.9.0.1"}], "routes": [{"dst": "0.0.0.0/0"}]},
            marks=SPEC_1_1,
        ),
        *(
            (
                version,
                {
                    "ips": [{"version": "4", "address": "10.9.0.2/24", "gateway": "10.9.0.1"}],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dns": {},
                },
            )
            for version in ("0.4.0", "0.3.1", "0.3.0")
        ),
        *(
            (
                version,
                {
                    "ip4": {"ip": "10.9.0.2/24", "gateway": "10.9.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
                    "dns": {},
                },
            )
            for version in ("0.2.0", "0.1.0")
        ),
    ],
)
def test_result_has_the_shape_of_its_version(host: Host, version: str, result: dict[str, Any]) -> None:
    conf = network("10.9.0.0/24", version=version, routes=[{"dst": "0.0.0.0/0"}])

    assert request(host, "ADD", conf) == {"cniVersion": version} | result


@SPEC_1_1
def test_routes_keep_the_keys_of_1_1(host: Host) -> None:
    route = {"dst": "192.0.2.0/24", "mtu": 1400, "advmss": 1360, "priority": 7, "table": 0, "scope": 0}

    assert request(host, "ADD", network("10.9.0.0/24", version="1.1.0", routes=[route]))["routes"] == [route]


def test_addresses_are_leased_in_order(host: Host) -> None:
    """The first address is the gateway's and is never leased."""
    assert fill(host, network("10.9.0.0/24"), 3) == ["10.9.0.2", "10.9.0.3", "10.9.0.4"]


def test_freed_address_is_not_leased_again_at_once(host: Host) -> None:
    """Neighbours may still have its old owner's MAC address in their tables."""
    conf = network("10.9.0.0/24")
    fill(host, conf, 2)
    delete(host, conf, "fill1")

    assert add(host, conf) == ["10.9.0.4"]


def test_search_starts_again_at_the_beginning(host: Host) -> None:
    conf = network("10.9.0.0/29")  # .2 to .6
    fill(host, conf, 5)
    delete(host, conf, "fill1")

    assert add(host, conf) == ["10.9.0.3"]


def test_only_address_of_a_range_may_be_leased_again_at_once(host: Host) -> None:
    """One container after the other can use a range of one address."""
    conf = network("10.9.0.0/30")

    assert add(host, conf, "a") == ["10.9.0.2"]
    delete(host, conf, "a")
    assert add(host, conf, "b") == ["10.9.0.2"]


def test_only_free_address_of_a_large_range_is_found(host: Host) -> None:
    """After some leased addresses in a row, this plugin lists the others."""
    for number in range(1 << 10):
        address = f"10.9.{number >> 8}.{number & 255}"
        if address != "10.9.2.7":
            host.write(f"{LEASES}/{address}", "fill\r\neth0")
    host.write(f"{LEASES}/last_reserved_ip.0", "10.9.2.9")

    assert add(host, network("10.9.0.0/22")) == ["10.9.2.7"]
    with pytest.raises(CniFailure, match="no IP addresses available"):
        add(host, network("10.9.0.0/22"), "c2")
    host.leaves(f"file {LEASES}/*", *OWNERS)


def test_error_names_the_exhausted_range(host: Host) -> None:
    conf = network("10.9.0.0/30")
    add(host, conf, "a")

    with pytest.raises(CniFailure, match=r"10\.9\.0\.1-10\.9\.0\.2"):
        add(host, conf, "b")


def test_start_and_end_are_part_of_the_range(host: Host) -> None:
    conf = network({"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.20", "rangeEnd": "10.9.0.21"})

    assert fill(host, conf, 2) == ["10.9.0.20", "10.9.0.21"]
    with pytest.raises(CniFailure):
        add(host, conf)


def test_gateway_elsewhere_frees_the_first_address(host: Host) -> None:
    result = request(host, "ADD", network({"subnet": "10.9.0.0/24", "gateway": "10.9.0.254"}))

    assert result["ips"] == [{"address": "10.9.0.1/24", "gateway": "10.9.0.254"}]


def test_gateway_within_the_range_is_skipped(host: Host) -> None:
    conf = network({"subnet": "10.9.0.0/29", "gateway": "10.9.0.3"})

    assert fill(host, conf, 5) == ["10.9.0.1", "10.9.0.2", "10.9.0.4", "10.9.0.5", "10.9.0.6"]


def test_gateway_may_be_outside_of_the_subnet(host: Host) -> None:
    result = request(host, "ADD", network({"subnet": "10.9.0.0/24", "gateway": "10.1.1.1"}))

    assert result["ips"] == [{"address": "10.9.0.1/24", "gateway": "10.1.1.1"}]


def test_network_address_is_leased_only_if_configured(host: Host) -> None:
    conf = network({"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.0"})

    assert fill(host, conf, 2) == ["10.9.0.0", "10.9.0.2"]


def test_broadcast_address_is_not_leased(host: Host) -> None:
    assert fill(host, network("10.9.0.0/29"), 5)[-1] == "10.9.0.6"


def test_ipv6_has_no_broadcast_address(host: Host) -> None:
    conf = network("2001:db8::/126")

    assert fill(host, conf, 2) == ["2001:db8::2", "2001:db8::3"]


def test_ranges_of_a_set_are_used_one_after_the_other(host: Host) -> None:
    """The ranges of a set are one pool, and the search goes round through all of them."""
    conf = network(["10.9.0.0/30", "10.9.1.0/30", "10.9.2.0/30"])

    assert fill(host, conf, 3) == ["10.9.0.2", "10.9.1.2", "10.9.2.2"]
    delete(host, conf, "fill0")
    delete(host, conf, "fill1")
    assert add(host, conf, "x") == ["10.9.0.2"]
    assert add(host, conf, "y") == ["10.9.1.2"]


def test_each_set_gives_an_address_with_its_own_gateway(host: Host) -> None:
    conf = network("10.9.0.0/24", {"subnet": "10.8.0.0/16", "gateway": "10.8.255.254"}, "2001:db8::/64")

    assert request(host, "ADD", conf)["ips"] == [
        {"address": "10.9.0.2/24", "gateway": "10.9.0.1"},
        {"address": "10.8.0.1/16", "gateway": "10.8.255.254"},
        {"address": "2001:db8::2/64", "gateway": "2001:db8::1"},
    ]


def test_subnet_of_the_old_form_is_the_first_set(host: Host) -> None:
    conf = network("10.8.0.0/24", subnet="10.9.0.0/24", rangeStart="10.9.0.7", gateway="10.9.0.99")

    assert request(host, "ADD", conf)["ips"] == [
        {"address": "10.9.0.7/24", "gateway": "10.9.0.99"},
        {"address": "10.8.0.2/24", "gateway": "10.8.0.1"},
    ]


def test_capability_ip_ranges_comes_before_all_other_ranges(host: Host) -> None:
    conf = network("10.9.0.0/24", subnet="10.8.0.0/24")
    conf["runtimeConfig"] = {"ipRanges": [[{"subnet": "10.7.0.0/24"}], [{"subnet": "2001:db8::/64"}]]}

    assert add(host, conf) == ["10.7.0.2", "2001:db8::2", "10.8.0.2", "10.9.0.2"]


def test_capability_ip_ranges_alone_is_enough(host: Host) -> None:
    conf = network() | {"runtimeConfig": {"ipRanges": [[{"subnet": "10.7.0.0/24"}]]}}

    assert add(host, conf) == ["10.7.0.2"]


def test_old_versions_allow_one_address_per_family(host: Host) -> None:
    """A result of these versions has no place for a second one."""
    assert add_ip46(host, network("10.9.0.0/24", "2001:db8::/64", version="0.2.0")) == [
        "10.9.0.2",
        "2001:db8::2",
    ]

    with pytest.raises(CniFailure, match="0.2.0"):
        request(host, "ADD", network("10.9.0.0/24", "10.8.0.0/24", version="0.2.0"), "c2")


def test_owner_gets_no_second_address_of_a_set(host: Host) -> None:
    """A runtime that repeats ADD without DEL has lost its record.  Two leases would be one too many."""
    conf = network("10.9.0.0/24")
    add(host, conf, "c1", "eth0")

    with pytest.raises(CniFailure, match="c1"):
        add(host, conf, "c1", "eth0")
    assert add(host, conf, "c1", "eth1") == ["10.9.0.3"]


def test_failed_second_set_releases_the_first(host: Host) -> None:
    conf = network("10.9.0.0/24", "10.8.0.0/30")
    add(host, conf, "a")

    with pytest.raises(CniFailure):
        add(host, conf, "b")
    assert leased(host) == ["10.8.0.2", "10.9.0.2"]


def test_networks_do_not_see_each_other(host: Host) -> None:
    assert add(host, network("10.9.0.0/24", name="a")) == ["10.9.0.2"]
    assert add(host, network("10.9.0.0/24", name="b")) == ["10.9.0.2"]


def test_del_releases_all_addresses_of_this_interface_only(host: Host) -> None:
    conf = network("10.9.0.0/24", "2001:db8::/64")
    add(host, conf, "c1", "eth0")
    add(host, conf, "c1", "eth1")
    add(host, conf, "c11", "eth0")

    delete(host, conf, "c1", "eth0")

    assert leased(host) == ["10.9.0.3", "10.9.0.4", "2001:db8::3", "2001:db8::4"]


def test_del_succeeds_twice_and_for_an_unknown_container(host: Host) -> None:
    conf = network("10.9.0.0/24")
    delete(host, conf, "never-seen")
    add(host, conf)

    delete(host, conf)
    delete(host, conf)


def test_del_needs_no_namespace(host: Host) -> None:
    conf = network("10.9.0.0/24")
    add(host, conf)

    delete(host, conf, CNI_NETNS="")

    assert leased(host) == []


@pytest.mark.known_difference(
    "DEL fails with ranges that ADD refuses, and the lease stays",
    here="releases the lease",
    right="SPEC.md, 2 DEL",
)
def test_del_releases_the_address_if_the_ranges_became_invalid(host: Host) -> None:
    """The administrator may have edited the network while the container ran."""
    add(host, network("10.9.0.0/24"))

    delete(host, network({"subnet": "10.9.0.0/24", "rangeStart": "10.1.0.1"}))

    assert leased(host) == []


def test_del_releases_the_address_if_the_ranges_have_changed(host: Host) -> None:
    add(host, network("10.9.0.0/24", "10.8.0.0/24"))

    delete(host, network("10.7.0.0/24"))

    assert leased(host) == []


def test_check_fails_without_a_lease(host: Host) -> None:
    conf = network("10.9.0.0/24")
    result = request(host, "ADD", conf)
    with_result = cni.with_previous_result(conf, result)

    request(host, "CHECK", with_result)
    with pytest.raises(CniFailure):
        request(host, "CHECK", with_result, "c1", "eth1")
    delete(host, conf)
    with pytest.raises(CniFailure, match="c1"):
        request(host, "CHECK", with_result)


def test_ten_adds_at_once_get_ten_addresses(host: Host) -> None:
    conf = network("10.9.0.0/24")
    assert host.implementation
    env = {"CNI_COMMAND": "ADD", "CNI_NETNS": "/run/netns/x", "CNI_IFNAME": "eth0", "CNI_PATH": "/nowhere"}
    program = host.implementation.program("host-local")

    running = [host.popen(program, env=env | {"CNI_CONTAINERID": f"c{i}"}, stdin=-1) for i in range(10)]
    answers = [process.communicate(json.dumps(conf), 20)[0] for process in running]

    addresses = {json.loads(answer)["ips"][0]["address"] for answer in answers}
    assert addresses == {f"10.9.0.{i}/24" for i in range(2, 12)}
    for i in range(10):
        delete(host, conf, f"c{i}")
