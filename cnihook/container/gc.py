# SPDX-License-Identifier: Apache-2.0
"""GC of what containers left that ended without a poststop: by a crash, a reboot, a hook that never ran."""

import os

from cnihook.container.engine import STATE, ContainerEngine, is_own
from cnihook.fast.errors_text import message
from cnihook.linux.flock import LockBusyError
from cnihook.log import Log
from cnihook.runtime import gc
from cnihook.runtime.records import DamagedRecordError, Record
from cnihook.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.runtime.engine import Engine


def collect(engine: ContainerEngine, *, thorough: bool = True, patience: float = 0.0) -> "list[Record]":
    """Release what cnihook has on record of containers that are gone, or what is left of such a record.

    Attachments of other runtimes are not touched.  Without `thorough`, only what has a file is found.
    `patience`: seconds, in all, to wait for other processes that work on such containers.  Returns what was
    released.  What is busy waits for the next time, and so does what cannot be released, with an event in
    the engine's log.
    """
    damaged: list[DamagedRecordError] = []
    released = gc.release_gone(engine, damaged, patience, _release_container)
    damaged = [one for one in damaged if is_own(one)]
    if damaged or thorough:
        from cnihook.runtime import salvage  # 2 ms to import, and it looks at all links and leases

        for identity in salvage.collect(damaged, engine.conf_dir, engine.plugin_dirs, engine.log):
            released.append(Record(*identity, config=b""))
    if thorough and os.path.isdir(f"{STATE}/policy"):
        _sync_policies(engine)
    if os.path.isdir(f"{STATE}/names"):
        from cnihook.names import hosts

        try:
            hosts.prune()
        except OSError as error:
            if not isinstance(error, LockBusyError):
                engine.tell(f"gc of names: {message(error)}")
    if thorough and os.path.isdir(f"{STATE}/resolver"):
        from cnihook.resolver import service

        try:
            service.prune()
        except OSError as error:
            engine.tell(f"gc of the names in policies: {message(error)}")
    if thorough and os.path.isdir(f"{STATE}/mdns"):
        from cnihook.mdns import service as mdns

        try:
            mdns.prune()
        except OSError as error:
            engine.tell(f"gc of multicast DNS: {message(error)}")
    return released


def _sync_policies(engine: ContainerEngine) -> None:
    """Remove the policies of containers that are gone."""
    from cnihook.policy import enforcement
    from cnihook.protocol import locks

    try:
        with locks.policy("gc"):
            enforcement.sync_all()
    except (CniError, OSError) as error:
        engine.tell(f"gc of policies: {message(error)}")


def _release_container(engine: "Engine", container_id: str, gone: "list[Record]", timeout: float) -> None:
    log = Log(container_id, quiet=True)
    with log:
        gc.release_container(engine, container_id, gone, timeout, log)
    log.close()
