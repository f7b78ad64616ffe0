# SPDX-License-Identifier: Apache-2.0
"""linux.nft: transactions, and queries that go to the kernel directly, compared with `nft -j`."""

import errno
import ipaddress
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from pyroute2.netlink.nfnetlink.nftsocket import (
    NFT_MSG_DELSETELEM,
    NFT_MSG_NEWSETELEM,
    nft_set_elem_list_msg,
)

from cnihook.linux import netlink, nft
from cnihook.linux.netlink import NLM_F_CREATE
from cnihook.linux.nft import SUBSYSTEM, NftError
from tests.support.host.buffers import with_buffers_of
from tests.support.host.host import Host

T = TypeVar("T")

TABLE = """\
add table inet t
add map inet t m4 { type ipv4_addr : verdict ; }
add map inet t m6 { type ipv6_addr : verdict ; }
add set inet t ports { type inet_proto . inet_service ; }
add chain inet t base { type filter hook forward priority filter ; }
add chain inet t one
add chain inet t two
add rule inet t one ip daddr 10.0.0.0/8 return
add rule inet t one counter
add rule inet t base ip saddr vmap @m4
add table ip other
add chain ip other one
"""


@pytest.fixture(autouse=True)
def implementation() -> None:
    """No plugin takes part: one run is enough."""


@pytest.fixture(autouse=True)
def fresh(host: Host) -> Iterator[None]:
    """Use a new socket, because a socket belongs to the namespace that it was made in."""
    host.leaves("nft: *")
    netlink.reopen_netfilter()
    yield
    netlink.reopen_netfilter()


def run(host: Host, commands: str) -> None:
    host.inside(lambda: nft.run(commands, "test"))


def ruleset(host: Host) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(host.run("nft", "-j", "list", "ruleset").stdout)["nftables"]
    return items


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def ask(host: Host, question: Callable[[], T]) -> T:
    return host.inside(question)


def comment(host: Host, address: str, container: str = "m4") -> str | None:
    return ask(host, lambda: nft.comment_of("inet", "t", container, packed(address)))


def test_a_transaction_is_executed(host: Host) -> None:
    run(host, TABLE)

    assert {item["table"]["name"] for item in ruleset(host) if "table" in item} == {"t", "other"}
    assert host.nft().count("chain ") == 4


def test_a_refused_transaction_changes_nothing_and_names_the_reason(host: Host) -> None:
    run(host, TABLE)
    before = host.nft()

    for commands, words in [
        ("add table inet new\ndelete chain inet t none", "No such file"),
        ("add table inet new\nadd nonsense", "syntax error"),
        (
            "add table inet new\ndelete chain inet t two; delete chain inet t three",
            "No such",
        ),
    ]:
        with pytest.raises(NftError) as refused:
            run(host, commands)
        assert refused.value.strerror
        assert refused.value.strerror.startswith("test: ") and words in refused.value.strerror
        assert "\n" not in refused.value.strerror
    assert host.nft() == before


def test_transactions_of_any_size(host: Host) -> None:
    elements = ", ".join(f"10.1.{number >> 8}.{number & 255} : drop" for number in range(3000))

    run(host, TABLE + f"add element inet t m4 {{ {elements} }}")

    assert len(ask(host, lambda: nft.elements("inet", "t", "m4"))) == 3000


def test_missing_program_is_an_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda _path, _mode: False)

    with pytest.raises(NftError, match="test: the program nft is not installed"):
        run(host, "add table inet t")


def test_chains_have_their_use_counts(host: Host) -> None:
    """The count is of its rules and of the jumps to it, in this table only."""
    run(
        host,
        TABLE
        + """\
add element inet t m4 { 10.1.2.3 : jump one, 10.1.2.4 : jump one, 10.1.2.5 : jump two }
add rule inet t base jump two
""",
    )

    assert ask(host, lambda: nft.chains("inet", "t")) == {"base": 2, "one": 4, "two": 2}
    assert ask(host, lambda: nft.chains("ip", "other")) == {"one": 0}
    assert ask(host, lambda: nft.chains("inet", "none")) == {}
    shown = {
        item["chain"]["name"] for item in ruleset(host) if "chain" in item and item["chain"]["table"] == "t"
    }
    assert shown == {"base", "one", "two"}


COMMENTS = ["mynet c1 eth0", "x", "\u00fc \u4e2d", "c" * 127]


