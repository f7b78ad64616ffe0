# SPDX-License-Identifier: Apache-2.0
"""
The detachment of a container from its networks, and of what containers that are gone have left.

It uses the record alone, because configuration, bundle and process may be gone.  What cannot be detached
stays on record for the next try.  It removes, in this order: links, elements and leases, the name of the
namespace, the record.
"""

import os
import time

from cnihook.fast.errors_text import message, message_with_notes
from cnihook.linux import flock, netns
from cnihook.linux.flock import LockBusyError
from cnihook.linux.link_stats import LinkStats
from cnihook.log import Log
from cnihook.protocol import locks
from cnihook.runtime import attachment, netns_names, records
from cnihook.runtime.records import DamagedRecordError, Record
from cnihook.runtime.settings import Settings
from cnihook.types.errors import INVALID_ENVIRONMENT, CniError, as_cni_error
from cnihook.types.names import check_container_id

STATE = "/run/cnihook"  # gone with a reboot
_DYING = 1.0  # seconds that a container's process may take to end after it was killed


class ContainerIdInUseError(CniError):
    """The records under this ID belong to another container, which lives.

    runc and crun do not know each other's containers, nor does a runtime know those under another --root.
    """

    def __init__(self, record: Record, pid: int) -> None:
        holder = f"process {pid}" if pid else f"the namespace {netns.named(record.container_id)}"
        super().__init__(
            INVALID_ENVIRONMENT,
            f"another container {record.container_id} lives, {holder}, and is on network {record.network}",
            f"give this one another ID; `cnihook detach {record.container_id}` detaches the other",
        )


def refuse_if_another_lives(record: Record, pid: int) -> None:
    """Raise ContainerIdInUseError if the attached process lives and is not `pid`; 0: it is unknown."""
    if record.process is None or (pid and record.process.pid == pid):
        return
    if not attachment.is_gone(record, patience=_DYING):
        raise ContainerIdInUseError(record, record.process.pid)


def down(
    container_id: str, settings: Settings, log: Log, *, network: str = "", ended: "int | None" = None
) -> int:
    """Detach a container from all its networks, or from one, last first.

    `ended`: the process of the container, which has ended; 0 if it is not known.  ContainerIdInUseError is
    raised then for what belongs to another container that lives.

    Returns the number of networks.  Tries all; then raises the first error, with the others as notes on it.
    """
    check_container_id(container_id)
    with log, locks.container(container_id, "detach"):
        # A hook of this container may have been killed with a lock that this one does not take.
        flock.clear_abandoned(signed=False)
        damaged: list[DamagedRecordError] = []
        attachments = records.of_container(container_id, damaged=damaged)
        selected = [record for record in attachments if network in ("", record.network)]
        if ended is not None:
            for record in selected:
                refuse_if_another_lives(record, ended)
        _down(container_id, selected, settings, log)
        if not attachments:
            _forget_all_names(container_id)  # an earlier removal may have failed at another container's file
        damaged = [one for one in damaged if network in ("", *(names[0] for names in one.identities()))]
        if damaged or (not attachments and netns_names.is_marked(container_id)):
            sandbox = netns.named(container_id) if ended is None else None
            return len(selected) + release_remains(container_id, damaged, settings, log, sandbox=sandbox)
        return len(selected)


def _down(container_id: str, attachments: "list[Record]", settings: Settings, log: Log) -> None:
    left = len(records.of_container(container_id))
    errors: list[CniError] = []
    for record in reversed(attachments):
        try:
            totals = detach(record, settings, last=left == 1)
            left -= 1
            suffix = f": {totals}" if totals else ""
            log.event(f"detached from {record.network}, {record.ifname}{suffix}")
        except Exception as error:
            log.failure("detach", error, f"from {record.network}, {record.ifname}")
            errors.append(as_cni_error(error))
    records.discard_partial(container_id)
    if errors:
        for another in errors[1:]:
            errors[0].add_note(str(another))
        errors[0].add_note(f"it stays on record; `cnihook detach {container_id}` and `cnihook gc` try again")
        raise errors[0]


def detach(record: Record, settings: Settings, *, last: bool = False) -> "LinkStats | None":
    """Detach one attachment and remove its record; before the last one, the name of the namespace."""
    totals = take_down(record, settings)
    if last:
        unname(record)  # before the record, because the name is found by it
    record.remove()
    return totals


def take_down(record: Record, settings: Settings) -> "LinkStats | None":
    _forget_names(record.network, record.container_id)
    try:
        return attachment.down(record, settings.plugin_dirs)
    except DamagedRecordError:
        from cnihook.runtime import salvage

        sandbox = attachment.live_netns_path(record)
        salvage.take_down(record.identity, settings.conf_dir, settings.plugin_dirs, sandbox=sandbox)
        return None


