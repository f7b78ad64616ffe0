# SPDX-License-Identifier: Apache-2.0
"""Check for changes of running containers that were interrupted, or that last longer than they should."""

from collections.abc import Iterator

from cnihook.doctor.finding import Finding, Host
from cnihook.linux import flock
from cnihook.protocol import locks
from cnihook.runtime import attachment, update

_PATIENCE = 5.0  # seconds that the end of a temporary change may take


def check(host: Host) -> Iterator[Finding]:
    for record in host.records:
        if not record.has_open_change or attachment.is_gone(record):
            continue
        if flock.is_held(locks.container_name(record.container_id)):
            continue  # another process works on it
        subject = f"{record.container_id}, {record.network} {record.ifname}"
        if "pending" in record.extra:
            yield Finding(
                "change-interrupted",
                f"container {subject}: a change was interrupted",
                "a part of its network is as before the change, and a part as after it",
                f"cnihook repair {record.container_id}",
                subject=subject,
                for_all="cnihook repair --all",
            )
        elif update.is_overdue(record, _PATIENCE):
            yield Finding(
                "change-overdue",
                f"container {subject}: a temporary change should have ended at {record.extra['until']}",
                "the process that ends temporary changes was killed",
                f"cnihook repair {record.container_id}",
                subject=subject,
                for_all="cnihook repair --all",
            )
