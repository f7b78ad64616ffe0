# SPDX-License-Identifier: Apache-2.0
"""The rules of claims: whatever the store and five hosts do, no block has two hosts that may use it."""

import itertools
import json
import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnihook.cluster import claims
from cnihook.cluster.claims import FullError, Own
from cnihook.cluster.model import Member, Settings
from cnihook.cluster.peers import Peers, follow
from cnihook.cluster.store import Keys, StoreError
from cnihook.cluster.view import View
from tests.support.cluster.dict_store import Database, DictStore

KEYS = Keys("wide")
COUNT = 8  # blocks


def config(epoch: int) -> bytes:
    value = {
        "subnets": ["10.60.0.0/21"],
        "blocks": [24],
        "transport": "none",
        "mtu": 1450,
        "epoch": f"{epoch:x}",
    }
    return Settings.from_json(json.dumps(value).encode()).to_json()


@dataclass
class Host:
    """A host: its connection, what it has on disk, and the last state of the store that it has read."""

    number: int
    store: DictStore
    own: Own = Own()
    peers: Peers | None = None
    view: View | None = None
    member: Member = field(init=False)

    def __post_init__(self) -> None:
        digit = f"{self.number:x}"
        self.member = Member(digit * 32, f"h{digit}", digit * 8, f"192.0.2.{self.number + 1}")

    def list(self) -> None:
        items, revision = self.store.items(KEYS.watched)
        kept, _ = self.store.items(KEYS.quarantined)
        self.view = View(KEYS, items, revision)
        quarantine = {item.key.removeprefix(KEYS.quarantine("")): item.value for item in kept}
        self.peers = follow(self.peers, self.view, quarantine)

    def settle(self) -> None:
        """Act upon the last state, which may be old."""
        if self.view:
            self.own = claims.settle(self.store, KEYS, self.view, self.own, self.member)

    @property
    def holds(self) -> str:
        return "" if self.own.fenced else self.own.key


class World:
    """A store, five hosts, and an operator."""

    def __init__(self) -> None:
        self.database = Database()
        self.operator = DictStore(self.database)
        self.hosts = [Host(number, DictStore(self.database)) for number in range(5)]
        self.given_up: set[int] = set()  # hosts of which the operator has said that they are gone
        self.epochs = itertools.count(1)
        self.init()

    def holder(self, part: str) -> Member | None:
        item = self.operator.get(KEYS.block(part))
        return Member.from_json(item.value) if item else None

    def init(self) -> None:
        self.operator.create(KEYS.config, config(next(self.epochs)))

    def recover(self, number: int) -> None:
        """Write the settings again, as `init --recover` does on a host that has joined."""
        peers = self.hosts[number].peers
        if self.operator.get(KEYS.config) or not peers:
            return
        saved = set()
        for part, block in peers.blocks.items():
            if not self.holder(part):
                self.operator.create(KEYS.quarantine(part), claims.quarantined(block.member.host))
                saved.add((part, block.member.host))
        for host in self.hosts:
            part = host.holds
            if part and not self.holder(part) and (part, host.member.host) not in saved:
                self.given_up.add(host.number)
        self.init()

    def forget(self, number: int) -> None:
        part = self.hosts[number].own.key
        item = self.operator.get(KEYS.block(part)) if part else None
        if item and Member.from_json(item.value).host == self.hosts[number].member.host:
            self.given_up.add(number)
            claims.forget(self.operator, KEYS, part, item.value, self.hosts[number].member.host, 0)

    def check(self) -> None:
        for host in self.hosts:
            holder = self.holder(host.own.key) if host.own.key else None
            if host.own.fenced or (holder and holder.claim == host.member.claim):
                self.given_up.discard(host.number)
        held = [host.holds for host in self.hosts if host.holds and host.number not in self.given_up]
        assert len(held) == len(set(held)), held

    def act(self, action: str, number: int) -> None:
        host = self.hosts[number]
        try:
            match action:
                case "list":
                    host.list()
                case "settle":
                    host.settle()
                case "cut":
                    host.store.cut = not host.store.cut
                case "lose answer":
                    host.store.lost_answers = 1
                case "restart":
                    host.view = None
                case "reset":
                    self.database.reset()
                case "forget":
                    self.forget(number)
                case "recover":
                    self.recover(number)
        except StoreError:
            pass


ACTIONS = ["list"] * 4 + ["settle"] * 4 + ["cut", "lose answer", "restart", "reset", "forget", "recover"]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 4)), max_size=60),
    st.integers(0, 1 << 16),
)
def test_no_two_hosts_hold_a_block_and_routes_have_owners(steps: list[tuple[str, int]], seed: int) -> None:
    """Play any order of claims, resets, partitions, lost answers and returns."""
    random.seed(seed)
    world = World()
    for action, number in steps:
        world.act(action, number)
        world.check()

    # At the end the store is reachable again.  If it has no settings, an operator writes them after the
    # hosts have claimed their blocks again.
    for host in world.hosts:
        host.store.cut, host.store.lost_answers = False, 0
    for turn in range(5):
        for host in world.hosts:
            host.list()
            host.settle()
            world.check()
        if turn == 1:
            world.init()
    assert all(host.own.key for host in world.hosts)
    for host in world.hosts:
        host.list()
        assert host.peers
        for part, block in host.peers.blocks.items():
            owner = world.holder(part)
            kept = world.operator.get(KEYS.quarantine(part))
            assert owner == block.member or (kept and kept.value == claims.quarantined(block.member.host))
        holder = world.holder(host.own.key)
        assert bool(host.own.fenced) == (not holder or holder.claim != host.member.claim)


