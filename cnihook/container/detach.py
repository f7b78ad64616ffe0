# SPDX-License-Identifier: Apache-2.0
"""
The detachment of a container from its networks.

It uses the records alone, because configuration, bundle and process may be gone.  What cannot be detached
stays on record for the next try.  It removes, in this order: links, elements and leases, the name of the
namespace, the record.  If the container has ended, its links are only silenced, and a process in the
background deletes them, the name and the record (runtime.ending).
"""

from cnihook.container.engine import ContainerEngine, forget_all_names
from cnihook.linux import flock, netns
from cnihook.log import Log, step
from cnihook.protocol import locks
from cnihook.runtime import chain, netns_names, records
from cnihook.runtime.engine import refuse_if_another_lives
from cnihook.runtime.records import DamagedRecordError
from cnihook.runtime.settings import Settings
from cnihook.types.errors import as_cni_error
from cnihook.types.names import check_container_id


def down(
    container_id: str, settings: Settings, log: Log, network: str = "", *, ended: "int | None" = None
) -> int:
    """Detach a container from all its networks, or from one, last first.

    `ended`: the process of the container, which has ended; 0 if it is not known.  ContainerIdInUseError is
    raised then for what belongs to another container that lives.

    Returns the number of networks.  Tries all; then raises the first error, with the others as notes on it.
    """
    check_container_id(container_id)
    engine = ContainerEngine(settings, log)
    try:
        return _down(engine, container_id, log, network, ended)
    finally:
        if engine.has_endings:
            from cnihook.runtime import ending  # the plugins of few containers leave nothing to it

            if settings.waits:
                failures = ending.finish()
                chain.raise_all([as_cni_error(error) for _ending, error in failures.values()])
            else:
                ending.start()


def _down(engine: ContainerEngine, container_id: str, log: Log, network: str, ended: "int | None") -> int:
    with log, locks.container(container_id, "detach"):
        # A hook of this container may have been killed with a lock that this one does not take.
        flock.clear_abandoned(signed=False)
        damaged: list[DamagedRecordError] = []
        attachments = records.of_container(container_id, damaged=damaged)
        step("record")
        selected = [record for record in attachments if network in ("", record.network)]
        if ended is not None:
            for record in selected:
                refuse_if_another_lives(record, ended)
        engine.release_all(container_id, selected, log, has_ended=ended is not None)
        if not attachments:
            forget_all_names(container_id)  # an earlier removal may have failed at another container's file
        damaged = [one for one in damaged if network in ("", *(names[0] for names in one.identities()))]
        if damaged or (not attachments and netns_names.is_marked(container_id)):
            sandbox = netns.named(container_id) if ended is None else None
            return len(selected) + engine.release_remains(container_id, damaged, sandbox=sandbox)
        return len(selected)
