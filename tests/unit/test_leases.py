# SPDX-License-Identifier: Apache-2.0
"""ipam.leases: after any sequence of operations, kills and damage, no lease is lost or given twice."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cnihook.fast.address import Address
from cnihook.ipam import leases, sticky
from cnihook.ipam.leases import Store

POOL = [Address.parse(text) for text in ("10.9.0.2", "10.9.0.3", "10.9.0.4", "fd09::2", "fd09::3")]
OWNERS = ["c1", "c2", "c3"]


class Killed(BaseException):
    """A simulated kill: no code of the operation runs after it."""


class Folder:
    """A folder of leases, and system calls before which a kill can happen."""

    CALLS = ("open", "write", "unlink", "symlink", "rename", "rmdir", "mkdir", "utime", "readlink", "lstat")

    def __init__(self, path: Path, patch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.left = -1  # calls until the kill; -1: no kill
        self.listings = 0
        for name in self.CALLS:
            patch.setattr(os, name, self._counted(getattr(os, name)))
        listdir = os.listdir

        def counted(folder: Any = ".") -> list[str]:
            self.listings += 1
            return listdir(folder)

        patch.setattr(os, "listdir", counted)

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            if self.left == 0:
                raise Killed
            self.left -= self.left > 0
            return call(*arguments, **options)

        return counted

    def run(self, operation: Callable[[Store], Any], container_id: str, kill_at: int = -1) -> Any:
        """Run one operation as a process of its own would; return None if it is killed."""
        self.left = kill_at
        store = Store(str(self.path), container_id, "eth0")
        try:
            with store:
                return operation(store)
        except Killed:
            return None
        finally:
            self.left = -1

    def add(self, container_id: str, kill_at: int = -1) -> Any:
        return self.run(allocate, container_id, kill_at)

    def delete(self, container_id: str, kill_at: int = -1) -> Any:
        return self.run(release, container_id, kill_at)

    def gc(self, keep: set[str], kill_at: int = -1) -> Any:
        owners = {leases.owner(name, "eth0") for name in keep}
        return self.run(lambda store: release_others(store, owners), "", kill_at)

    def lease(self, address: Address | str) -> Path:
        return self.path / str(address)

    def of(self, container_id: str) -> set[str]:
        """Return the leases with this owner, without using the index."""
        content = leases.owner(container_id, "eth0")
        return {
            path.name
            for path in self.path.iterdir()
            if path.is_file() and not path.is_symlink() and path.read_bytes() == content
        }

    def links(self) -> dict[str, str]:
        owners = self.path / ".owners"
        return {path.name: os.path.basename(os.readlink(path)) for path in owners.glob("*")}

    def reference_add(self, container_id: str, address: Address) -> bool:
        """Lease as the reference plugin does: with a file, without a link."""
        self.path.mkdir(exist_ok=True)
        if os.path.lexists(self.lease(address)):
            return False
        self.lease(address).write_bytes(leases.owner(container_id, "eth0"))
        return True

    def reference_delete(self, container_id: str) -> None:
        """Release as the reference plugin does: remove all files and links with the owner as content."""
        for path in [*self.path.glob(".owners/*"), *self.path.iterdir()]:
            if path.is_file() and path.read_bytes() == leases.owner(container_id, "eth0"):
                path.unlink()


def allocate(store: Store) -> list[Address]:
    """Lease an IPv4 and an IPv6 address if available, or no address if the owner has a lease."""
    if store.owned():
        return []
    leased: list[Address] = []
    for number, version in enumerate((4, 6)):
        free = (each for each in POOL if each.version == version and store.reserve(each, number))
        address = next(free, None)
        if address is None:
            store.release([str(each) for each in leased])
            return []
        leased.append(address)
    return leased


def release(store: Store) -> bool:
    store.release()
    return True


def release_others(store: Store, keep: set[bytes]) -> bool:
    store.release_others(keep)
    return True


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return Folder(tmp_path / "net1", monkeypatch)


@pytest.mark.parametrize("other", [False, True], ids=["alone", "with-another"])
def test_killed_add_leaves_nothing_after_del(folder: Folder, other: bool) -> None:
    for number in range(200):
        shutil.rmtree(folder.path, ignore_errors=True)
        if other:
            folder.add("c2")
        result = folder.add("c1", kill_at=number)
        assert folder.delete("c1")
        assert folder.of("c1") == set() and len(folder.of("c2")) == (2 if other else 0)
        assert set(folder.links().values()) == folder.of("c2")
        if result:
            return
    pytest.fail("add has no end")


def test_killed_del_is_completed_by_the_next(folder: Folder) -> None:
    for number in range(200):
        folder.add("c1")
        finished = folder.delete("c1", kill_at=number)
        assert folder.delete("c1")
        assert folder.of("c1") == set() and folder.links() == {}
        if finished:
            return
    pytest.fail("del has no end")


def test_killed_gc_is_completed_by_the_next(folder: Folder) -> None:
    for number in range(400):
        folder.add("c1")
        folder.add("c2")
        finished = folder.gc({"c2"}, kill_at=number)
        assert folder.gc({"c2"})
        assert folder.of("c1") == set() and len(folder.of("c2")) == 2
        assert set(folder.links().values()) == folder.of("c2")
        folder.delete("c2")
        if finished:
            return
    pytest.fail("gc has no end")


def test_ordinary_add_and_del_list_no_folder(folder: Folder) -> None:
    """Their time must not grow with the number of leases."""
    folder.add("c1")
    folder.listings = 0

    assert folder.add("c2") and folder.add("c3") == [] and folder.delete("c2")  # c3 finds no IPv6 address
    assert folder.add("c2") and folder.delete("c1")
    assert folder.listings == 0


def test_end_of_a_container_with_a_sticky_name_lists_no_folder(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work does not grow with the leases of others."""
    monkeypatch.setattr(sticky, "FOLDER", str(tmp_path))
    (tmp_path / "web").write_text("{}")
    addresses = set(map(str, folder.add("c1")))
    folder.add("c2")
    folder.listings = 0

    folder.run(lambda store: sticky.Kept("web", store, leases.owner("c1", "eth0")).release(), "c1")
    assert folder.listings == 0
    assert {
        path.name for path in folder.path.iterdir() if path.is_file() and path.read_bytes() == b"sticky:web"
    } == addresses


