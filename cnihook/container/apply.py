# SPDX-License-Identifier: Apache-2.0
"""
Edited network files, applied to the containers that run: what can be changed in place, and nothing else.

Containers are changed one by one, each under its lock.  The plugins' CHECK verifies each change.  If that or
the change fails, this container is changed back.

A change on trial ends at a time, unless it is kept before: see runtime/temporary.py.  What ends it is in the
record, so it does not depend on the process that made the change.
"""

import time

from cnihook.container import edited, repair
from cnihook.container.edited import Difference
from cnihook.container.engine import ContainerEngine
from cnihook.fast.undo import Undo
from cnihook.log import Log
from cnihook.protocol import locks
from cnihook.runtime import attachment, records, update
from cnihook.runtime.foreign import CannotCheckError
from cnihook.runtime.networks import Network
from cnihook.runtime.pending import Input
from cnihook.runtime.records import Record
from cnihook.runtime.settings import Settings
from cnihook.types import Value
from cnihook.types.errors import INTERNAL, CniError
from cnihook.types.fields import IN_PLACE, NEW_ONLY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Change(Value):
    """A changed attachment: the keys that changed, and those that keep it behind the file."""

    __slots__ = ("container_id", "ifname", "keys", "left", "network", "revision")

    def __init__(self, record: Record, differences: "list[Difference]") -> None:
        self.container_id = record.container_id
        self.network = record.network
        self.ifname = record.ifname
        self.revision = update.revision_of(record)
        self.keys = [one.key for one in differences if one.change == IN_PLACE]
        self.left = [one for one in differences if one.change not in (IN_PLACE, NEW_ONLY)]


def apply(
    container_id: str, networks: "list[Network]", settings: Settings, log: Log, *, until: float = 0.0
) -> "list[Change]":
    """Change a container's attachments to these networks as the files have them now; all or none.

    `until`: the end of the trial, in seconds since the epoch; 0 without one.
    """
    engine = ContainerEngine(settings, log)
    changes = []
    with log, locks.container(container_id, "apply"), Undo() as undo:
        for network in networks:
            for record in records.of_container(container_id):
                if record.network != network.name:
                    continue
                if record.has_open_change:
                    update.settle(engine, record)
                differences = edited.differences(record, network)
                if any(one.change == IN_PLACE for one in differences):
                    _apply(engine, record, network, settings, undo, until)
                    keys = ", ".join(one.key for one in differences if one.change == IN_PLACE)
                    engine.tell(f"{record.network} {record.ifname}: changed as in the file: {keys}")
                changes.append(Change(record, differences))
    return changes


def _apply(
    engine: ContainerEngine, record: Record, network: Network, settings: Settings, undo: Undo, until: float
) -> None:
    update.refuse_unchangeable(record)
    _verify(record, settings, f"`cnihook repair {record.container_id}` restores it", bool(until))
    seconds = max(until - time.time(), 0.001) if until else 0.0
    if until and seconds < 1:
        raise CniError(INTERNAL, "the time of the trial is over before all containers are changed")
    old, extra = Input.of(record), record.extra
    edit = edited.edit_of(record, network)
    if update.change(engine, record, edit, seconds=seconds, is_trial=bool(until)):
        undo.push(update.carry_out, engine, record, old, extra)
    _verify(record, settings, "so the change was undone", bool(until))


def _verify(record: Record, settings: Settings, hint: str, is_required: bool) -> None:
    """Raise CniError if a plugin finds that something is not as it is on record."""
    try:
        problems = repair.find_problems(record, settings.plugin_dirs)
    except CannotCheckError:
        if is_required:
            raise
        return
    if problems:
        raise CniError(INTERNAL, f"{record.network} {record.ifname}: {problems[0]}", hint)


# Changes on trial


def on_trial(network: "str | None") -> "list[Record]":
    """Return the attachments with a change on trial, to one network; None: to any.  Raises OSError."""
    return [
        record
        for record in records.all_records()
        if "trial" in record.extra and network in (None, record.network) and not attachment.is_gone(record)
    ]


def keep(record: Record, settings: Settings) -> bool:
    """Make a change on trial permanent.  Returns False if its time is over; then it has ended."""

    def work(engine: ContainerEngine, present: Record) -> bool:
        is_over = update.is_overdue(present)
        update.settle(engine, present)
        if not is_over:
            update.keep(present)
            engine.tell(f"{present.network} {present.ifname}: the change on trial is kept")
        return not is_over

    return _on_trial(record, settings, work)


def end(record: Record, settings: Settings) -> bool:
    """End a change on trial at once.  Returns False if it is not on trial any more."""

    def work(engine: ContainerEngine, present: Record) -> bool:
        update.end(engine, present)
        engine.tell(f"{present.network} {present.ifname}: the change on trial is undone")
        return True

    return _on_trial(record, settings, work)


def _on_trial(record: Record, settings: Settings, work: "Callable[[ContainerEngine, Record], bool]") -> bool:
    log = Log(record.container_id)
    with log, locks.container(record.container_id, "apply"):
        present = records.find(*record.identity, record.folder)
        if not present or "trial" not in present.extra:
            return False
        return work(ContainerEngine(settings, log), present)