def release_remains(
    container_id: str,
    damaged: "list[DamagedRecordError]",
    settings: Settings,
    log: Log,
    *,
    sandbox: "str | None" = None,
) -> int:
    """Release what a container left without a sound record, under its lock.  Returns how many attachments.

    `sandbox`: the path to its namespace, to detach what is on file although the container may be alive.
    Raises AttachmentInUseError if it may be in use, or the first error; then the file or the name stays.
    """
    from cnihook.runtime import salvage  # not at the top: it is rarely needed

    released = []
    for one in filter(_is_own, damaged):
        log.event(f"releasing what is left by its file name: {one.msg}")
        released += salvage.release_record(one, settings.conf_dir, settings.plugin_dirs, sandbox=sandbox)
    if not records.names_of(container_id):
        released += salvage.release_container(container_id, settings.conf_dir, settings.plugin_dirs)
        # A GC of another runtime detaches networks, but does not know of names.
        _forget_all_names(container_id)
    for network, _id, ifname in released:
        _forget_names(network, container_id)
        log.event(f"released what was left on {network}, {ifname}")
    return len(released)


def _forget_all_names(container_id: str) -> None:
    for network in os.listdir(f"{STATE}/names") if os.path.isdir(f"{STATE}/names") else ():
        _forget_names(network, container_id)


def _forget_names(network: str, container_id: str) -> None:
    """Delete a container's names from a network.

    A failure is logged.  Then the next process that changes the names there deletes them.
    """
    if os.path.exists(f"{STATE}/names/{network}/{container_id}"):
        from cnihook.names import hosts  # not at the top: it is rarely needed

        try:
            hosts.remove(network, container_id)
        except OSError as error:
            Log(container_id).event(f"its names stay on {network}: {message(error)}")


def _is_own(damaged: DamagedRecordError) -> bool:
    """Return True unless another runtime wrote the file.

    It did not if cnihook gave the container's namespace a name.
    """
    return not damaged.is_foreign or any(map(netns_names.is_marked, damaged.container_ids()))


# What was left behind


def collect(
    settings: Settings,
    log: "Log | None" = None,
    *,
    dry_run: bool = False,
    thorough: bool = True,
    patience: float = 0.0,
) -> "list[Record]":
    """Detach the containers that ended without a poststop: by a crash, a reboot, a hook that never ran.

    This covers what cnihook has on record with the container's process, or what is left of that.
    Attachments of other runtimes are not touched.  Without `thorough`, only what has a file is found.

    `patience`: seconds, in all, to wait for other processes that work on such containers.

    Returns what was released, or would be.  What is busy waits for the next time, and so does what cannot be
    released, with an event in `log`.
    """
    damaged: list[DamagedRecordError] = []
    unreadable: list[OSError] = []
    gone: dict[str, list[Record]] = {}
    for record in records.all_records(damaged=damaged, unreadable=unreadable):
        if record.process is not None and _is_gone(record, log):
            gone.setdefault(record.container_id, []).append(record)
    for error in unreadable:
        _tell(log, message(error))
    if not dry_run:
        for container_id in records.partial():
            gone.setdefault(container_id, [])
        flock.clear_abandoned()
    released: list[Record] = []
    deadline = time.monotonic() + patience
    for container_id, attachments in gone.items():
        left = max(deadline - time.monotonic(), 0.0) if patience else 0.0
        if dry_run or _release_gone(container_id, settings, log, left):
            released += attachments
    damaged = [one for one in damaged if _is_own(one)]
    if (damaged or thorough) and not dry_run:
        from cnihook.runtime import salvage  # 2 ms to import, and it looks at all links and leases

        for identity in salvage.collect(damaged, settings.conf_dir, settings.plugin_dirs, log):
            released.append(Record(*identity, config=b""))
    if not dry_run and os.path.isdir(f"{STATE}/names"):
        from cnihook.names import hosts

        try:
            hosts.prune()
        except OSError as error:
            if not isinstance(error, LockBusyError):
                _tell(log, f"gc of names: {message(error)}")
    return released


def _is_gone(record: Record, log: "Log | None") -> bool:
    try:
        return attachment.is_gone(record)
    except (CniError, OSError) as error:
        _tell(log, f"gc of {record.container_id}: {message(error)}")
        return False


def _release_gone(container_id: str, settings: Settings, log: "Log | None", timeout: float) -> bool:
    """Release what a container has on record, if it is gone.  Return False if that cannot be done."""
    own_log = Log(container_id, quiet=True)
    try:
        with own_log, locks.container(container_id, "gc", timeout):
            attachments = [
                r for r in records.of_container(container_id) if r.process and attachment.is_gone(r)
            ]
            if attachments:
                own_log.event("its container is gone")
                _down(container_id, attachments, settings, own_log)
            records.discard_partial(container_id)
        own_log.close()
        return True
    except (CniError, OSError) as error:
        if not isinstance(error, LockBusyError):
            _tell(log, f"gc of {container_id}: {message_with_notes(error)}")
        return False


def _tell(log: "Log | None", event: str) -> None:
    if log:
        log.event(event)


def unname(record: Record) -> None:
    """Remove the name of the namespace, unless another program gave it.  A reboot removes it anyway."""
    process = record.process
    is_own = record.netns == netns.named(record.container_id) or netns_names.is_marked(record.container_id)
    if process is not None and is_own:
        identity = process.netns_id if process.is_of_this_boot() else (0, 0)
        netns_names.unbind(record.container_id, identity)
