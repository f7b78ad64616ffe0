# SPDX-License-Identifier: Apache-2.0
"""
The life of a record.  The library (cni.py) and the container package use these modules, and no others:

    addition.py   creates it without a result, before the first plugin runs, and removes it if ADD is undone
    attachment.py completes it with the result, after the last plugin has run
    update.py     changes it while the container runs, together with what the plugins have set up
    engine.py     removes it last, after links, elements, leases and the name of the namespace
    ending.py     removes it later, if the container has ended, and there is something to wait for
    gc.py         finds out which records are stale, and releases them

It is kept while a plugin may still have something of the attachment.  If a process is killed between two
steps, the next operation or GC releases what the record names.  Callers hold the container's lock.
"""

import os

from cnihook.linux import netns
from cnihook.log import Log, step
from cnihook.protocol.call import PLUGIN_TIMEOUT
from cnihook.runtime import attachment, chain, netns_names, networks, records
from cnihook.runtime.records import DamagedRecordError, Record
from cnihook.types.errors import (
    INTERNAL,
    INVALID_ENVIRONMENT,
    CniError,
    as_cni_error,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cnihook.linux.link_stats import LinkStats
    from cnihook.protocol.call import Policy
    from cnihook.protocol.ending import Ending
    from cnihook.runtime.networks import Network
    from cnihook.runtime.remains import Identity

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


class Engine:
    """The records of one folder, and the plugins that act on them.

    `plugin_dirs`: folders that are searched before the built-in plugins.  `timeout`: seconds for one plugin,
    counted again for each DEL.  `lock_timeout`: seconds to wait while another process works on the container
    or the network.  `log` gets the events of the container that is attached or detached.
    """

    names_namespaces = False  # a namespace gets its container's ID as its name
    judges_foreign = True  # a record of libcni may be stale: the caller is the runtime that wrote it

    def __init__(
        self,
        conf_dir: str = networks.DEFAULT_FOLDER,
        plugin_dirs: "list[str] | None" = None,
        *,
        state_dir: str = "",
        timeout: float = PLUGIN_TIMEOUT,
        lock_timeout: float = 30.0,
        log: "Log | None" = None,
    ) -> None:
        self.conf_dir = conf_dir
        self.plugin_dirs = plugin_dirs
        self.state_dir = state_dir or records.FOLDER
        self.timeout = timeout
        self.lock_timeout = lock_timeout
        self.log = log
        self.has_endings = False  # release_all() has left something for ending.start() or ending.finish()

    def take_down(self, record: Record, ending: "Ending | None" = None) -> "LinkStats | None":
        """Run DEL for each plugin.  Returns the counters of the interface, or None if it does not exist.

        `ending` gets what is left for later if the container has ended.  Every plugin runs; then the first
        error is raised.
        """
        try:
            if "pending" in record.extra:
                from cnihook.runtime import pending  # few containers are changed while they run

                pending.take_down(record, self.plugin_dirs, self.timeout)
        finally:
            totals = self._run_del(record, ending)
        return totals

    def _run_del(self, record: Record, ending: "Ending | None") -> "LinkStats | None":
        try:
            return attachment.down(
                record, self.plugin_dirs, timeout=self.timeout, ending=ending, policy_of=self.policy_of
            )
        except DamagedRecordError:
            from cnihook.runtime import salvage  # rarely needed, so not imported on the hot path

            sandbox = attachment.live_netns_path(record)
            salvage.take_down(record.identity, self.conf_dir, self.plugin_dirs, sandbox=sandbox)
            return None

    def release(
        self, record: Record, *, last: bool = False, ending: "Ending | None" = None
    ) -> "LinkStats | None":
        """Detach one attachment and remove its record; before the last one, the name of the namespace.

        If anything is left to `ending`, record and name stay until that is finished, too.
        """
        totals = self.take_down(record, ending)
        if ending and not ending.is_empty:
            ending.records.append((record.network, record.ifname))
            return totals
        if last and self.names_namespaces:
            self.unname(record)  # before the record, because the name is found by it
            step("name of the namespace")
        record.remove()
        step("record")
        return totals

    def release_all(
        self,
        container_id: str,
        attachments: "list[Record]",
        log: "Log | None" = None,
        *,
        has_ended: bool = False,
    ) -> None:
        """Detach attachments of one container, the last one first.  Tries all, then raises the first error.

        What cannot be detached stays on record.  `has_ended`: no process of the container is left.  Then
        `has_endings` may be true: the caller calls ending.start() or ending.finish(), without the lock.
        """
        self.forget_ending(container_id)
        leftover = self._ending_of(container_id, attachments) if has_ended else None
        left = len(records.of_container(container_id, self.state_dir)) if self.names_namespaces else 0
        errors: list[CniError] = []
        for record in reversed(attachments):
            try:
                totals = self.release(record, last=left == 1, ending=leftover)
                left -= 1
                if log:
                    suffix = f": {totals}" if totals else ""
                    log.event(f"detached from {record.network}, {record.ifname}{suffix}")
            except Exception as error:
                if log:
                    log.failure("detach", error, f"from {record.network}, {record.ifname}")
                errors.append(as_cni_error(error))
        records.discard_partial(container_id, self.state_dir)
        if leftover and not leftover.is_empty:
            from cnihook.runtime import ending

            ending.save(leftover)
            self.has_endings = True
        chain.raise_all(errors)

    def _ending_of(self, container_id: str, attachments: "list[Record]") -> "Ending | None":
        """Return an ending for these; None unless cnihook attached all of them in one namespace."""
        namespaces = {record.process.netns_id if record.process else None for record in attachments}
        if len(namespaces) != 1 or not (netns_id := namespaces.pop()):
            return None
        from cnihook.protocol.ending import Ending  # not at the top: a start does not need it

        host = netns.inode_of_host()
        return Ending(container_id, netns_id, self.state_dir, host, is_named=self.names_namespaces)

    def release_on_file(self, network: str, container_id: str, ifname: str, *, sandbox: str = "") -> bool:
        """Detach what is on file under these names.  Returns True if a sound record was there.

        `sandbox`: the path to the namespace, for a damaged record.
        """
        try:
            record = records.find(network, container_id, ifname, self.state_dir)
        except DamagedRecordError as error:
            self.release_damaged(error, sandbox=sandbox)
            return False
        if record is None:
            return False
        self.release_all(container_id, [record])
        return True

    def release_damaged(
        self, damaged: DamagedRecordError, *, sandbox: "str | None" = None
    ) -> "list[Identity]":
        """Release what a damaged file was the record of; without `sandbox`, only if it is not in use."""
        from cnihook.runtime import salvage

        return salvage.release_record(damaged, self.conf_dir, self.plugin_dirs, sandbox=sandbox)

    def policy_of(self, record: Record, network: "Network") -> "Policy | None":
        """Return the policies of an attachment; None if the host has none."""
        return None

    def change_own(self, record: Record, before: "dict[str, Any]", after: "dict[str, Any]") -> None:
        """Put in force what cnihook itself sets up for a container: see pending.Input.own.

        The record on disk has `after` already.
        """
        if {**before, "requested": None} != {**after, "requested": None}:
            hint = f"`cnihook repair {record.container_id}` does it"
            raise CniError(INTERNAL, "names and policies are not changed by a library", hint)

    @staticmethod
    def ended(attachments: "list[Record]") -> "list[Record]":
        """Return those that were released, except for what ending.py does later."""
        if not (attachments and os.path.exists(f"{records.ENDINGS}/{attachments[0].container_id[:255]}")):
            return []
        from cnihook.runtime import ending

        return ending.of(attachments)

    @staticmethod
    def forget_ending(container_id: str) -> None:
        """Remove the file of an earlier ending.  The caller releases what it is about."""
        try:
            os.unlink(f"{records.ENDINGS}/{container_id[:255]}")
        except FileNotFoundError:
            pass

    def unname(self, record: Record) -> None:
        """Remove the namespace's name, unless another program gave it.  A reboot removes it anyway."""
        if record.process is not None:
            identity = record.process.netns_id if record.process.is_of_this_boot() else (0, 0)
            netns_names.unbind_own(record.netns, record.container_id, identity)

    def tell(self, event: str) -> None:
        """Add an event to the log, if there is one."""
        if self.log:
            self.log.event(event)
