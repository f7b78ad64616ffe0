# SPDX-License-Identifier: Apache-2.0
"""The values in the store of a cluster: settings and members, read from JSON that can be wrong."""

import json
from ipaddress import ip_network
from typing import Any

import pytest

from cnihook.cluster.model import Member, ModelError, Settings

SETTINGS: dict[str, Any] = {
    "subnets": ["10.48.0.0/12", "fd00:60::/48"],
    "blocks": [24, 64],
    "transport": "vxlan",
    "mtu": 1450,
    "epoch": "e1",
}
MEMBER: dict[str, Any] = {"host": "a" * 32, "name": "h1", "claim": "c1", "address": "172.16.0.3"}
KEY = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="


def settings(**changes: Any) -> Settings:
    return Settings.from_json(json.dumps(SETTINGS | changes).encode())


def member(**changes: Any) -> Member:
    return Member.from_json(json.dumps(MEMBER | changes).encode())


def test_block_index_and_key_are_the_same_thing() -> None:
    net = settings()
    assert net.count == 4096  # the IPv6 subnet would have more
    assert net.block(0x7FF) == (ip_network("10.55.255.0/24"), ip_network("fd00:60:0:7ff::/64"))
    for index in (0, 1, 4095):
        assert net.index(net.block(index)[0]) == net.index_of_key(net.key(index)) == index
    assert net.key(7) == "10.48.7.0-24"
    for key in (
        "10.48.7.0",
        "10.48.7.0-25",
        "10.64.0.0-24",
        "10.48.7.1-24",
        "10.48.07.0-24",
        "x" * 5000,
        "",
    ):
        with pytest.raises(ModelError):
            net.index_of_key(key)
    with pytest.raises(ModelError, match="has 4096 blocks"):
        net.block(4096)
    with pytest.raises(ModelError):
        net.index(net.block(1)[1])


def test_values_survive_json_and_unknown_keys_are_ignored() -> None:
    assert settings(later={"a": 1}) == Settings.from_json(settings().to_json())
    assert settings(names=True) == Settings.from_json(settings(names=True).to_json()) != settings()
    full = member(mac="02:00:00:00:00:01", wg=KEY, port=51820, later=[1])
    assert Member.from_json(full.to_json()) == full
    assert str(full.ip) == "172.16.0.3"
    assert b"wg" not in member().to_json()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"min": 2}, "needs a newer agent"),
        ({"subnets": ["10.48.0.0/12", "10.0.0.0/16"]}, "one of each IP version"),
        ({"subnets": []}, "one of each IP version"),
        ({"subnets": ["10.48.0.1/12", "fd00::/48"]}, "is not a subnet"),
        ({"subnets": [7, "fd00::/48"]}, "is not a subnet"),
        ({"subnets": ["127.0.0.0/8", "fd00::/48"]}, "cannot have addresses"),
        ({"subnets": ["10.48.0.0/12"] * 3}, "list of one or two"),
        ({"blocks": [24]}, "each subnet needs"),
        ({"blocks": [12, 64]}, "from /13 to /30"),
        ({"blocks": [31, 64]}, "from /13 to /30"),
        ({"blocks": [True, 64]}, "must be an integer"),
        ({"transport": "pigeon\n"}, "must be one of"),
        ({"mtu": 1279}, "from 1280"),
        ({"mtu": 10**400}, "from 1280"),
        ({"vni": 0}, "vni"),
        ({"port": 65536}, "port"),
        ({"names": 1}, "names: must be true or false"),
        ({"epoch": "../x"}, "epoch"),
        ({"epoch": None}, "epoch: is missing"),
        ({"created": "\x1b[2J"}, "created"),
        ({"padding": "x" * 5000}, "longer than"),
    ],
)
def test_wrong_settings_are_refused_on_one_line(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as error:
        settings(**changes)
    assert str(error.value).isprintable() and len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"host": "A" * 32}, "machine ID"),
        ({"host": "../../etc"}, "machine ID"),
        ({"name": ""}, "host name"),
        ({"name": "\x1b[2J"}, "host name"),
        ({"name": 7}, "must be text"),
        ({"claim": "x y"}, "claim"),
        ({"address": "224.0.0.1"}, "cannot reach"),
        ({"address": "fe80::1%eth0"}, "cannot reach"),
        ({"address": "nowhere"}, "not an IP address"),
        ({"mac": "01:00:00:00:00:01"}, "mac"),
        ({"mac": "02:00:00:00:00"}, "mac"),
        ({"wg": "AAAA"}, "wg"),
        ({"wg": "é" * 44}, "wg"),
        ({"port": -1}, "port"),
    ],
)
def test_wrong_member_is_refused_on_one_line(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as error:
        member(**changes)
    assert str(error.value).isprintable() and len(str(error.value)) < 200


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff", b"{" * 3000, b"[" * 4000, b'{"a": NaN}', b"null"])
def test_other_json_is_refused(text: bytes) -> None:
    for kind in (Settings, Member):
        with pytest.raises(ModelError):
            kind.from_json(text)
