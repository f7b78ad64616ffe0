# SPDX-License-Identifier: Apache-2.0
"""oci.hosts: who is told of whom, whatever the order in which they come and go."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnihook.oci import hosts
from cnihook.oci.etc import File
from cnihook.oci.hosts import LOCALHOST, Entry
from cnihook.runtime.cache import Record

ADDRESSES = {"one": "10.1.0.1", "two": "10.1.0.2", "three": "10.1.0.3"}


def join(state: Path, container_id: str, *networks: str, file: str | None = "", **more: str) -> str:
    """`file` is the container's own by default, None for none."""
    place = File.at(f"{state}/{file or container_id}") if file is not None else None
    own = []
    for network in networks:
        Record(network, container_id, "eth0", config=b"{}").write()
        names = [container_id, "same"]
        own.append(Entry(network, container_id, "eth0", [ADDRESSES[container_id]], names, place))
    problems: list[str] = []
    text = hosts.join(container_id, own, list(more.items()), place, problems)
    assert problems == []
    return text


def leave(container_id: str, network: str) -> None:
    hosts.leave(network, container_id)
    Record(network, container_id, "eth0", config=b"{}").remove()


def told(state: Path, container_id: str) -> set[str]:
    """Whom its file knows, as `ID on NETWORK`; each line is there once."""
    lines = (state / container_id).read_text().removeprefix(LOCALHOST).splitlines()
    assert len(lines) == len(set(lines))
    return {line.partition("# cnihook: ")[2] for line in lines}


CHANGES = st.lists(st.tuples(st.sampled_from(list(ADDRESSES)), st.sampled_from(["a", "b"])), max_size=12)


@settings(max_examples=60)
@given(CHANGES)
def test_each_knows_those_on_its_networks_and_nobody_else(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, str]]
) -> None:
    """Each pair joins where it is not, and leaves where it is."""
    with pytest.MonkeyPatch.context() as patch:
        state = tmp_path_factory.mktemp("state")
        patch.setattr(hosts, "FOLDER", str(state / "names"))
        patch.setattr("cnihook.runtime.cache.FOLDER", str(state / "results"))
        patch.setattr("cnihook.linux.flock.FOLDER", str(state / "run"))
        on: set[tuple[str, str]] = set()
        for change in changes:
            if change in on:
                leave(*change)
            else:
                join(state, *change)
            on ^= {change}
            for container_id in {known for known, _ in changes if (state / known).exists()}:
                networks = {network for known, network in on if known == container_id}
                expected = {f"{known} on {network}" for known, network in on if network in networks}
                assert told(state, container_id) == expected
        assert on or not (state / "names").exists()


def test_names_of_ones_own_mean_oneself(state: Path) -> None:
    """Two containers of one image have one host name."""
    join(state, "one", "a")
    join(state, "two", "a")

    assert (state / "one").read_text() == (
        f"{LOCALHOST}10.1.0.1\tone same\t# cnihook: one on a\n10.1.0.2\ttwo\t# cnihook: two on a\n"
    )


def test_one_without_a_file_is_told_of_and_told_to_the_caller(state: Path) -> None:
    join(state, "one", "a")
    text = join(state, "two", "a", file=None, db="192.0.2.1")

    assert told(state, "one") == {"one on a", "two on a"}
    assert text.splitlines() == [
        "10.1.0.2\ttwo same\t# cnihook: two on a",
        "192.0.2.1\tdb\t# cnihook: two",
        "10.1.0.1\tone\t# cnihook: one on a",
    ]
    leave("two", "a")
    assert told(state, "one") == {"one on a"}


def test_one_without_a_name_is_not_told_of(state: Path) -> None:
    join(state, "one", "a")
    own = Entry("a", "two", "eth0", ["10.1.0.2"], [], None)

    assert hosts.join("two", [own], [], None, []) == "10.1.0.1\tone same\t# cnihook: one on a\n"
    assert os.listdir(state / "run" / "names" / "a") == ["one"] and told(state, "one") == {"one on a"}


def test_added_hosts_stay_until_the_last_network(state: Path) -> None:
    join(state, "one", "a", "b", db="192.0.2.1")
    leave("one", "a")
    assert told(state, "one") == {"one on b", "one"}
    leave("one", "b")
    assert told(state, "one") == set()


def test_a_shared_file_serves_each_of_those_who_have_it(state: Path) -> None:
    join(state, "one", "a", "b", file="shared")
    join(state, "two", "a", file="shared")
    join(state, "three", "b")
    assert told(state, "shared") == {"one on a", "one on b", "two on a", "three on b"}
    leave("one", "b")
    assert told(state, "shared") == {"one on a", "two on a"}
    leave("one", "a")
    assert told(state, "shared") == {"two on a"}
    leave("two", "a")
    assert told(state, "shared") == set()


def test_what_is_on_record_no_more_is_forgotten(state: Path) -> None:
    """By whoever comes by, and by gc."""
    join(state, "one", "a")
    join(state, "two", "a")
    Record("a", "two", "eth0", config=b"{}").remove()
    join(state, "three", "a")
    assert told(state, "one") == told(state, "three") == {"one on a", "three on a"}
    assert told(state, "two") == set()

    for container_id in ("one", "three"):
        Record("a", container_id, "eth0", config=b"{}").remove()
    hosts.sweep()
    assert told(state, "one") == told(state, "three") == set()
    assert not (state / "run" / "names").exists()


@pytest.mark.parametrize("text", ["", "eth0", "eth0\n", "eth0\nx\ny\nz\n", "\xff\n\n\n\n\n"])
def test_an_entry_cut_short_does_no_harm(state: Path, text: str) -> None:
    join(state, "one", "a")
    join(state, "two", "a")
    (state / "run" / "names" / "a" / "two").write_text(text)

    join(state, "three", "a")
    leave("two", "a")
    assert told(state, "one") >= {"one on a", "three on a"}


def test_one_whose_file_is_gone_keeps_nobody_from_the_others(state: Path) -> None:
    join(state, "one", "a")
    join(state, "two", "a")
    (state / "one").unlink()
    own = Entry("a", "three", "eth0", ["10.1.0.3"], ["three"], None)
    Record("a", "three", "eth0", config=b"{}").write()
    problems: list[str] = []
    hosts.join("three", [own], [], None, problems)

    assert problems == [f"{state}/one: No such file or directory"]
    assert "three on a" in told(state, "two")