def test_elements_with_their_comments(host: Host) -> None:
    run(host, TABLE)
    for number, text in enumerate(COMMENTS):
        run(host, f'add element inet t m4 {{ 10.1.2.{number} comment "{text}" : jump one }}')
        run(host, f'add element inet t m6 {{ 2001:db8::{number} comment "{text}" : drop }}')
    run(host, "add element inet t m4 { 10.1.2.99 : drop }")

    elements = dict(ask(host, lambda: nft.elements("inet", "t", "m4")))
    assert elements == {
        **{packed(f"10.1.2.{number}"): text for number, text in enumerate(COMMENTS)},
        packed("10.1.2.99"): "",
    }
    elements = dict(ask(host, lambda: nft.elements("inet", "t", "m6")))
    assert elements == {packed(f"2001:db8::{number}"): text for number, text in enumerate(COMMENTS)}


def test_elements_are_those_that_nft_lists(host: Host) -> None:
    run(host, TABLE)
    elements = ", ".join(f'10.1.{n >> 8}.{n & 255} comment "c{n}" : jump one' for n in range(1500))
    run(host, f"add element inet t m4 {{ {elements} }}")
    (shown,) = [item["map"]["elem"] for item in ruleset(host) if item.get("map", {}).get("name") == "m4"]

    assert sorted(ask(host, lambda: nft.elements("inet", "t", "m4"))) == sorted(
        (packed(key["elem"]["val"]), key["elem"]["comment"]) for key, _verdict in shown
    )


def test_keys_of_several_parts(host: Host) -> None:
    """Each part fills whole words of four bytes."""
    run(host, TABLE + 'add element inet t ports { tcp . 8080 comment "web" }')

    assert ask(host, lambda: nft.elements("inet", "t", "ports")) == [
        (bytes((6, 0, 0, 0, 31, 144, 0, 0)), "web")
    ]


def test_one_element_is_looked_up(host: Host) -> None:
    run(host, TABLE)
    run(host, 'add element inet t m4 { 10.1.2.3 comment "mynet c1 eth0" : jump one, 10.1.2.4 : jump one }')
    run(host, 'add element inet t m6 { 2001:db8::3 comment "mynet c1 eth0" : jump one }')

    assert comment(host, "10.1.2.3") == "mynet c1 eth0"
    assert comment(host, "10.1.2.4") == ""
    assert comment(host, "10.1.2.5") is None
    assert comment(host, "2001:db8::3", "m6") == "mynet c1 eth0"
    assert comment(host, "2001:db8::4", "m6") is None


def test_missing_tables_and_maps_have_no_elements(host: Host) -> None:
    """The first ADD after boot asks before the table exists."""
    assert comment(host, "10.1.2.3") is None
    assert ask(host, lambda: nft.elements("inet", "t", "m4")) == []
    assert ask(host, lambda: nft.chains("inet", "t")) == {}
    run(host, TABLE)
    assert comment(host, "10.1.2.3", "none") is None
    assert ask(host, lambda: nft.elements("inet", "t", "none")) == []
    assert ask(host, lambda: nft.elements("inet", "t", "m4")) == []


def test_tables_of_two_families_are_separate(host: Host) -> None:
    run(
        host,
        """\
add table bridge t
add set bridge t guarded { type ifname ; }
add element bridge t guarded { "veth1" comment "mynet c1 eth0" }
""",
    )

    ((key, text),) = ask(host, lambda: nft.elements("bridge", "t", "guarded"))
    assert (key.rstrip(b"\0"), text) == (b"veth1", "mynet c1 eth0")
    assert ask(host, lambda: nft.elements("inet", "t", "guarded")) == []