def test_lease_of_the_reference_is_released_with_one_of_cnihook(folder: Folder) -> None:
    """One owner can have leases of both implementations if a range was added to the configuration later."""
    folder.add("c1")
    folder.reference_add("c1", Address.parse("10.9.0.99"))

    assert folder.delete("c1")
    assert folder.of("c1") == set()


def test_stale_link_hides_no_lease_of_the_reference(folder: Folder) -> None:
    folder.add("c1")
    links = sorted(folder.path.glob(".owners/*"))
    for address in folder.of("c1"):
        folder.lease(address).unlink()
    links[0].unlink()  # the second one stays
    folder.reference_add("c1", POOL[0])

    assert folder.delete("c1")
    assert folder.of("c1") == set() and folder.links() == {}


@pytest.mark.parametrize("number", [0, 1])
def test_link_removed_by_hand_hides_no_lease(folder: Folder, number: int) -> None:
    folder.add("c1")
    sorted(folder.path.glob(".owners/*"))[number].unlink()

    assert folder.delete("c1")
    assert folder.of("c1") == set()


def test_mtime_restored_without_links_loses_no_lease(folder: Folder) -> None:
    """A backup may be restored so.  A DEL that finds no link reads the folder in any case."""
    folder.add("c1")
    shutil.rmtree(folder.path / ".owners")
    os.utime(folder.path, (leases._MARK, leases._MARK))

    assert folder.delete("c1")
    assert folder.of("c1") == set()


def test_gc_removes_links_without_a_lease(folder: Folder) -> None:
    folder.add("c1")
    folder.add("c2")
    owner = folder.links()
    folder.lease(POOL[0]).write_bytes(leases.owner("c3", "eth0"))  # c1 had this address

    folder.gc({"c1", "c2", "c3"})

    assert len(folder.links()) == len(owner) and folder.of("c3") == {str(POOL[0])}
    folder.delete("c1")
    assert folder.of("c3") == {str(POOL[0])}


