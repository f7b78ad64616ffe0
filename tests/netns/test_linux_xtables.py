# SPDX-License-Identifier: Apache-2.0
"""linux.xtables: rules for iptables, as iptables itself reads them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from cnihook.fast.address import IPNet
from cnihook.linux import netlink, xtables
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.xtables import Edits, LegacyTable, Match, NftTable
from tests.support.host.host import Host
from tests.support.skip import skip_or_fail

T = TypeVar("T")
Filter = NftTable | LegacyTable
KINDS: dict[str, Callable[[int], Filter]] = {"nft": NftTable, "legacy": LegacyTable}


@pytest.fixture(autouse=True)
def implementation() -> None:
    """No plugin takes part: one run is enough."""


@pytest.fixture(autouse=True)
def fresh(host: Host) -> Iterator[None]:
    """Use a new socket, because a socket belongs to the namespace that it was made in."""
    host.leaves("nft: *", "file /run/xtables.lock")
    netlink.reopen_netfilter()
    yield
    netlink.reopen_netfilter()


class Tables:
    """The filter table of one kind and one IP version, which linux.xtables and iptables read and change."""

    def __init__(self, host: Host, kind: str, version: int) -> None:
        self.host = host
        self.program = f"{'iptables' if version == 4 else 'ip6tables'}-{kind}"
        if host.run(self.program, "-P", "FORWARD", "DROP", check=False).returncode:
            skip_or_fail(f"this kernel has no tables for {self.program}")
        self.table: Filter = KINDS[kind](version)

    def do(self, function: "Callable[[Filter], T]") -> T:
        return self.host.inside(lambda: function(self.table))

    def change(self, *edits: "Callable[[Edits], None]") -> None:
        collected = Edits()
        for edit in edits:
            edit(collected)
        self.do(lambda table: table.change(collected, "test"))

    def iptables(self, *words: str, check: bool = True) -> list[str]:
        """Return the lines that iptables prints; `check`: iptables must succeed."""
        answer = self.host.run(self.program, *words, check=check)
        return answer.stdout.splitlines()


@pytest.fixture(params=["nft 4", "nft 6", "legacy 4", "legacy 6"])
def tables(
    request: pytest.FixtureRequest, host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Tables:
    kind, version = request.param.split()
    # The test starts the program itself, in the host's network namespace only: it sees the machine's files.
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    return Tables(host, kind, int(version))


def ends(tables: Tables) -> list[str | IPNet]:
    nets = {
        4: ["10.9.0.0/24", "10.16.0.0/12", "10.9.0.2/32"],
        6: ["2001:db8::/61", "2001:db8::/64", "::1/128"],
    }
    return ["cni0", "a", "fifteen-letters", *map(IPNet.parse, nets[tables.table.version])]


def test_rules_are_those_that_iptables_would_make(tables: Tables) -> None:
    """iptables lists them like its own, finds them, and can save and restore them."""
    for chain in ("own", "other"):
        tables.iptables("-N", chain)
    matches = [
        Match(end, incoming=incoming, known=known)
        for end in ends(tables)
        for incoming, known in ((False, False), (True, False), (True, True))
    ]
    for match in matches:
        own = [*match.text().split(), "-m", "comment", "--comment", "cnihook: a b", "-j", "ACCEPT"]
        tables.iptables("-A", "other", *own)
    tables.change(*(lambda edits, m=match: edits.accept("own", m, "cnihook: a b") for match in matches))

    def listed(chain: str) -> list[str]:
        return [line.replace(chain, "X") for line in tables.iptables("-S", chain)]

    assert listed("own") == listed("other") and len(listed("own")) == 1 + len(matches)
    for match in matches:
        own = [*match.text().split(), "-m", "comment", "--comment", "cnihook: a b", "-j", "ACCEPT"]
        tables.iptables("-C", "own", *own)
    saved = tables.host.run(f"{tables.program}-save").stdout
    tables.host.run(f"{tables.program}-restore", input=saved)
    assert listed("own") == listed("other")


def test_existing_rules_are_read(tables: Tables) -> None:
    """Any program may have made them, with any match."""
    tables.iptables("-N", "one")
    tables.iptables("-A", "FORWARD", "-m", "comment", "--comment", "two words", "-j", "one")
    tables.iptables(
        "-A", "FORWARD", "-p", "tcp", "--dport", "80", "-m", "comment", "--comment", "x", "-j", "DROP"
    )
    tables.change(
        lambda edits: edits.jump("FORWARD", "one", "own, first"),
        lambda edits: edits.accept("one", Match("cni0", incoming=True, known=True), "own"),
    )

    assert [(r.comment, r.target) for r in tables.do(lambda t: t.rules("FORWARD"))][:2] == [
        ("own, first", "one"),
        ("two words", "one"),
    ]
    assert [r.comment for r in tables.do(lambda t: t.rules("FORWARD"))][2] == "x"
    assert [r.comment for r in tables.do(lambda t: t.rules("one"))] == ["own"]
    assert tables.do(lambda t: t.rules("none")) == []


def test_policies_are_read(tables: Tables) -> None:
    tables.iptables("-N", "one")

    for chain, policy in (("FORWARD", "drop"), ("one", ""), ("none", None)):
        assert tables.do(lambda table, c=chain: table.policy(c)) == policy  # type: ignore[misc]
    tables.iptables("-P", "FORWARD", "ACCEPT")
    fresh = KINDS[tables.program.rpartition("-")[2]](tables.table.version)
    assert tables.host.inside(lambda: fresh.policy("FORWARD")) == "accept"


def test_chains_are_made_and_deleted_with_their_rules(tables: Tables) -> None:
    before = tables.iptables("-S")
    tables.change(
        lambda edits: edits.add_chain("one"),
        lambda edits: edits.accept("one", Match("cni0", incoming=False), "own"),
        lambda edits: edits.jump("FORWARD", "one", "own"),
    )
    (jump,) = tables.do(lambda table: table.rules("FORWARD"))
    (rule,) = tables.do(lambda table: table.rules("one"))

    tables.change(
        lambda edits: edits.delete_chain("one"),
        lambda edits: edits.delete_rule("one", rule),
        lambda edits: edits.delete_rule("FORWARD", jump),
    )

    assert tables.iptables("-S") == before


def test_either_all_edits_are_made_or_none(tables: Tables) -> None:
    """A refused change does not confuse the next query."""
    before = tables.iptables("-S")

    with pytest.raises((NetlinkError, OSError)) as refused:
        tables.change(
            lambda edits: edits.add_chain("one"),
            lambda edits: edits.jump("FORWARD", "one", "own"),
            lambda edits: edits.jump("FORWARD", "none", "own"),
            lambda edits: edits.jump("FORWARD", "one", "own"),
        )
    assert "test" in str(refused.value)

    assert tables.iptables("-S") == before
    assert tables.do(lambda table: table.policy("FORWARD")) == "drop"


def test_only_existing_tables_are_read(host: Host) -> None:
    """Reading must not make a table that does not exist."""
    before = host.nft()
    assert [type(table) for table in host.inside(lambda: xtables.filters(4))] == [NftTable]
    assert host.inside(lambda: xtables.filters(4)[0].policy("FORWARD")) is None
    assert host.nft() == before

    if host.run("iptables-legacy", "-S", check=False).returncode == 0:
        kinds = [
            [type(table) for table in host.inside(lambda v=version: xtables.filters(v))]  # type: ignore[misc]
            for version in (4, 6)
        ]
        assert kinds == [[NftTable, LegacyTable], [NftTable]]
