# SPDX-License-Identifier: Apache-2.0
"""
The names of containers on other hosts of a network, in the hosts files of its containers on this host.

The agent of the network sets them, and they are an entry of the network as those of its containers.  So a
container that starts has them with the names of this host, and sends nothing.  They are the last lines of a
file: if a name is that of a container on this host, too, that container is first.
"""

import os

from cnihook.names import entries, hosts
from cnihook.names.entries import OTHERS, Entry
from cnihook.names.rootfs_file import File
from cnihook.protocol import locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LAST = 1 << 63  # after each container


def known(network: str) -> "list[str]":
    """Return what was set last, each "ADDRESS NAME ..."; from now on, the folder of the network exists."""
    with locks.names(f"names of other hosts on {network}"):
        entry = _entry(network)
        entry.write()
        return entry.hosts


def set_names(network: str, lines: "list[str]") -> None:
    """Set all names of the containers on other hosts, each "ADDRESS NAME ...".

    Raises OSError if the entry cannot be written, and LockBusyError.  A container whose file cannot be
    changed has the reason in its log.
    """
    with locks.names(f"names of other hosts on {network}"):
        entry = _entry(network)
        if entry.hosts != lines:
            entry.hosts = lines
            entry.write()
        _renew(entry)


def remove(network: str) -> None:
    """Remove the names of the containers on other hosts, if there are any."""
    if os.path.exists(f"{entries.FOLDER}/{network}/{OTHERS}"):
        set_names(network, [])
        with locks.names(f"names of other hosts on {network}"):
            os.unlink(f"{entries.FOLDER}/{network}/{OTHERS}")
            entries.remove_damaged(network)  # and the folder, if it is empty


def _entry(network: str) -> Entry:
    return Entry.read(network, OTHERS) or Entry(network, OTHERS, "", [], [], [], None, joined=_LAST)


def _renew(entry: Entry) -> None:
    changed = set()
    for reader in entries.of_network(entry.network, but=OTHERS):
        if reader.file and reader.file not in changed and reader.stands:
            changed.add(reader.file)
            hosts.change_file(reader, _replacing(entry, reader))


def _replacing(entry: Entry, reader: Entry) -> "Callable[[File], None]":
    def change(file: File) -> None:
        old = file.read()
        if old is None:
            return
        kept = [line for line in old.splitlines(keepends=True) if not line.endswith(f"{entry.tag}\n")]
        if kept and not kept[-1].endswith("\n"):
            kept[-1] += "\n"
        if (new := "".join(kept) + entry.lines(reader=reader)) != old:
            file.write(new)

    return change
