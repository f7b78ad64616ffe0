# SPDX-License-Identifier: Apache-2.0
"""Checks for changes of running containers: interrupted, lasting too long, or not made yet."""

from collections.abc import Iterator

from cnihook.container.edited import Files
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


def check_edited(host: Host) -> Iterator[Finding]:
    """Find containers that lack what the edited file of their network has."""
    files = Files(host.settings.conf_dir)
    for one in (*host.attached, *host.attached_by_others):
        record = one.record
        if files.is_behind(record):
            file = files.networks[record.network].source
            subject = f"{record.container_id}, {record.network} {record.ifname}"
            yield Finding(
                "network-edited",
                f"{file} was edited since container {subject} was attached",
                "the container keeps what it has, until `cnihook apply`, or until it is attached again",
                f"cnihook diff {record.network}",
                note=True,
                subject=subject,
                for_all=f"cnihook diff {record.network}",
            )
