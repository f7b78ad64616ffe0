# SPDX-License-Identifier: Apache-2.0
"""types.result: one form in the code, and one shape per version."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnihook.fast import fastjson
from cnihook.fast.address import Address, IPNet
from cnihook.types.errors import DECODING_FAILURE, INCOMPATIBLE_VERSION, CniError
from cnihook.types.result import DNS, IP, Interface, Result, Route
from tests.support.plugins.cni import VERSIONS

LEGACY = VERSIONS[:2]
LISTS = VERSIONS[2:]


def full() -> Result:
    """Return a result with every field."""
    return Result(
        [
            Interface("cni0", "02:00:00:00:00:01", mtu=1400),
            Interface("veth0"),
            Interface("eth0", "02:00:00:00:00:02", "/run/netns/c1", 1500, "/run/sock", "0000:04:00.5"),
        ],
        [
            IP(IPNet.parse("10.1.2.3/24"), Address.parse("10.1.2.1"), 2),
            IP(IPNet.parse("2001:db8::3/64"), None, 0),
            IP(IPNet.parse("10.1.3.3/16"), Address.parse("10.1.0.1")),
        ],
        [
            Route(IPNet.parse("0.0.0.0/0")),
            Route(IPNet.parse("10.9.8.7/16"), Address.parse("10.1.2.9"), mtu=1400, advmss=1360, priority=7),
            Route(IPNet.parse("::/0"), Address.parse("2001:db8::1"), table=0, scope=0),
            Route(IPNet.parse("2001:db8:1::/48"), table=100, scope=253),
        ],
        DNS(["10.1.2.53"], "example.net", ["a.example.net"], ["ndots:2"]),
    )


SHAPE_1_1: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "interfaces": [
        {"name": "cni0", "mac": "02:00:00:00:00:01", "mtu": 1400},
        {"name": "veth0"},
        {
            "name": "eth0",
            "mac": "02:00:00:00:00:02",
            "sandbox": "/run/netns/c1",
            "mtu": 1500,
            "socketPath": "/run/sock",
            "pciID": "0000:04:00.5",
        },
    ],
    "ips": [
        {"interface": 2, "address": "10.1.2.3/24", "gateway": "10.1.2.1"},
        {"interface": 0, "address": "2001:db8::3/64"},
        {"address": "10.1.3.3/16", "gateway": "10.1.0.1"},
    ],
    "routes": [
        {"dst": "0.0.0.0/0"},
        {"dst": "10.9.8.7/16", "gw": "10.1.2.9", "mtu": 1400, "advmss": 1360, "priority": 7},
        {"dst": "::/0", "gw": "2001:db8::1", "table": 0, "scope": 0},
        {"dst": "2001:db8:1::/48", "table": 100, "scope": 253},
    ],
    "dns": {
        "nameservers": ["10.1.2.53"],
        "domain": "example.net",
        "search": ["a.example.net"],
        "options": ["ndots:2"],
    },
}


def only(fields: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key in keys}


def shape(version: str) -> dict[str, Any]:
    """Return the same result in the shape of the versions from 0.3.0 to 1.0.0."""
    fields = {
        **SHAPE_1_1,
        "cniVersion": version,
        "interfaces": [only(item, "name", "mac", "sandbox") for item in SHAPE_1_1["interfaces"]],
        "routes": [only(item, "dst", "gw") for item in SHAPE_1_1["routes"]],
    }
    if version < "1.0.0":
        marks = ["4", "6", "4"]
        fields["ips"] = [{"version": mark, **ip} for mark, ip in zip(marks, SHAPE_1_1["ips"], strict=True)]
    return fields


def legacy(version: str) -> dict[str, Any]:
    return {
        "cniVersion": version,
        "ip4": {
            "ip": "10.1.2.3/24",
            "gateway": "10.1.2.1",
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.8.7/16", "gw": "10.1.2.9"}],
        },
        "ip6": {
            "ip": "2001:db8::3/64",
            "routes": [{"dst": "::/0", "gw": "2001:db8::1"}, {"dst": "2001:db8:1::/48"}],
        },
        "dns": SHAPE_1_1["dns"],
    }


def expected(version: str) -> dict[str, Any]:
    if version in LEGACY:
        return legacy(version)
    return SHAPE_1_1 if version == "1.1.0" else shape(version)


def loads(value: dict[str, Any], default: str = "") -> Result:
    return Result.from_json(json.loads(json.dumps(value)), default)


@pytest.mark.parametrize("version", VERSIONS)
def test_result_is_written_in_the_shape_of_each_version(version: str) -> None:
    assert full().to_json(version) == expected(version)


@pytest.mark.parametrize("version", VERSIONS)
def test_each_shape_is_read_and_written_back(version: str) -> None:
    assert loads(expected(version)).to_json(version) == expected(version)


@pytest.mark.parametrize("version", VERSIONS)
def test_printed_result_is_indented_by_four_and_has_no_line_end(version: str) -> None:
    text = fastjson.dumps(full().to_json(version), indent=4)

    assert json.loads(text) == expected(version)
    assert text.startswith(f'{{\n    "cniVersion": "{version}",\n    "') and text.endswith("}")


@pytest.mark.parametrize(
    ("version", "shape"),
    [
        *((version, {"cniVersion": version, "dns": {}}) for version in VERSIONS[2:5]),
        *((version, {"cniVersion": version}) for version in VERSIONS[5:]),
    ],
)
def test_empty_result_is_written(version: str, shape: dict[str, Any]) -> None:
    """Before 1.0.0 `dns` is always present, later only if it has a value."""
    assert Result().to_json(version) == shape


@pytest.mark.parametrize("version", ["", *LEGACY])
def test_oldest_shape_needs_an_address(version: str) -> None:
    result = full()
    result.ips = []

    with pytest.raises(CniError, match="no valid IP addresses"):
        result.to_json(version)


def test_oldest_shape_drops_routes_of_a_family_without_an_address() -> None:
    result = full()
    result.ips = result.ips[:1]

    assert result.to_json("0.2.0") == {key: value for key, value in legacy("0.2.0").items() if key != "ip6"}


def test_ipv4_is_first_after_reading_the_oldest_shape() -> None:
    backwards = dict(reversed(legacy("0.2.0").items()))

    result = loads(backwards)

    assert [str(ip.net) for ip in result.ips] == ["10.1.2.3/24", "2001:db8::3/64"]
    assert [str(route.dst) for route in result.routes] == [
        "0.0.0.0/0", "10.9.8.7/16", "::/0", "2001:db8:1::/48"
    ]  # fmt: skip
    assert [ip.interface for ip in result.ips] == [None, None]
    assert result.interfaces == []


def test_host_bits_are_kept() -> None:
    result = loads(
        {"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3/8"}], "routes": [{"dst": "10.2.3.4/16"}]}
    )

    assert (str(result.ips[0].net), str(result.routes[0].dst)) == ("10.1.2.3/8", "10.2.3.4/16")


@pytest.mark.parametrize("index", [None, -1, 0, 7])
def test_index_of_the_interface_is_kept(index: int | None) -> None:
    """0 is an index; some plugins write -1 instead of omitting the key."""
    ip: dict[str, Any] = {"address": "10.1.2.3/8"}
    if index is not None:
        ip["interface"] = index
    result = loads({"cniVersion": "1.0.0", "ips": [ip]})

    assert result.ips[0].interface == index
    assert result.to_json("1.0.0")["ips"] == [ip]


def test_result_without_a_version_has_the_given_one() -> None:
    for missing in ({}, {"cniVersion": ""}, {"cniVersion": None}):
        assert loads({**missing, "ip4": {"ip": "10.1.2.3/24"}}, "0.2.0").ips
        assert loads({**missing, "ips": [{"address": "10.1.2.3/24"}]}, "1.0.0").ips
        assert loads({**missing, "ip4": {"ip": "10.1.2.3/24"}}, "").ips, (
            "without any version, the oldest is assumed"
        )


def test_null_is_an_empty_result() -> None:
    assert Result.from_json(None, "1.0.0").to_json("1.0.0") == {"cniVersion": "1.0.0"}


def test_keys_are_found_in_any_case_and_unknown_ones_ignored() -> None:
    result = loads(
        {"cniVersion": "1.0.0", "IPs": [{"Address": "10.1.2.3/24", "new": 1}], "new": {}, "dns": None}
    )

    assert [str(ip.net) for ip in result.ips] == ["10.1.2.3/24"]


@pytest.mark.parametrize("version", ["1.0", "2.0.0", "0.5.0", "x"])
def test_unknown_version_is_refused(version: str) -> None:
    for act in (
        lambda: loads({"cniVersion": version}),
        lambda: loads({}, version),
        lambda: full().to_json(version),
    ):
        with pytest.raises(CniError, match=f"unsupported CNI result version '{version}'") as refused:
            act()
        assert refused.value.code == INCOMPATIBLE_VERSION


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ([], "object"),
        ("x", "object"),
        ({"ips": {}}, "ips"),
        ({"ips": ["10.1.2.3/24"]}, "ips[0]"),
        ({"ips": [{}]}, "address"),
        ({"ips": [{"address": "10.1.2.3"}]}, "10.1.2.3"),
        ({"ips": [{"address": "10.1.2.3/24", "gateway": "x"}]}, "gateway"),
        ({"ips": [{"address": "10.1.2.3/24", "interface": "0"}]}, "interface"),
        ({"ips": [{"address": "10.1.2.3/24", "interface": -2}]}, "interface"),
        ({"interfaces": [7]}, "interfaces[0]"),
        ({"interfaces": [{"name": 7}]}, "name"),
        ({"interfaces": [{"name": "x", "mtu": -1}]}, "mtu"),
        ({"routes": [{}]}, "dst"),
        ({"routes": [{"dst": "0.0.0.0/0"}, {"dst": "0.0.0.0"}]}, "routes[1]"),
        ({"routes": [{"dst": "0.0.0.0/0", "table": -1}]}, "table"),
        ({"routes": [{"dst": "0.0.0.0/0", "scope": 256}]}, "scope"),
        ({"routes": [{"dst": "0.0.0.0/0", "mtu": "x"}]}, "mtu"),
        ({"dns": []}, "dns"),
        ({"dns": {"nameservers": [1]}}, "nameservers[0]"),
        ({"cniVersion": "0.2.0", "ip4": {}}, "ip"),
        ({"cniVersion": "0.2.0", "ip4": []}, "ip4"),
        ({"cniVersion": "0.2.0", "ip6": {"ip": "::1"}}, "::1"),
    ],
)
def test_malformed_result_is_refused_with_the_place(raw: Any, words: str) -> None:
    with pytest.raises(CniError) as refused:
        Result.from_json(raw, "1.0.0", "prevResult")

    assert refused.value.code == DECODING_FAILURE
    assert refused.value.msg.startswith("prevResult: ") and words in refused.value.msg


# Any result

V4 = st.ip_addresses(v=4)
V6 = st.sampled_from(["2001:db8::1", "fe80::1", "::", "fd00::ffff", "2001:db8:1:2:3:4:5:6"])
ADDRESSES = (V4 | V6).map(lambda address: Address.parse(str(address)))
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
SMALL = st.integers(0, 1 << 16)


@st.composite
def nets(draw: st.DrawFn) -> IPNet:
    address = draw(ADDRESSES)
    return IPNet(address, draw(st.integers(0, address.bits)))


INTERFACES = st.builds(Interface, TEXTS, TEXTS, TEXTS, SMALL, TEXTS, TEXTS)
IPS = st.builds(IP, nets(), st.none() | ADDRESSES, st.none() | st.integers(-1, 3))
ROUTES = st.builds(
    Route, nets(), st.none() | ADDRESSES, mtu=SMALL, advmss=SMALL, priority=SMALL,
    table=st.none() | SMALL, scope=st.none() | st.integers(0, 255),
)  # fmt: skip
NAMES = st.lists(TEXTS, max_size=2)
RESULTS = st.builds(
    Result,
    st.lists(INTERFACES, max_size=3),
    st.lists(IPS, max_size=3),
    st.lists(ROUTES, max_size=3),
    st.builds(DNS, NAMES, TEXTS, NAMES, NAMES),
)


@given(RESULTS)
def test_newest_version_keeps_everything(result: Result) -> None:
    there = result.to_json("1.1.0")

    assert loads(there).to_json("1.1.0") == there


@given(RESULTS, st.sampled_from(LISTS), st.sampled_from(LISTS))
def test_conversion_through_another_version_keeps_the_common_fields(
    result: Result, version: str, way: str
) -> None:
    poorer = loads(result.to_json(way)).to_json(version)

    if way == "1.1.0" or version != "1.1.0":
        assert poorer == result.to_json(version)
    else:
        for key in ("ips", "dns"):
            assert poorer.get(key) == result.to_json("1.1.0").get(key)
    for key in ("interfaces", "ips", "routes"):
        assert len(poorer.get(key, [])) == len(getattr(result, key))


@given(RESULTS, st.sampled_from(LEGACY))
def test_conversion_through_the_oldest_version_keeps_one_address_per_family(
    result: Result, version: str
) -> None:
    if not result.ips:
        return
    firsts = [next((ip for ip in result.ips if ip.net.address.version == family), None) for family in (4, 6)]
    kept = [ip for ip in firsts if ip]
    families = {ip.net.address.version for ip in kept}

    back = loads(result.to_json(version))

    assert [str(ip.net) for ip in back.ips] == [str(ip.net) for ip in kept]
    assert [ip.gateway for ip in back.ips] == [ip.gateway for ip in kept]
    assert sorted(str(route.dst) for route in back.routes) == sorted(
        str(route.dst) for route in result.routes if route.dst.address.version in families
    )
    assert back.dns.to_json() == result.dns.to_json()


def test_results_are_equal_by_their_fields() -> None:
    text = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/c1"}],
        "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 0}],
        "routes": [{"dst": "0.0.0.0/0", "table": 0}],
        "dns": {"nameservers": ["10.1.0.1"]},
    }
    one, other = Result.from_json(text, "1.1.0", ""), Result.from_json(text, "1.1.0", "")
    assert one == other and one.ips == other.ips
    other.ips[0].interface = 1
    assert one != other and one != text


def test_repr_shows_the_fields_that_are_set() -> None:
    result = Result.from_json(
        {
            "cniVersion": "1.0.0",
            "ips": [{"address": "10.1.0.2/24", "interface": 0}],
            "interfaces": [{"name": "eth0"}],
        },
        "1.0.0",
        "",
    )
    assert repr(result.interfaces) == "[Interface(name='eth0')]"
    assert repr(result.ips) == "[IP(interface=0, net=IPNet('10.1.0.2/24'))]"
    assert repr(result).startswith("Result(interfaces=[Interface(")