def test_entries_of_a_map_have_their_values(host: Host) -> None:
    """A verdict counts as no value."""
    commands = """\
add map inet t ports6 { type inet_proto . inet_service : ipv6_addr . inet_service ; }
add element inet t ports6 { tcp . 8080 comment "web" : 2001:db8::1 . 80, udp . 53 : 2001:db8::2 . 5353 }
add element inet t m4 { 10.1.2.3 comment "x" : jump one }
"""
    run(host, TABLE + commands)
    tcp, udp = bytes((6, 0, 0, 0, 31, 144, 0, 0)), bytes((17, 0, 0, 0, 0, 53, 0, 0))
    web = packed("2001:db8::1") + bytes((0, 80, 0, 0))

    assert sorted(ask(host, lambda: nft.entries("inet", "t", "ports6"))) == [
        (tcp, web, "web"),
        (udp, packed("2001:db8::2") + bytes((20, 233, 0, 0)), ""),
    ]
    assert ask(host, lambda: nft.entry_of("inet", "t", "ports6", tcp)) == (web, "web")
    assert ask(host, lambda: nft.entry_of("inet", "t", "ports6", tcp[:5] + bytes(3))) is None
    assert ask(host, lambda: nft.entries("inet", "t", "m4")) == [(packed("10.1.2.3"), b"", "x")]


def test_rules_and_their_comments(host: Host) -> None:
    """The rules of one chain of one table, in order, by the numbers that "delete rule" takes."""
    run(host, TABLE + 'add rule inet t one drop comment "mine"\nadd rule ip other one drop comment "other"')

    rules = ask(host, lambda: nft.commented_rules("inet", "t", "one"))

    assert [comment for _, comment in rules] == ["", "", "mine"]
    run(host, f"delete rule inet t one handle {rules[2][0]}")
    assert ask(host, lambda: nft.commented_rules("inet", "t", "one")) == rules[:2]
    assert ask(host, lambda: nft.commented_rules("inet", "t", "none")) == []
    assert ask(host, lambda: nft.commented_rules("inet", "none", "one")) == []


MAPS = """\
add map inet t ports4 { type inet_proto . inet_service : ipv4_addr . inet_service ; }
add set inet t links { type ifname ; }
"""
WEB, WEB_TARGET = bytes((6, 0, 0, 0, 31, 144, 0, 0)), packed("10.1.2.3") + bytes((0, 80, 0, 0))


def test_sent_elements_are_those_that_nft_would_make(host: Host) -> None:
    """nft lists exactly the same for elements that it made itself."""
    run(host, TABLE + MAPS)
    run(
        host,
        """\
add element inet t m4 { 10.1.2.3 comment "mynet c1 eth0" : jump one }
add element inet t m6 { 2001:db8::3 comment "mynet c1 eth0" : jump two }
add element inet t ports { tcp . 8080 }
add element inet t ports4 { tcp . 8080 comment "mynet c1 eth0" : 10.1.2.3 . 80 }
add element inet t links { "eth0" }
""",
    )
    expected = host.nft()
    for name in (
        "map inet t m4",
        "map inet t m6",
        "set inet t ports",
        "map inet t ports4",
        "set inet t links",
    ):
        run(host, f"flush {name}")
    assert host.nft() != expected

    owner = "mynet c1 eth0"
    elements = [
        nft.add_element("t", "m4", packed("10.1.2.3"), owner, jump="one"),
        nft.add_element("t", "m6", packed("2001:db8::3"), owner, jump="two"),
        nft.add_element("t", "ports", WEB, ""),
        nft.add_element("t", "ports4", WEB, owner, value=WEB_TARGET),
        nft.add_element("t", "links", b"eth0".ljust(16, b"\0"), ""),
    ]
    host.inside(lambda: nft.change("inet", elements, "test"))

    assert host.nft() == expected


def test_either_all_elements_change_or_none(host: Host) -> None:
    run(host, TABLE + 'add element inet t m4 { 10.1.2.3 comment "old" : jump one, 10.1.2.4 : jump one }')
    before = host.nft()
    replaced = [
        nft.delete_element("t", "m4", packed("10.1.2.3")),
        nft.add_element("t", "m4", packed("10.1.2.3"), "new", jump="two"),
    ]
    for refused in (
        nft.delete_element("t", "m4", packed("10.1.2.99")),
        nft.add_element("t", "m4", packed("10.1.2.98"), "", jump="none"),
        nft.add_element("t", "none", packed("10.1.2.98"), "", jump="one"),
    ):
        with pytest.raises(OSError, match="test") as error:
            host.inside(lambda last=refused: nft.change("inet", [*replaced, last], "test"))  # type: ignore[misc]
        assert error.value.errno == errno.ENOENT
        assert host.nft() == before

    host.inside(lambda: nft.change("inet", replaced, "test"))
    assert comment(host, "10.1.2.3") == "new"
    assert ask(host, lambda: nft.chains("inet", "t"))["two"] == 1


