# SPDX-License-Identifier: Apache-2.0
"""Check for names of containers that another program has removed from /etc/hosts."""

from collections.abc import Iterator
from functools import partial

from cnihook.doctor.finding import Finding, Host
from cnihook.names import hosts


def check(host: Host) -> Iterator[Finding]:
    """Find a container whose hosts file was replaced after its names were written."""
    for container_id in dict.fromkeys(one.record.container_id for one in host.attached):
        try:
            if not hosts.incomplete(container_id):
                continue
        except OSError:
            continue  # the container's log has the reason, and a repair does not help
        yield Finding(
            "container-names",
            f"container {container_id}: /etc/hosts has lost the names that its networks give it",
            "a program wrote the file after the hook, and the container finds no other container by name",
            f"cnihook repair {container_id}",
            fix=partial(hosts.renew, container_id),
            subject=container_id,
            for_all="cnihook repair --all",
        )
