# SPDX-License-Identifier: Apache-2.0
"""Listings: what a container may look up, as a file; the denials; what an answer may open."""

from pathlib import Path

import pytest

from cnihook.fast.address import Address
from cnihook.resolver import denials, listing, lookup, message
from cnihook.resolver.denials import Table
from cnihook.resolver.listing import Listing, Names, matches, parse_name, parse_pattern
from cnihook.resolver.message import Record


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "FOLDER", str(tmp_path / "containers"))
    monkeypatch.setattr(denials, "FOLDER", str(tmp_path / "denied"))


def test_pattern_allows_what_it_names() -> None:
    assert matches("pypi.org", "pypi.org") and not matches("pypi.org", "www.pypi.org")
    assert matches("*.x.org", "a.x.org") and matches("*.x.org", "a.b.x.org")
    for other in ("x.org", "ax.org", ".x.org", "a.x.org.evil.com", "a\\046x.org"):
        assert not matches("*.x.org", other)


def test_names_are_made_uniform() -> None:
    assert (
        parse_pattern("*.PyPI.org.") == "*.pypi.org" and parse_name("_a.xn--bcher-kva") == "_a.xn--bcher-kva"
    )


@pytest.mark.parametrize(
    "text",
    ["", ".", "*", "*.", "a..b", ".a", "*a.b", "a.*.b", "bücher.de", "a b", "a" * 64, "a." * 127 + "ab"],
)
def test_invalid_pattern_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not a DNS name"):
        parse_pattern(text)


def test_name_must_be_in_every_limit() -> None:
    """A list of the container does not widen that of the host."""
    limits = [["*.org"], ["pypi.org", "evil.com"]]
    one = Listing("c", [], [], [Names(["pypi.org", "evil.com", "a.org"], "n-1")], limits=limits)

    assert one.matching("pypi.org") == [("n-1", "pypi.org")]
    assert one.matching("evil.com") == one.matching("a.org") == []


def test_listing_survives_its_file() -> None:
    addresses, gateways = [Address.parse("10.1.0.2"), Address.parse("fd00::2")], [Address.parse("10.1.0.1")]
    names = [Names(["pypi.org", "*.pythonhosted.org"], "n-1"), Names(["pypi.org"], "n-2")]
    Listing("c.new", addresses, gateways, names, ["192.0.2.1"], limits=[["*.org"]], audit=True).write()

    assert listing.containers() == ["c.new"]
    same = Listing.read("c.new")
    assert same and (same.addresses, same.gateways, same.servers) == (addresses, gateways, ["192.0.2.1"])
    assert (
        same.limits == [["*.org"]]
        and same.audit
        and same.matching("pypi.org") == [("n-1", "pypi.org"), ("n-2", "pypi.org")]
    )
    assert same.matching("a.pythonhosted.org") == [("n-1", "*.pythonhosted.org")]
    assert same.matching("pythonhosted.org") == []
    assert listing.forget("c.new") and not listing.forget("c.new")
    assert Listing.read("c.new") is None and listing.containers() == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"addresses": [1]}', '{"addresses": ["x"]}'])
def test_malformed_listing_is_a_value_error(text: str) -> None:
    path = Path(listing.FOLDER)
    path.mkdir()
    (path / "c").write_text(text)
    with pytest.raises(ValueError, match=f"^{path / 'c'}: "):
        Listing.read("c")


def test_denials_are_bounded_and_survive_the_process() -> None:
    table = Table("c")
    for number in range(300):
        table.add(f"{number}.org", denials.NOT_LISTED)
    table.add("299.org", denials.NOT_LISTED)
    table.write()

    kept = denials.read("c")
    assert len(kept) == 256 and (kept[-1].name, kept[-1].count, kept[-1].reason) == (
        "299.org",
        2,
        "not listed",
    )
    again = Table("c")
    again.add("44.org", denials.NOT_LISTED)
    again.write()
    assert denials.read("c")[-1].count == 2 and '"more":44' in Path(f"{denials.FOLDER}/c").read_text()
    denials.forget("c")
    assert denials.read("c") == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"names": {"a": 1}, "more": 0}', '{"names": [], "more": "x"}']
)
def test_damaged_file_of_denials_is_empty(text: str) -> None:
    path = Path(denials.FOLDER)
    path.mkdir()
    (path / "c").write_text(text)
    assert denials.read("c") == [] and not Table("c").is_changed


def test_special_addresses_are_never_opened() -> None:
    special = "0.0.0.0 127.0.0.1 169.254.169.254 224.0.0.1 255.255.255.255 :: ::1 fe80::1 ff02::1"
    special += " 100.100.100.200 168.63.129.16 fd00:ec2::254 64:ff9b::a9fe:a9fe 64:ff9b::7f00:1 ::7f00:1"
    special += " fd00:ec2::23 fd20:ce::254 fd00:c1::a9fe:a9fe fd00:42::42"
    usual = "10.0.0.1 93.184.215.14 fd00::1 2001:db8::1 64:ff9b::5db8:d70e"
    mapped = Address(bytes(10) + b"\xff\xff\x0a\0\0\1")

    assert lookup.is_special(mapped) and all(
        lookup.is_special(Address.parse(one)) for one in special.split()
    )
    assert not any(lookup.is_special(Address.parse(one)) for one in usual.split())


def test_only_addresses_at_the_end_of_the_aliases_count() -> None:
    """A server may add records about other names, and aliases in any order, or in a circle."""
    a, b, c, other = (b"a",), (b"b",), (b"c",), (b"other",)
    one, two = Address.parse("10.0.0.1"), Address.parse("10.0.0.2")
    records = [
        Record(other, 1, two), Record(b, 1, target=c), Record((b"C",), 1, one), Record(a, 1, target=b),
        Record(a, 1, two), Record(c, 1, one), Record(c, 1, Address.parse("fd00::1")),
    ]  # fmt: skip
    chain, last = lookup.follow((b"A",), records)
    assert [record.target for record in chain] == [b, c] and last == c
    assert [record.address for record in lookup.usable(last, records, message.A)] == [one]

    circle = [Record(a, 1, target=b), Record(b, 1, target=a)]
    chain, last = lookup.follow(a, circle)
    assert len(chain) == 2 and lookup.usable(last, circle, message.A) == []