def test_elements_are_those_of_nf_tables() -> None:
    """pyroute2 reads them; its authors used the same headers."""
    kind, flags, body = nft.add_element("t", "m4", packed("10.1.2.3"), "mynet c1 eth0", jump="one")
    header = struct.pack("=BBH", 1, 0, 0)
    message = nft_set_elem_list_msg(struct.pack("=IHHII", 20 + len(body), kind, flags, 1, 0) + header + body)
    message.decode()

    assert (kind & 255, flags) == (NFT_MSG_NEWSETELEM, NLM_F_CREATE)
    assert message["nfgen_family"] == 1
    names = ("NFTA_SET_ELEM_LIST_TABLE", "NFTA_SET_ELEM_LIST_SET")
    assert [message.get_attr(name) for name in names] == ["t", "m4"]
    (element,) = message.get_attr("NFTA_SET_ELEM_LIST_ELEMENTS")
    assert element.get_attr("NFTA_SET_ELEM_KEY").get_attr("NFTA_DATA_VALUE") == packed("10.1.2.3")
    verdict = element.get_attr("NFTA_SET_ELEM_DATA").get_attr("NFTA_DATA_VERDICT")
    assert verdict.get_attr("NFTA_VERDICT_CHAIN") == "one"
    assert nft.delete_element("t", "m4", b"key!")[:2] == (SUBSYSTEM | NFT_MSG_DELSETELEM, 0)


# In bytes: the smallest that the kernel gives, and a default of Linux.
@pytest.mark.parametrize("largest", [0, 4608, 212992])
def test_transaction_of_any_size_is_executed(
    host: Host, monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    """If the socket's buffer cannot hold it, it is divided into several."""
    run(host, TABLE)
    if largest:
        monkeypatch.setattr(netlink, "_socket", with_buffers_of(largest))
    keys = [packed("10.0.0.0")[:2] + number.to_bytes(2, "big") for number in range(9000)]
    elements = [nft.add_element("t", "m4", key, "c" * 60, jump="one") for key in keys]

    ask(host, lambda: nft.change("inet", elements, "test"))
    assert len(ask(host, lambda: nft.elements("inet", "t", "m4"))) == 9000

    ask(host, lambda: nft.change("inet", [nft.delete_element("t", "m4", key) for key in keys], "test"))
    assert ask(host, lambda: nft.elements("inet", "t", "m4")) == []


@pytest.mark.parametrize("number", [3, 300])
def test_many_elements_are_looked_up_as_few_are(host: Host, number: int) -> None:
    """A few by a request for each, many in a list of all."""
    run(host, TABLE)
    keys = [packed("10.0.0.0")[:2] + each.to_bytes(2, "big") for each in range(number)]
    added = [nft.add_element("t", "m4", key, key.hex(), jump="one") for key in keys[1:]]
    added.append(nft.add_element("t", "m4", packed("10.9.9.9"), "another", jump="one"))
    ask(host, lambda: nft.change("inet", added, "test"))

    present = ask(host, lambda: nft.entries_of("inet", "t", "m4", keys))

    assert {key: comment for key, (_value, comment) in present.items()} == {
        key: key.hex() for key in keys[1:]
    }


@pytest.mark.parametrize("place", [0, 2500, 4999])
def test_large_transaction_that_is_refused_changes_nothing(host: Host, place: int) -> None:
    run(host, TABLE)
    elements = [
        nft.add_element("t", "m4", packed("10.0.0.0")[:2] + number.to_bytes(2, "big"), "", jump="one")
        for number in range(5000)
    ]
    elements[place] = nft.add_element("t", "none", packed("10.0.0.1"), "", jump="one")

    with pytest.raises(OSError, match="test: No such file or directory"):
        ask(host, lambda: nft.change("inet", elements, "test"))
    assert ask(host, lambda: nft.elements("inet", "t", "m4")) == []


def test_large_transaction_reports_the_first_of_many_errors(host: Host) -> None:
    run(host, TABLE)
    elements = [nft.add_element("t", "none", packed("10.0.0.1"), "", jump="one")] * 5000

    with pytest.raises(OSError, match="test: No such file or directory"):
        ask(host, lambda: nft.change("inet", elements, "test"))
    assert ask(host, lambda: nft.comment_of("inet", "t", "m4", packed("10.0.0.1"))) is None
