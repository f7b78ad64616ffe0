# SPDX-License-Identifier: Apache-2.0
"""
Which block this host has: claim one, keep it, or stop using it.

A block has no time limit.  It is claimed by a transaction that requires that its key does not exist, and it
ends with `cnihook cluster leave` or `forget`.  A host whose block belongs to another host is fenced: it
starts no containers on the network until an operator has removed it from the network.

    the store has                           a host that has a block
    its key, with the host's claim          has it still
    its key, with another claim             is fenced
    no key, and the same epoch              is fenced: an operator has removed the host
    no key, and no epoch or another one     claims the block again: the store has lost its data

A new host claims a block only while the settings are in the store, and the transaction requires that they
are the ones it has read.  A store without data has none until an operator writes them.  Before that, the
other hosts have claimed their blocks again.
"""

import random
from dataclasses import dataclass, replace

from cnihook.cluster.model import Member, ModelError, Settings
from cnihook.cluster.store import one

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.cluster.store import Keys, Store
    from cnihook.cluster.view import View

_TRIES = 64  # for a free block by chance, before all are counted


class FullError(Exception):
    """All blocks of a network are claimed."""


@dataclass(frozen=True)
class Own:
    """The own block, as this host knows it.

    epoch: of the store in which the block was confirmed last
    key: the last part of the block's key; "" = no block
    revision: of the store when the block was confirmed last
    fenced: why the host may not use its block
    """

    epoch: str = ""
    key: str = ""
    revision: int = 0
    fenced: str = ""


def settle(store: "Store", keys: "Keys", view: "View", own: Own, member: Member) -> Own:
    """Return what this host has now, after at most one change of the store.

    A change is refused if the view is old; then `own` is what it was, and the caller follows the store and
    calls again.  Raises StoreError; the change may have been made then, which the next call
    finds out.  Raises FullError.
    """
    if own.fenced:
        return own
    if own.key:
        return _keep(store, keys, view, own, member)
    if not view.settings:
        return own
    mine = min(view.claimed(member.claim), default="")
    if not mine:
        return _claim(store, keys, view, own, member, view.settings)
    # The answer to an earlier claim was lost, or this host ended before it wrote it down.
    try:
        view.settings.index_of_key(mine)
    except ModelError:
        return own
    return Own(view.settings.epoch, mine, view.revision)


def _claim(store: "Store", keys: "Keys", view: "View", own: Own, member: Member, settings: Settings) -> Own:
    part = _free(view, settings, keys, store)
    conditions = {keys.config: view.value(keys.config), keys.quarantine(part): None}
    revision = store.create(keys.block(part), member.to_json(), given=conditions)
    return Own(settings.epoch, part, revision) if revision else own


def _keep(store: "Store", keys: "Keys", view: "View", own: Own, member: Member) -> Own:
    key, holder, settings = keys.block(own.key), view.member(own.key), view.settings
    if holder and (holder.claim, holder.host) == (member.claim, member.host):
        value = view.value(key)
        if holder != member and value is not None:
            store.replace(key, member.to_json(), value)
        epoch = settings.epoch if settings else own.epoch
        return replace(own, epoch=epoch, revision=view.revision)
    if not view.is_free(own.key):
        owner = f"host {holder.name} ({holder.address})" if holder else "another host"
        return replace(own, fenced=f"block {shown(own.key)} belongs to {owner} now")
    # The view may be older than the claim, so the two keys that count are read again.
    items, revision = store.items(one(key))
    config = store.get(keys.config)
    if items or (config.value if config else None) != view.value(keys.config):
        return own
    if not settings:
        # A newer agent may have written settings that this one cannot read: the store has its data then.
        return own if config else _claim_again(store, keys, own, member)
    if settings.epoch == own.epoch and revision >= own.revision:  # a lower one is that of a backup
        return replace(own, fenced=f"block {shown(own.key)} was taken from this host by an operator")
    try:
        settings.index_of_key(own.key)
    except ModelError:
        return replace(own, fenced=f"block {shown(own.key)} is not part of the network any more")
    return _claim_again(store, keys, own, member)


def _claim_again(store: "Store", keys: "Keys", own: Own, member: Member) -> Own:
    """Claim the host's block in a store that has lost its data.

    `init --recover` may have put it into quarantine for this host, so that no other host claims it.
    """
    kept = store.get(keys.quarantine(own.key))
    if kept and kept.value != quarantined(member.host):
        return replace(own, fenced=f"block {shown(own.key)} is in quarantine, because another host had it")
    conditions = {keys.quarantine(own.key): kept.value if kept else None}
    revision = store.create(keys.block(own.key), member.to_json(), given=conditions)
    if revision and kept:
        store.delete(kept.key, kept.value)
    return replace(own, revision=revision) if revision else own


def _free(view: "View", settings: Settings, keys: "Keys", store: "Store") -> str:
    """Return a free block by chance, so that hosts that come at once choose different ones."""
    excluded = {item.key for item in store.items(keys.quarantined)[0]}

    def is_free(part: str) -> bool:
        return view.is_free(part) and keys.quarantine(part) not in excluded

    count = settings.count
    for _ in range(_TRIES):
        part = settings.key(random.randrange(count))
        if is_free(part):
            return part
    parts = [part for part in map(settings.key, range(count)) if is_free(part)]
    if not parts:
        raise FullError(f"all {count} blocks of the network are claimed or in quarantine")
    return random.choice(parts)


def forget(store: "Store", keys: "Keys", part: str, value: bytes, host: str, lease: int) -> bool:
    """Take a block from a host that is gone for good; nothing claims it until the lease ends.

    Returns False if the block has changed.  The quarantine comes first, so the block is never free between.
    """
    store.create(keys.quarantine(part), quarantined(host), lease=lease)
    return store.delete(keys.block(part), value)


def quarantined(host: str) -> bytes:
    """Return the value of a block's key in quarantine."""
    return b'{"host":"%s"}' % host.encode()


def shown(part: str) -> str:
    """Return a block as its subnet is written, from the last part of its key."""
    return part.replace("-", "/")
