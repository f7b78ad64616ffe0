# SPDX-License-Identifier: Apache-2.0
"""Check for networks that cnihook shares with another runtime."""

from collections.abc import Iterator

from cnihook.doctor.finding import Finding, Host
from cnihook.fast.errors_text import listed
from cnihook.runtime import attachment, foreign
from cnihook.runtime.records import Record


def check(host: Host) -> Iterator[Finding]:
    """Find a network on which another runtime has attachments, and cnihook has those of live containers.

    libcni treats each record of the network as its own: its GC releases all that its runtime does not list.
    """
    own: dict[str, list[Record]] = {}
    others: dict[str, list[Record]] = {}
    for record in host.records:
        if foreign.is_foreign(record):
            others.setdefault(record.network, []).append(record)
        elif not attachment.is_gone(record):
            own.setdefault(record.network, []).append(record)
    configured = {network.name: network for network in host.configured}
    for name in sorted(own.keys() & others.keys()):
        network = configured.get(name)
        if network and network.disable_gc:
            continue
        source = network.source if network else "its configuration"
        yield Finding(
            "network-of-two-runtimes",
            f"network {name}: cnihook attached {_containers(own[name])}, "
            f"and another runtime {_containers(others[name])}",
            "the other runtime's GC, as at a start of CRI-O, detaches those of cnihook",
            f'use a network of another name for them; or set "disableGC": true in {source}',
        )


def _containers(records: "list[Record]") -> str:
    identifiers = list(dict.fromkeys(record.container_id for record in records))
    return listed(identifiers, 3)
