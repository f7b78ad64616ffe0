# SPDX-License-Identifier: Apache-2.0
"""names.hosts: which containers have an entry in whose file, in any order of joining and leaving."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnihook.log import Log
from cnihook.names import entries, hosts
from cnihook.names.entries import Entry
from cnihook.names.hosts import LOCALHOST
from cnihook.names.rootfs_file import File
from cnihook.runtime.records import Record
from cnihook.types.errors import CniError

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
    """Join networks; `file` is the hosts file, by default the container's own, None for no file."""
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
    return hosts.add(container_id, own, list(more.items()), place, Log(container_id))


def leave(container_id: str, network: str) -> None:
    hosts.remove(network, container_id)
    Record(network, container_id, "eth0", config=b"{}").remove()


def entries_in(state: Path, container_id: str) -> set[str]:
    """Return the entries in the container's file as `ID on NETWORK`; each line occurs once."""
    lines = (state / container_id).read_text().removeprefix(LOCALHOST).splitlines()
    assert len(lines) == len(set(lines))
    return {line.partition("# cnihook: ")[2] for line in lines}


CHANGES = st.lists(st.tuples(st.sampled_from(list(ADDRESSES)), st.sampled_from(["a", "b"])), max_size=12)


@settings(max_examples=60)
@given(CHANGES)
def test_each_file_has_the_containers_on_its_networks_only(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, str]]
) -> None:
    """Each change is a join if the container is not on the network, otherwise a leave."""
    with pytest.MonkeyPatch.context() as patch:
        state = tmp_path_factory.mktemp("state")
        patch.setattr(entries, "FOLDER", str(state / "names"))
        patch.setattr("cnihook.runtime.records.FOLDER", str(state / "results"))
        patch.setattr("cnihook.linux.flock.FOLDER", str(state / "run"))
        on: set[tuple[str, str]] = set()
        for change in changes:
            if change in on:
                leave(*change)
            else:
                join(state, *change)
            on ^= {change}
            for container_id in {member for member, _ in changes if (state / member).exists()}:
                networks = {network for member, network in on if member == container_id}
                expected = {f"{member} on {network}" for member, network in on if network in networks}
                assert entries_in(state, container_id) == expected
        assert on or not (state / "names").exists()


def test_own_names_are_those_of_the_container_itself(state: Path) -> None:
    """Two containers of one image may have the same host name."""
    join(state, "one", "a")
    join(state, "two", "a")

    assert (state / "one").read_text() == (
        f"{LOCALHOST}10.1.0.1\tone same\t# cnihook: one on a\n10.1.0.2\ttwo\t# cnihook: two on a\n"
    )


def test_container_without_a_file_has_entries_and_its_lines_are_returned(state: Path) -> None:
    join(state, "one", "a")
    text = join(state, "two", "a", file=None, db="192.0.2.1")

    assert entries_in(state, "one") == {"one on a", "two on a"}
    assert text.splitlines() == [
        "10.1.0.2\ttwo same\t# cnihook: two on a",
        "192.0.2.1\tdb\t# cnihook: two",
        "10.1.0.1\tone\t# cnihook: one on a",
    ]
    leave("two", "a")
    assert entries_in(state, "one") == {"one on a"}


def test_container_without_a_name_has_no_entry(state: Path) -> None:
    join(state, "one", "a")
    own = Entry("a", "two", "eth0", ["10.1.0.2"], [], [], None)

    assert hosts.add("two", [own], [], None, Log("two")) == "10.1.0.1\tone same\t# cnihook: one on a\n"
    assert os.listdir(state / "run" / "names" / "a") == ["one"] and entries_in(state, "one") == {"one on a"}


def test_added_hosts_stay_until_the_last_network(state: Path) -> None:
    join(state, "one", "a", "b", db="192.0.2.1")
    leave("one", "a")
    assert entries_in(state, "one") == {"one on b", "one"}
    leave("one", "b")
    assert entries_in(state, "one") == set()


def test_shared_file_has_the_entries_of_all_its_containers(state: Path) -> None:
    join(state, "one", "a", "b", file="shared")
    join(state, "two", "a", file="shared")
    join(state, "three", "b")
    assert entries_in(state, "shared") == {"one on a", "one on b", "two on a", "three on b"}
    leave("one", "b")
    assert entries_in(state, "shared") == {"one on a", "two on a"}
    leave("one", "a")
    assert entries_in(state, "shared") == {"two on a"}
    leave("two", "a")
    assert entries_in(state, "shared") == set()


