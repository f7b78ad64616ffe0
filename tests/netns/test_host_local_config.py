# SPDX-License-Identifier: Apache-2.0
"""host-local: the configurations that it refuses, with an error that names the wrong part; DNS; STATUS."""

from typing import Any

import pytest

from tests.netns.differences import NO_STATUS, SPEC_1_1
from tests.support.host.host import Host
from tests.support.plugins.cni import CniFailure
from tests.support.plugins.ipam import add, leased, network, request


def range_(**keys: str) -> dict[str, str]:
    return {"subnet": "10.9.0.0/24"} | keys


WRONG: list[Any] = [
    pytest.param({"ranges": []}, "range", id="no range"),
    pytest.param({"ranges": [[]]}, "empty range set", id="empty set"),
    pytest.param({"ranges": [["10.9.0.0/24"], []]}, "range", id="range is a string"),
    pytest.param(
        {"ranges": [[{"rangeStart": "10.9.0.1"}]]},
        "subnet",
        id="no subnet",
        marks=pytest.mark.known_difference(
            "the error of a missing subnet is `IP <nil> not v4 nor v6`",
            here="the error names the key",
            right="either",
        ),
    ),
    pytest.param({"subnet": "10.9.0.0/31"}, "10.9.0.0/31", id="31 bits"),
    pytest.param({"subnet": "10.9.0.0/32"}, "10.9.0.0/32", id="32 bits"),
    pytest.param({"subnet": "2001:db8::/127"}, "2001:db8::/127", id="127 bits"),
    pytest.param({"subnet": "10.9.0.1/24"}, "10.9.0.0", id="host bits set"),
    pytest.param({"subnet": "2001:db8::1/64"}, "2001:db8::", id="host bits set, IPv6"),
    pytest.param({"subnet": "10.9.0.0"}, "10.9.0.0", id="subnet without a prefix"),
    pytest.param({"subnet": "10.9.0.0/33"}, "10.9.0.0/33", id="33 bits"),
    pytest.param({"subnet": "10.9.0/24"}, "10.9.0/24", id="three numbers"),
    pytest.param({"subnet": 7}, "subnet|ipam", id="subnet is a number"),
    pytest.param({"ranges": [[range_(rangeStart="10.8.0.1")]]}, "10.8.0.1", id="start outside"),
    pytest.param({"ranges": [[range_(rangeEnd="10.9.1.1")]]}, "10.9.1.1", id="end outside"),
    pytest.param(
        {"ranges": [[range_(rangeStart="10.9.0.9", rangeEnd="10.9.0.8")]]},
        "10.9.0.8|10.9.0.9",
        id="end before start",
    ),
    pytest.param({"ranges": [[range_(rangeStart="10.9.0.x")]]}, "10.9.0.x", id="start is not an address"),
    pytest.param(
        {"ranges": [[range_(rangeStart="2001:db8::1")]]}, "2001:db8::1", id="start of the other family"
    ),
    pytest.param({"ranges": [[range_(gateway="10.9.0.256")]]}, "10.9.0.256", id="gateway is not an address"),
    pytest.param(
        {"ranges": [[range_(), {"subnet": "2001:db8::/64"}]]}, "famil", id="families mixed in a set"
    ),
    pytest.param({"ranges": [[range_(), range_()]]}, "overlap", id="overlap within a set"),
    pytest.param({"ranges": [[range_()], [{"subnet": "10.9.0.128/25"}]]}, "overlap", id="overlap of sets"),
    pytest.param(
        {"subnet": "10.9.0.0/24", "ranges": [[range_()]]}, "overlap", id="overlap of old and new form"
    ),
    pytest.param(
        {"subnet": "10.9.0.0/24", "routes": [{"dst": "10.1.0.0/99"}]}, "10.1.0.0/99", id="route of 99 bits"
    ),
    pytest.param(
        {"subnet": "10.9.0.0/24", "routes": [{"dst": "0.0.0.0/0", "gw": "me"}]},
        "me",
        id="route by a gateway that is not an address",
    ),
    pytest.param(
        {"subnet": "10.9.0.0/24", "routes": {"dst": "0.0.0.0/0"}}, "routes", id="routes is an object"
    ),
    pytest.param(
        {"subnet": "10.9.0.0/24", "resolvConf": "/etc/no-such"}, "/etc/no-such", id="no resolvConf"
    ),
    pytest.param(
        {"subnet": "10.9.0.0/24", "resolvConf": "/dev/null"},
        "/dev/null",
        id="resolvConf is a device",
        marks=pytest.mark.known_difference(
            "reads any file, even one that has no end",
            here="reads regular files of a limited size only",
            right="cnihook",
        ),
    ),
]


@pytest.mark.parametrize(("ipam", "named"), WRONG)
def test_configuration_is_refused_and_nothing_leased(host: Host, ipam: dict[str, Any], named: str) -> None:
    with pytest.raises(CniFailure) as refused:
        add(host, network(**ipam))

    assert named_in(refused.value, named)
    assert leased(host) == []


def named_in(failure: CniFailure, named: str) -> bool:
    return any(word in f"{failure.msg} {failure.details}" for word in named.split("|"))