def test_damaged_lease_of_a_living_container_is_kept_by_gc(folder: Folder) -> None:
    """The link has the owner; releasing the lease would give the address to a second container."""
    folder.add("c1")
    folder.add("c2")
    for address in (POOL[0], POOL[1]):
        folder.lease(address).write_bytes(b"\271\377")

    folder.gc({"c2"})

    assert not folder.lease(POOL[0]).exists() and folder.lease(POOL[1]).exists()


def replaced_by(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


DAMAGE: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: path.write_bytes(b"\271\377\0"),
    "cut": lambda path: os.truncate(path, 1),
    "empty": lambda path: os.truncate(path, 0),
    "gone": Path.unlink,
    "fifo": replaced_by(os.mkfifo),
    "folder": replaced_by(Path.mkdir),
    "loop": replaced_by(lambda path: path.symlink_to(path.name)),
    "dangling": replaced_by(lambda path: path.symlink_to("nothing")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_lease_blocks_neither_its_owner_nor_others(folder: Folder, damage: str) -> None:
    folder.add("c1")
    DAMAGE[damage](folder.lease(POOL[0]))

    assert folder.add("c2") and folder.delete("c1") and folder.add("c1")
    assert not folder.of("c1") & folder.of("c2")
    assert folder.gc({"c2"}) and folder.of("c1") == set() and len(folder.of("c2")) == 2


@pytest.mark.parametrize("is_indexed", [True, False])
@pytest.mark.parametrize("content", [b"c1\r\neth", b"c", b"\271\377"])
def test_damaged_lease_is_released_with_its_owner(folder: Folder, content: bytes, is_indexed: bool) -> None:
    """The link has the owner, also while the links are being rebuilt."""
    folder.add("c1")
    folder.lease(POOL[0]).write_bytes(content)
    if not is_indexed:
        os.utime(folder.path)

    assert folder.delete("c1")
    assert not folder.lease(POOL[0]).exists() and folder.links() == {}


Step = tuple[str, str, int]
STEPS = st.tuples(
    st.sampled_from(["add", "delete", "gc", "reference add", "reference delete", "link", *DAMAGE]),
    st.sampled_from(OWNERS),
    st.integers(-1, 40),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=14))
@example(steps=[("add", "c1", 14), ("delete", "c1", -1)])
def test_no_lease_is_lost_and_no_address_given_twice(folder: Folder, steps: list[Step]) -> None:
    """`held` is what live containers have; a damaged lease no longer counts."""
    shutil.rmtree(folder.path, ignore_errors=True)
    folder.path.mkdir()
    held: dict[str, set[str]] = {name: set() for name in OWNERS}
    for what, name, number in steps:
        if what == "add":
            addresses = {str(each) for each in folder.add(name, kill_at=number) or ()}
            for other in OWNERS:
                assert not addresses & held[other], f"{addresses} is leased twice"
            held[name] |= addresses
        elif what == "reference add":
            address = POOL[number % len(POOL)]
            if folder.reference_add(name, address):
                held[name].add(str(address))
        elif what == "gc":
            living = {each for each in OWNERS if held[each]}
            if folder.gc(living, kill_at=number):
                for each in set(OWNERS) - living:
                    assert folder.of(each) == set()
        elif what == "reference delete":
            folder.reference_delete(name)
            held[name] = set()
        elif what == "delete":
            if folder.delete(name, kill_at=number):
                assert folder.of(name) == set(), f"a lease of {name} is lost"
            held[name] = set()
        elif what == "link":
            for path in sorted(folder.path.glob(".owners/*"))[:1]:
                path.unlink()
        elif what in DAMAGE and held[name]:
            address_name = sorted(held[name])[number % len(held[name])]
            DAMAGE[what](folder.lease(address_name))
            held[name].discard(address_name)
        for owner_name in OWNERS:
            assert held[owner_name] <= folder.of(owner_name), f"{owner_name} has lost its lease"
    folder.gc(set())
    for name in OWNERS:
        assert folder.of(name) == set()
    assert set(folder.links().values()) == set()