def test_entries_without_a_record_are_removed(state: Path) -> None:
    """The next join removes them, and so does gc."""
    join(state, "one", "a")
    join(state, "two", "a")
    Record("a", "two", "eth0", config=b"{}").remove()
    join(state, "three", "a")
    assert entries_in(state, "one") == entries_in(state, "three") == {"one on a", "three on a"}
    assert entries_in(state, "two") == set()

    for container_id in ("one", "three"):
        Record("a", container_id, "eth0", config=b"{}").remove()
    hosts.prune()
    assert entries_in(state, "one") == entries_in(state, "three") == set()
    assert not (state / "run" / "names").exists()


@pytest.mark.parametrize("text", ["", "eth0", "eth0\n", "eth0\nx\ny\nz\n", "\xff\n\n\n\n\n"])
def test_truncated_entry_is_harmless(state: Path, text: str) -> None:
    join(state, "one", "a")
    join(state, "two", "a")
    (state / "run" / "names" / "a" / "two").write_text(text)

    join(state, "three", "a")
    leave("two", "a")
    assert entries_in(state, "one") >= {"one on a", "three on a"}


def test_missing_file_does_not_stop_changes_of_the_others(state: Path) -> None:
    join(state, "one", "a")
    join(state, "two", "a")
    (state / "one").unlink()
    own = Entry("a", "three", "eth0", ["10.1.0.3"], ["three"], [], None)
    Record("a", "three", "eth0", config=b"{}").write()
    hosts.add("three", [own], [], None, Log("three"))

    assert "not in the hosts file of one: No such file or directory" in Log("three").read()
    assert "its /etc/hosts is not changed: No such file" in Log("one").read()
    assert "three on a" in entries_in(state, "two")


# One name, several containers


def lines_with(state: Path, container_id: str, name: str) -> list[str]:
    """Return the addresses of a name in a container's file, in order."""
    lines = (state / container_id).read_text().splitlines()
    return [line.split()[0] for line in lines if name in line.partition("#")[0].split()[1:]]


@pytest.mark.parametrize("claim", ["ID", "host name"])
def test_alias_that_is_the_name_of_another_is_refused(state: Path, claim: str) -> None:
    join(state, "one", "a", host_name="first")
    with pytest.raises(CniError, match=f"name .* on network a: it is the {claim} of container one"):
        join(state, "two", "a", aliases=("ONE" if claim == "ID" else "first",))

    assert entries_in(state, "one") == {"one on a"}
    join(state, "two", "b", aliases=("one", "first"))


def test_requested_host_name_that_is_the_id_of_another_is_refused(state: Path) -> None:
    """A host name in config.json stays in the container's own file, because the runtime sets that name."""
    join(state, "one", "a")
    Record("a", "two", "eth0", config=b"{}").write()
    (state / "two").write_text("")
    own = Entry("a", "two", "eth0", ["10.1.0.2"], ["one", "two"], [], File.at(f"{state}/two"))
    with pytest.raises(CniError, match="it is the ID of container one"):
        hosts.add("two", [own], [], own.file, Log("two"), "one")
    hosts.add("two", [own], [], own.file, Log("two"))

    assert lines_with(state, "one", "one") == ["10.1.0.1"]
    assert lines_with(state, "two", "one") == ["10.1.0.2", "10.1.0.1"]
    assert "not known as one on a: that is container one" in Log("two").read()


@pytest.mark.parametrize("claim", ["two", "name-of-two"])
def test_name_taken_in_advance_is_returned_to_its_container(state: Path, claim: str) -> None:
    """A container that starts first cannot keep the ID or the host name of another one as its alias."""
    join(state, "three", "a", host_name="x")
    join(state, "one", "a", aliases=(claim, "other"), host_name="y")
    assert lines_with(state, "three", claim) == ["10.1.0.1"]
    join(state, "two", "a", host_name="name-of-two")

    for each in ("one", "two", "three"):
        assert lines_with(state, each, claim) == ["10.1.0.2"]
        assert lines_with(state, each, "other") == ["10.1.0.1"]
    assert f"no longer known as {claim} on a: that is container two" in Log("one").read()
    leave("one", "a")
    assert entries_in(state, "three") == {"two on a", "three on a"}


def test_first_container_with_a_shared_alias_is_first_in_each_file(state: Path) -> None:
    """This holds in the file of a later container too, and both logs report it."""
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
    """The container may have made the file so long; the logs have the reason."""
    join(state, "one", "a")
    join(state, "two", "a")
    with open(state / "one", "ab") as file:
        file.truncate(5 << 20)
    join(state, "three", "a")
    assert "not in the hosts file of one: it is longer than 4 MiB" in Log("three").read()
    assert "its /etc/hosts is not changed: it is longer" in Log("one").read()

    leave("two", "a")
    assert b"two on a" not in (state / "one").read_bytes()