def test_configuration_without_ipam_is_refused(host: Host) -> None:
    conf = network("10.9.0.0/24")
    del conf["ipam"]

    with pytest.raises(CniFailure, match="ipam"):
        add(host, conf)


def test_ranges_of_one_subnet_may_lie_side_by_side(host: Host) -> None:
    """Only ranges that share an address overlap."""
    low = range_(rangeStart="10.9.0.10", rangeEnd="10.9.0.19")
    high = range_(rangeStart="10.9.0.20", rangeEnd="10.9.0.29")

    assert add(host, network([low], [high])) == ["10.9.0.10", "10.9.0.20"]


def test_capability_ip_ranges_has_the_same_rules(host: Host) -> None:
    conf = network("10.9.0.0/24") | {"runtimeConfig": {"ipRanges": [[{"subnet": "10.7.0.1/24"}]]}}

    with pytest.raises(CniFailure, match="10.7.0.0"):
        add(host, conf)


def test_keys_are_found_in_any_case_and_unknown_keys_ignored(host: Host) -> None:
    """Every plugin in Go ignores the case of keys, so existing configurations may have any case."""
    conf = network() | {"Unknown": 1}
    conf["IPAM"] = conf.pop("ipam") | {"SubNet": "10.9.0.0/24", "rangestart": "10.9.0.5", "other": []}

    assert add(host, conf) == ["10.9.0.5"]


def test_null_means_not_set(host: Host) -> None:
    conf = network(subnet="10.9.0.0/24", ranges=None, rangeStart=None, routes=None, resolvConf=None)

    assert request(host, "ADD", conf)["ips"] == [{"address": "10.9.0.2/24", "gateway": "10.9.0.1"}]


def test_resolv_conf_becomes_dns(host: Host) -> None:
    host.write(
        "/run/resolv.conf",
        """\
# a comment
; another
nameserver 192.0.2.53
nameserver 2001:db8::53
domain example.net
search example.net
search lab.example.net home.example.net
options ndots:2 rotate
options edns0
sortlist 10.0.0.0
""",
    )
    host.leaves("file /run/resolv.conf")

    result = request(host, "ADD", network("10.9.0.0/24", resolvConf="/run/resolv.conf"))

    assert result["dns"] == {
        "nameservers": ["192.0.2.53", "2001:db8::53"],
        "domain": "example.net",
        "search": ["example.net", "lab.example.net", "home.example.net"],
        "options": ["ndots:2", "rotate", "edns0"],
    }


def test_resolv_conf_of_the_host_is_not_read(host: Host) -> None:
    host.write("/run/resolv.conf", "nameserver 192.0.2.53\n")
    host.run("mount", "-n", "--bind", "/run/resolv.conf", "/etc/resolv.conf")
    host.leaves("file /run/resolv.conf", "mount /etc/resolv.conf")

    assert "dns" not in request(host, "ADD", network("10.9.0.0/24"))


@SPEC_1_1
def test_status_succeeds_with_free_addresses(host: Host) -> None:
    assert request(host, "STATUS", network("10.9.0.0/24", version="1.1.0")) is None


@SPEC_1_1
def test_status_of_exhausted_range_succeeds_by_default(host: Host) -> None:
    """CRI-O runs GC only after a good STATUS, so a range full of stale leases would never be emptied."""
    sets = "10.9.0.0/24", "10.8.0.0/30"
    add(host, network(*sets, version="1.1.0"))

    assert request(host, "STATUS", network(*sets, version="1.1.0")) is None
    assert request(host, "STATUS", network(*sets, version="1.1.0", statusWhenFull=False)) is None


@NO_STATUS
@pytest.mark.parametrize("full", ["10.8.0.0/30", "fd08::/126"])
def test_status_reports_exhausted_range_if_configured(host: Host, full: str) -> None:
    """Code 50: no container can be attached; the attached ones keep their addresses."""
    conf = network("10.9.0.0/24", full, version="1.1.0", statusWhenFull=True)
    assert request(host, "STATUS", conf) is None
    add(host, conf)
    if ":" in full:
        add(host, conf, "c2")

    with pytest.raises(CniFailure, match=r"10\.8\.0\.|fd08::") as failure:
        request(host, "STATUS", conf)
    assert failure.value.code == 50


@pytest.mark.known_difference(
    "the error of a wrong address does not name its source",
    here="the error names the source",
    right="either",
)
@pytest.mark.parametrize(
    ("keys", "args", "place"),
    [
        ({"runtimeConfig": {"ips": ["10.9.0.x"]}}, "", "runtimeConfig.ips"),
        ({"args": {"cni": {"ips": ["10.9.0.x"]}}}, "", "args.cni.ips"),
        ({}, "IP=10.9.0.x", "CNI_ARGS: IP"),
    ],
)
def test_error_names_the_source_of_a_requested_address(
    host: Host, keys: dict[str, Any], args: str, place: str
) -> None:
    with pytest.raises(CniFailure, match=place):
        add(host, network("10.9.0.0/24") | keys, CNI_ARGS=args)
