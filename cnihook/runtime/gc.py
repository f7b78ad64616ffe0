# SPDX-License-Identifier: Apache-2.0
"""GC: detach what containers that are gone have on record.  The caller holds no lock of these containers."""

import time

from cnihook.fast.errors_text import message, message_with_notes
from cnihook.linux import flock
from cnihook.linux.flock import LockBusyError
from cnihook.log import Log
from cnihook.protocol import locks
from cnihook.runtime import attachment, ending, records
from cnihook.runtime.engine import Engine
from cnihook.runtime.records import DamagedRecordError, Record
from cnihook.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def release_gone(
    engine: Engine,
    damaged: "list[DamagedRecordError]",
    patience: float,
    release: "Callable[[Engine, str, list[Record], float], object] | None" = None,
) -> "list[Record]":
    """Detach the containers that are gone and that cnihook attached.  Returns what was released.

    Records of libcni are kept: they do not show whether the container has ended.  Damaged files are added to
    `damaged`.  `patience`: seconds, in all, to wait for other processes that work on such containers.
    `release` is called instead of release_container().  What is busy waits for the next time, and so does
    what cannot be released, with an event in the log.
    """
    left = ending.waiting()
    released = {(network, one.container_id, ifname) for one in left for network, ifname in one.records}
    open_changes: list[Record] = []
    gone = find_gone(engine, damaged, open_changes)
    for container_id in records.partial(engine.state_dir):
        gone.setdefault(container_id, [])
    flock.clear_abandoned()
    for record in open_changes:
        settle(engine, record)
    deadline = time.monotonic() + patience
    for container_id, attachments in list(gone.items()):
        if attachments and released.issuperset(record.identity for record in attachments):
            continue
        seconds = max(deadline - time.monotonic(), 0.0) if patience else 0.0
        try:
            (release or release_container)(engine, container_id, attachments, seconds)
        except LockBusyError:
            gone.pop(container_id)
        except (CniError, OSError) as error:
            engine.tell(f"gc of {container_id}: {message_with_notes(error)}")
            gone.pop(container_id)
    if left or engine.has_endings:
        for container_id, (_ending, failure) in ending.finish().items():
            gone.pop(container_id, None)
            if not isinstance(failure, LockBusyError):
                engine.tell(f"gc of {container_id}: {message_with_notes(failure)}")
    return [record for attachments in gone.values() for record in attachments]


def settle(engine: Engine, record: Record) -> None:
    """Undo or end the change of a live attachment, unless another process works on the container."""
    from cnihook.runtime import update  # few containers are changed while they run

    try:
        with locks.container(record.container_id, "gc", timeout=0):
            again = records.find(*record.identity, engine.state_dir)
            if again and again.has_open_change and not attachment.is_gone(again):
                for text in update.settle(engine, again):
                    Log(record.container_id).event(f"{again.network} {again.ifname}: {text}")
    except LockBusyError:
        pass
    except (CniError, OSError) as error:
        engine.tell(f"gc of {record.container_id}: {message_with_notes(error)}")


def find_gone(
    engine: Engine, damaged: "list[DamagedRecordError]", open_changes: "list[Record] | None" = None
) -> "dict[str, list[Record]]":
    """Return the attachments of each container that is gone.  Damaged files are added to `damaged`.

    The attachments of live containers whose change was interrupted, or lasts for a time only, are added to
    `open_changes`.
    """
    gone: dict[str, list[Record]] = {}
    unreadable: list[OSError] = []
    for record in records.all_records(engine.state_dir, damaged, unreadable):
        try:
            if is_gone(record):
                gone.setdefault(record.container_id, []).append(record)
            elif record.has_open_change and open_changes is not None:
                open_changes.append(record)
        except (CniError, OSError) as error:
            engine.tell(f"gc of {record.container_id}: {message(error)}")
    for problem in unreadable:
        engine.tell(message(problem))
    return gone


def release_container(
    engine: Engine, container_id: str, attachments: "list[Record]", timeout: float, log: "Log | None" = None
) -> None:
    """Detach the attachments of a container, if it is still gone under its lock."""
    release_stale(engine, container_id, attachments, is_gone, timeout, log, has_ended=True)


def release_stale(
    engine: Engine,
    container_id: str,
    attachments: "list[Record]",
    is_stale: "Callable[[Record], bool]",
    timeout: "float | None" = None,
    log: "Log | None" = None,
    *,
    has_ended: bool = False,
) -> "list[Record]":
    """Take the container's lock, and release those of its attachments that are still stale.

    `has_ended`: see Engine.release_all().
    Returns them.  Another container may have this ID now, so each record is read again under the lock.
    """
    with locks.container(container_id, "gc", engine.lock_timeout if timeout is None else timeout):
        again = [records.find(*record.identity, engine.state_dir) for record in attachments]
        stale = [record for record in again if record and is_stale(record)]
        if stale:
            if log:
                log.event("its container is gone")
            engine.release_all(container_id, stale, log, has_ended=has_ended)
        records.discard_partial(container_id, engine.state_dir)
    return stale


def is_gone(record: Record) -> bool:
    """Return True if cnihook attached the container, and it is gone."""
    return record.process is not None and attachment.is_gone(record)
