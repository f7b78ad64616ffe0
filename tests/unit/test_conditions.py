# SPDX-License-Identifier: Apache-2.0
"""nftables.conditions: conditions that a rule of nft may have, and the translation of iptables' options."""

import pytest

from cnihook.nftables import conditions
from cnihook.types.config import NetConf
from cnihook.types.errors import CniError


def read(*words: str, version: int = 4) -> str:
    key = f"conditionsV{version}"
    return conditions.read(NetConf({key: list(words)}), key, version)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-s", "192.0.2.0/24"], "ip saddr 192.0.2.0/24"),
        (["-s", "192.0.2.1/24"], "ip saddr 192.0.2.0/24"),
        (["--source", "192.0.2.1"], "ip saddr 192.0.2.1"),
        (["--src", "192.0.2.1/255.255.255.0"], "ip saddr 192.0.2.0/24"),
        (["!", "-d", "192.0.2.0/24"], "ip daddr != 192.0.2.0/24"),
        (["-d", "!", "192.0.2.0/24"], "ip daddr != 192.0.2.0/24"),
        (["! -d 192.0.2.0/24"], "ip daddr != 192.0.2.0/24"),
        (["--destination", "192.0.2.1,192.0.2.2/32"], "ip daddr { 192.0.2.1, 192.0.2.2 }"),
        (["-i", "eth0"], 'iifname "eth0"'),
        (["!", "--in-interface", "eth+"], 'iifname != "eth*"'),
        (["-s", "0.0.0.0/0", "-i", "eth0.5"], 'iifname "eth0.5"'),
        (["-s", "0.0.0.0/0"], ""),
        (["-s", "10.0.0.0/8", "!", "--dst", "10.1.2.3"], "ip saddr 10.0.0.0/8 ip daddr != 10.1.2.3"),
    ],
)
def test_iptables_is_translated(words: list[str], expected: str) -> None:
    assert read(*words) == expected


def test_iptables_of_ipv6_is_translated() -> None:
    assert read("!", "-d", "FC00::/7", version=6) == "ip6 daddr != fc00::/7"


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "owner", "--uid-owner", "0"],
        ["-j", "ACCEPT"],
        ["-s"],
        ["!"],
        ["-s", "nonsense"],
        ["-s", "192.0.2.1,"],
        ["-s", "192.0.2.0/255.0.255.0"],
        ["-s", "192.0.2.0/33"],
        ["-s", "2001:db8::1"],
        ["!", "-s", "0.0.0.0/0"],
        ["!", "-s", "0.0.0.0/0,192.0.2.1"],
        ["-i", 'x"drop'],
        ["-i", "0123456789abcdef"],
    ],
)
def test_option_without_a_translation_is_refused(words: list[str]) -> None:
    with pytest.raises(CniError, match="conditionsV4") as refused:
        read(*words)
    assert refused.value.code == 7


@pytest.mark.parametrize(
    "text",
    [
        "ip saddr != 192.0.2.0/24",
        "ip saddr { 192.0.2.1, 192.0.2.8-192.0.2.15 } tcp sport 1024-65535",
        'iifname "eth*" meta mark & 0xff == 0x1',
        "ip6 saddr add::bad:cafe",
        "ct state untracked ip saddr . tcp sport @friends",
        'fib saddr type local iifname { "lo", "eth0" }',
    ],
)
def test_conditions_of_nft_are_kept(text: str) -> None:
    assert read(text) == text
    assert read(*text.split(" ")) == text


@pytest.mark.parametrize(
    "text",
    [
        "ip saddr 192.0.2.1 accept",
        "ip saddr 192.0.2.1 ACCEPT",
        "ip saddr {192.0.2.1}counter",
        'iifname "eth0"drop',
        "ip saddr 192.0.2.1 jump ports",
        "meta mark set 1",
        "add @friends { ip saddr }",
        "ip saddr vmap { 192.0.2.1 : drop }",
        "ip saddr 192.0.2.1; add table inet evil",
        "ip saddr 192.0.2.1\nadd table inet evil",
        "ip saddr 192.0.2.1\radd",
        "ip saddr 192.0.2.1 #",
        "ip saddr { 192.0.2.1",
        "ip saddr 192.0.2.1 }",
        "ip saddr { { 192.0.2.1 } }",
        "ip saddr } {",
        'iifname "eth0',
        'iifname "eth0\ndrop"',
        "iifname 'eth0'",
        "ip saddr $evil",
        "ip saddr 192.0.2.1 \\",
        "ip saddr (192.0.2.1)",
        "ip saddr \u0661",
    ],
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(CniError, match="conditionsV4") as refused:
        read(text)
    assert refused.value.code == 7


def test_empty_list_has_no_conditions() -> None:
    assert read() == read("") == ""