def settled(world: World, *numbers: int) -> None:
    for number in numbers:
        world.hosts[number].list()
        world.hosts[number].settle()


def test_claim_in_an_emptied_store_needs_the_settings_that_were_read() -> None:
    """A new host that has read the settings before the store lost them could take the block of another."""
    world = World()
    settled(world, 0)
    old = world.hosts[0].own
    world.hosts[1].list()
    world.database.reset()
    world.hosts[1].settle()
    assert not world.hosts[1].own.key
    settled(world, 0, 0)
    assert world.holder(old.key) == world.hosts[0].member and world.hosts[0].own.epoch == old.epoch
    settled(world, 1)
    assert not world.hosts[1].own.key  # a new host waits for an operator
    world.recover(0)
    settled(world, 0, 1)
    assert world.hosts[0].own.epoch == "2" and world.hosts[1].holds not in ("", old.key)


def test_recovery_keeps_blocks_of_hosts_that_are_cut_off() -> None:
    world = World()
    settled(world, 0, 1)
    settled(world, 0)
    cut_off = world.hosts[1].own
    world.database.reset()
    world.recover(0)
    for number in (0, 2, 3, 4):
        settled(world, number)
    assert cut_off.key not in [world.hosts[number].own.key for number in (0, 2, 3, 4)]
    world.hosts[0].list()
    peers = world.hosts[0].peers
    assert peers and cut_off.key in peers.blocks and peers.unconfirmed == {cut_off.key}
    settled(world, 1, 1)
    world.hosts[0].list()
    assert world.hosts[1].own.fenced == "" and world.hosts[0].peers
    assert not world.hosts[0].peers.unconfirmed and not world.operator.get(KEYS.quarantine(cut_off.key))


def test_forgotten_host_is_fenced_and_stays_so() -> None:
    world = World()
    settled(world, 0, 1)
    settled(world, 0)
    part = world.hosts[1].own.key
    world.forget(1)
    settled(world, 0, 1)
    assert world.hosts[1].own.fenced.endswith("was taken from this host by an operator")
    assert world.hosts[0].peers and part not in world.hosts[0].peers.blocks  # its route is removed
    world.database.reset()
    settled(world, 1, 1)
    assert world.hosts[1].own.fenced and not world.holder(part)


def test_block_of_another_host_fences() -> None:
    world = World()
    settled(world, 0)
    part = world.hosts[0].own.key
    world.database.reset()
    world.init()
    world.operator.create(KEYS.block(part), world.hosts[1].member.to_json())
    settled(world, 0)
    assert world.hosts[0].own.fenced == f"block {claims.shown(part)} belongs to host h1 (192.0.2.2) now"


def test_other_subnets_fence_and_settings_of_a_newer_agent_change_nothing() -> None:
    world = World()
    settled(world, 0)
    before = world.hosts[0].own
    world.database.reset()
    newer = config(9).replace(b'"min":1', b'"min":2')
    world.operator.create(KEYS.config, newer)
    settled(world, 0)
    assert world.hosts[0].own == before and not world.holder(before.key)
    view = world.hosts[0].view
    assert view and "newer agent" in view.wrong[KEYS.config]
    world.operator.replace(KEYS.config, config(9).replace(b"10.60.", b"10.61."), newer)
    settled(world, 0)
    assert world.hosts[0].own.fenced.endswith("is not part of the network any more")


def test_restored_backup_is_not_the_decision_of_an_operator() -> None:
    """A store that is older than what the host has seen has not removed the host."""
    world = World()
    world.hosts[0].own = Own("1", KEYS_OF[3], 1000)
    settled(world, 0)
    assert world.holder(KEYS_OF[3]) == world.hosts[0].member and not world.hosts[0].own.fenced


def test_changed_address_is_written_by_comparison_and_a_full_network_is_named() -> None:
    world = World()
    settled(world, 0)
    host = world.hosts[0]
    host.member = replace(host.member, address="192.0.2.99")
    settled(world, 0)
    holder = world.holder(host.own.key)
    assert holder and holder.address == "192.0.2.99"
    for part in KEYS_OF:
        world.operator.create(KEYS.block(part), b"damaged")  # counts as taken
    with pytest.raises(FullError, match="all 8 blocks"):
        settled(world, 1)


KEYS_OF = [Settings.from_json(config(1)).key(index) for index in range(COUNT)]
