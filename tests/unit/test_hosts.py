# SPDX-License-Identifier: Apache-2.0
"""oci.hosts: who is told of whom, whatever the order in which they come and go."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnihook.log import Log
from cnihook.oci import entries, hosts
from cnihook.oci.entries import Entry
from cnihook.oci.hosts import LOCALHOST
from cnihook.oci.rootfs_file import File
from cnihook.runtime.cache import Record
from cnihook.spec.errors import CniError

ADDRESSES = {"one": "10.1.0.1", "two": "10.1.0.2", "three": "10.1.0.3"}


def join(
    state: Path,
    container_id: str,
    *networks: str,
    file: str | None = "",
    host_name: str = "same",
    aliases: tuple[str, ...] = (),
    **more: str,
) -> str:
    """`file` is the container's own by default, None for none."""
    place = File.at(f"{state}/{file or container_id}") if file is not None else None
    if place and place.read() is None:
        place.write("")
    own = []
    for network in networks:
        Record(network, container_id, "eth0", config=b"{}").write()
        names = [container_id, host_name]
        own.append(
            Entry(network, container_id, "eth0", [ADDRESSES[container_id]], names, list(aliases), place)
        )
    return hosts.join(container_id, own, list(more.items()), place, Log(container_id))


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
        patch.setattr(entries, "FOLDER", str(state / "names"))
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
    own = Entry("a", "two", "eth0", ["10.1.0.2"], [], [], None)

    assert hosts.join("two", [own], [], None, Log("two")) == "10.1.0.1\tone same\t# cnihook: one on a\n"
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
    own = Entry("a", "three", "eth0", ["10.1.0.3"], ["three"], [], None)
    Record("a", "three", "eth0", config=b"{}").write()
    hosts.join("three", [own], [], None, Log("three"))

    assert "not in the hosts file of one: No such file or directory" in Log("three").read()
    assert "its /etc/hosts is not changed: No such file" in Log("one").read()
    assert "three on a" in told(state, "two")


# One name, several containers


def lines_with(state: Path, container_id: str, name: str) -> list[str]:
    """The addresses that a name has in a container's file, in their order."""
    lines = (state / container_id).read_text().splitlines()
    return [line.split()[0] for line in lines if name in line.partition("#")[0].split()[1:]]


@pytest.mark.parametrize("claim", ["ID", "host name"])
def test_alias_that_is_the_name_of_another_is_refused(state: Path, claim: str) -> None:
    join(state, "one", "a", host_name="first")
    with pytest.raises(CniError, match=f"name .* on network a: it is the {claim} of container one"):
        join(state, "two", "a", aliases=("ONE" if claim == "ID" else "first",))

    assert told(state, "one") == {"one on a"}
    join(state, "two", "b", aliases=("one", "first"))


def test_requested_host_name_that_is_the_id_of_another_is_refused(state: Path) -> None:
    """One of config.json only stays in the container's own file: the runtime gives it that name."""
    join(state, "one", "a")
    Record("a", "two", "eth0", config=b"{}").write()
    (state / "two").write_text("")
    own = Entry("a", "two", "eth0", ["10.1.0.2"], ["one", "two"], [], File.at(f"{state}/two"))
    with pytest.raises(CniError, match="it is the ID of container one"):
        hosts.join("two", [own], [], own.file, Log("two"), "one")
    hosts.join("two", [own], [], own.file, Log("two"))

    assert lines_with(state, "one", "one") == ["10.1.0.1"]
    assert lines_with(state, "two", "one") == ["10.1.0.2", "10.1.0.1"]
    assert "not known as one on a: that is container one" in Log("two").read()


@pytest.mark.parametrize("claim", ["two", "name-of-two"])
def test_name_taken_in_advance_goes_to_its_container(state: Path, claim: str) -> None:
    """A container that starts first cannot keep the ID or the host name of another by an alias."""
    join(state, "three", "a", host_name="x")
    join(state, "one", "a", aliases=(claim, "other"), host_name="y")
    assert lines_with(state, "three", claim) == ["10.1.0.1"]
    join(state, "two", "a", host_name="name-of-two")

    for each in ("one", "two", "three"):
        assert lines_with(state, each, claim) == ["10.1.0.2"]
        assert lines_with(state, each, "other") == ["10.1.0.1"]
    assert f"no longer known as {claim} on a: that is container two" in Log("one").read()
    leave("one", "a")
    assert told(state, "three") == {"two on a", "three on a"}


def test_first_of_two_with_one_alias_is_first_in_each_file(state: Path) -> None:
    """Also in the file of a container that comes later, and both logs say so."""
    join(state, "two", "a", aliases=("db",), host_name="x")
    join(state, "one", "a", aliases=("db",), host_name="y")
    join(state, "three", "a", host_name="z")

    assert lines_with(state, "three", "db") == ["10.1.0.2", "10.1.0.1"]
    assert lines_with(state, "one", "db") == ["10.1.0.1"] and lines_with(state, "two", "db") == ["10.1.0.2"]
    assert "name db on a leads to container two first" in Log("one").read()
    assert "name db on a is that of container one, too" in Log("two").read()
    leave("two", "a")
    assert lines_with(state, "three", "db") == ["10.1.0.1"]


def test_entry_of_many_names_is_read_whole(state: Path) -> None:
    names = [f"{number:060}" for number in range(3000)]
    join(state, "one", "a", aliases=tuple(names))
    entry = Entry.read("a", "one")

    assert entry and entry.aliases == names and entry.addresses == ["10.1.0.1"] and entry.file
    assert entry.file.identity == (os.stat(state / "one").st_dev, os.stat(state / "one").st_ino)


def test_file_that_is_too_long_is_cleaned_and_not_made_longer(state: Path) -> None:
    """The container may have made it so; the reason is in the logs."""
    join(state, "one", "a")
    join(state, "two", "a")
    with open(state / "one", "ab") as file:
        file.truncate(5 << 20)
    join(state, "three", "a")
    assert "not in the hosts file of one: it is longer than 4 MiB" in Log("three").read()
    assert "its /etc/hosts is not changed: it is longer" in Log("one").read()

    leave("two", "a")
    assert b"two on a" not in (state / "one").read_bytes()
