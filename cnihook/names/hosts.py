# SPDX-License-Identifier: Apache-2.0
"""
The names of the containers on each network, in the /etc/hosts of every container on it.

Each line that cnihook writes ends with a comment that names its container, `# cnihook: c1 on mynet`.  So one
write at the end of a file adds it, and it can be found and removed wherever it is later.  The entry of a
container (see entries) holds its names on a network and its hosts file.  An entry is valid while its
attachment is on record, and a line while its entry is valid.
"""

import os

from cnihook.fast.errors_text import message
from cnihook.linux.flock import Lock
from cnihook.log import Log
from cnihook.names import entries, loopback_names
from cnihook.names.entries import TAG, Entry
from cnihook.names.rootfs_file import STALE, File
from cnihook.protocol import locks
from cnihook.types.errors import INVALID_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LOCALHOST = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
# Errors of a file that is lost: it is gone, or something else is at its path.
_LOST = (2, 20, 22, 40, STALE)  # ENOENT ENOTDIR EINVAL ELOOP


def add(
    container_id: str,
    own: "list[Entry]",
    further: "list[tuple[str, str]]",
    file: "File | None",
    log: Log,
    hostname: str = "",
) -> str:
    """Write a container's names into the hosts files on its networks, and their names into its own `file`.

    `own`: the container's entry on each network, with the same `file`.  `further`: (name, address) for its
    own file only.  Returns the lines of that file, also if `file` is None and nothing is written.  If the
    file of another container cannot be changed, that container's log and `log` get the reason.

    Raises OSError if the own file cannot be written.  Raises CniError, before anything is changed, if
    another container has a stronger claim to an alias or to the requested `hostname`.
    """
    with _lock(container_id):
        if file:
            file.pin()
        old = _without_own_names(file, own) if file else ""
        _take_hidden(old, own)
        added = [f"{address} {name}" for name, address in further]
        if own:
            own[0].hosts = added
        on_network = _with_others(own)
        for entry, others in on_network:
            _refuse_claimed(entry, others, hostname)
        for entry, others in on_network:
            _settle(entry, others, log)
            if entry.names or file:
                entry.write()
            informed = {file}
            for other in others:
                lines = entry.lines(reader=other)
                if lines and other.file and other.file not in informed:
                    informed.add(other.file)
                    if problem := change_file(other, _appending(lines)):
                        log.event(f"its names are not in the hosts file of {other.container_id}: {problem}")
        text = _lines(on_network) if own else entries.host_lines(container_id, added)
        if file:
            file.write(old + text)
        return text


def set_aliases(own: Entry, aliases: "list[str]", log: Log) -> None:
    """Give a container that runs other aliases on a network, in all hosts files there.

    `own`: its entry, which need not exist yet.  Raises CniError or OSError, before anything is changed, if
    another container has a stronger claim to an alias, or if its own file cannot be written.
    """
    with _lock(own.container_id):
        own = Entry.read(own.network, own.container_id) or own
        if own.aliases == aliases:
            return
        others = _entries(own.network, but=own.container_id)
        own.claim(aliases)
        _refuse_claimed(own, others, "")
        if own.file:
            own.file.pin()
        _settle(own, others, log)
        own.write()
        changed: list[File] = []
        for reader in (own, *others):
            if reader.file and reader.file not in changed:
                changed.append(reader.file)
                if problem := _renew(own, reader):
                    log.event(f"its names are not in the hosts file of {reader.container_id}: {problem}")


def set_hosts(network: str, container_id: str, added: "list[str]") -> None:
    """Give a container that runs other further hosts, each "ADDRESS NAME".  Raises OSError of its file."""
    with _lock(container_id):
        own = Entry.read(network, container_id)
        if not (own and own.file) or own.hosts == added:
            return
        own.file.pin()
        own.hosts = added
        own.write()
        own.file.remove_lines(f"{TAG}{container_id}", having=TAG)
        own.file.append(entries.host_lines(container_id, added))


def renew(container_id: str) -> bool:
    """Write a container's names into its own hosts file again if another program has replaced its content.

    Returns True if they were missing.  Raises OSError if the file cannot be used, and LockBusyError after a
    long wait.
    """
    if not incomplete(container_id):
        return False
    with _lock(container_id):
        for file, own in incomplete(container_id).items():
            old = _without_own_names(file, own)
            _take_hidden(old, own)
            for entry in own:
                entry.write()
            file.write(old + _lines(_with_others(own)))
    return True


def _take_hidden(text: str, own: "list[Entry]") -> None:
    """Add to a container's entries the names that led to its loopback in this text and are now hidden."""
    for entry in own:
        hidden = loopback_names.hidden_names(text, entry.container_id)
        entry.hides = bool(hidden)
        entry.private += [name for name in hidden if name not in entry.own_names]


def renew_with_event(container_id: str) -> bool:
    """Do what renew() does, and log the outcome in the container's log, also a failure."""
    log = Log(container_id, quiet=True)
    try:
        renewed = renew(container_id)
    except OSError as error:
        log.event(f"names are not in its /etc/hosts: {message(error)}")
        return False
    if renewed:
        log.event("its names are in /etc/hosts again, which was written after they were set")
    return renewed


def incomplete(container_id: str) -> "dict[File, list[Entry]]":
    """Return the hosts files of a container that lack its own names.  Raises OSError as File.read() does."""
    entries_of: dict[File, list[Entry]] = {}
    for entry in _of_container(container_id):
        if entry.file:
            entries_of.setdefault(entry.file, []).append(entry)
    return {file: own for file, own in entries_of.items() if not _has_lines(file, own)}


def _has_lines(file: File, own: "list[Entry]") -> bool:
    # The lines of other containers need not be compared: a program that replaces the content removes all.
    lines = set((file.read() or "").splitlines(keepends=True))
    return lines.issuperset(line for entry in own for line in _own_lines(entry).splitlines(keepends=True))


def _own_lines(entry: Entry) -> str:
    return entry.lines() + entries.host_lines(entry.container_id, entry.hosts)


def _with_others(own: "list[Entry]") -> "list[tuple[Entry, list[Entry]]]":
    """Return each entry of a container with the other entries of its network."""
    return [(entry, _entries(entry.network, but=entry.container_id)) for entry in own]


def _lines(on_network: "list[tuple[Entry, list[Entry]]]") -> str:
    """Return all lines that the hosts file of a container gets by its entries."""
    own = "".join(entry.lines() for entry, _ in on_network)
    further = "".join(entries.host_lines(entry.container_id, entry.hosts) for entry, _ in on_network)
    others = "".join(other.lines(reader=entry) for entry, others in on_network for other in others)
    return own + further + others


def _refuse_claimed(new: Entry, others: "list[Entry]", hostname: str) -> None:
    for other in filter(new.is_rival, others):
        for name in new.yielding(other):
            if name in (*new.aliases, hostname):
                holder = (
                    f"the {'ID' if other.rank(name) > 1 else 'host name'} of container {other.container_id}"
                )
                raise CniError(INVALID_CONFIG, f"name {name} on network {new.network}: it is {holder}")


def _settle(new: Entry, others: "list[Entry]", log: Log) -> None:
    """Give each name to the container with the strongest claim, and log names that several claim."""
    network, container_id = new.network, new.container_id
    rivals = [other for other in others if new.is_rival(other)]
    for other in rivals:
        if lost := new.yielding(other):
            new.give_up(lost)
            log.event(f"not known as {', '.join(lost)} on {network}: that is container {other.container_id}")
        if lost := other.yielding(new):
            names = ", ".join(lost)
            event = f"no longer known as {names} on {network}: that is container {container_id}"
            Log(other.container_id).event(event)
            other.give_up(lost)
            other.write()
            for reader in others:
                _renew(other, reader)
    for name in new.all_names:
        first = next((other for other in rivals if other.rank(name) >= 0), None)
        if first and first.joined < new.joined:
            log.event(f"name {name} on {network} leads to container {first.container_id} first")
            Log(first.container_id).event(
                f"name {name} on {network} is that of container {container_id}, too"
            )


def _appending(lines: str) -> "Callable[[File], None]":
    return lambda file: file.append(lines)


def _renew(entry: Entry, reader: Entry) -> str:
    """Write the lines of an entry into the file of a reader again, after the entry's names have changed.

    Returns the reason if that fails.
    """
    new = entry.lines(reader=None if reader is entry else reader)

    def change(file: File) -> None:
        lines = (file.read() or "").splitlines(keepends=True)
        # At the same place: the first line with a name decides which address the name has.
        places = [index for index, line in enumerate(lines) if _tag(line) == entry.tag]
        at = places[0] if places else len(lines)
        kept = [line for line in lines[at:] if _tag(line) != entry.tag]
        file.write("".join([*lines[:at], new, *kept]))

    return change_file(reader, change)


def remove(network: str, container_id: str) -> None:
    """Remove a container's names on one network, if it has any.

    Raises LockBusyError if another process holds the lock too long.
    """
    if os.path.exists(f"{entries.FOLDER}/{network}/{container_id}"):
        with _lock(container_id):
            entry = Entry.read(network, container_id)
            if entry:
                _remove_lines(entry, _entries(network, but=container_id))


def prune() -> None:
    """Remove the names of all attachments that are no longer on record."""
    if os.path.isdir(entries.FOLDER):
        with _lock("gc"):
            for network in entries.listed(entries.FOLDER):
                entries.remove_damaged(network)
                _entries(network)


def without_ours(file: File, own: "list[Entry]") -> str:
    """Return the content of a file to which the lines for `own` can be added.

    It is every line that cnihook did not write, and each of its lines that is still valid because the file
    is also used on another network or by another container.
    """
    old = file.read()
    if not (old and old.strip()):
        return LOCALHOST
    if TAG not in old:
        return old if old.endswith("\n") else f"{old}\n"
    # The image may have written the tags, so they are only compared.
    having = [
        entry
        for network in entries.listed(entries.FOLDER)
        for entry in _entries(network)
        if entry.file == file
    ]
    networks = {entry.network for entry in having} - {entry.network for entry in own}
    containers = {entry.container_id for entry in having}

    def is_valid(tag: str) -> bool:
        container_id, on, network = tag.removeprefix(TAG).partition(" on ")
        return not tag or (network in networks if on else container_id in containers)

    kept = "".join(line for line in old.splitlines(keepends=True) if is_valid(_tag(line)))
    if not kept.strip():
        return LOCALHOST
    return kept if kept.endswith("\n") else f"{kept}\n"


def _without_own_names(file: File, own: "list[Entry]") -> str:
    """Return without_ours(), also without loopback addresses for the names of the container of `own`."""
    text = without_ours(file, own)
    if not own:
        return text
    names = [name for entry in own for name in entry.own_names]
    # Podman writes the name that it gives a container next to the host name.
    return loopback_names.hide(text, names, own[0].container_id, whole=True)


def _lock(container_id: str) -> Lock:
    return locks.names(f"names of {container_id}")


def _entries(network: str, but: str = "") -> "list[Entry]":
    """Return entries.of_network(), after the removal of those that are no longer valid."""
    present = entries.of_network(network, but)
    standing = [entry for entry in present if entry.stands]
    if len(standing) < len(present):
        own = Entry.read(network, but) if but else None
        for entry in present:
            if entry not in standing:
                _remove_lines(entry, [*standing, *([own] if own else [])])
    return standing


def _of_container(container_id: str) -> "list[Entry]":
    present = [Entry.read(network, container_id) for network in entries.listed(entries.FOLDER)]
    return [entry for entry in present if entry and entry.stands]


def change_file(holder: Entry, change: "Callable[[File], None]") -> str:
    """Change the hosts file of an entry.  On failure, log the reason in its log and return it."""
    if not holder.file:
        return ""
    try:
        change(holder.file)
        return ""
    except OSError as error:  # the file may be gone, because its container is about to end
        reason = message(error)
        if holder.stands:
            lost = ", and it will not be kept up to date" if error.errno in _LOST else ""
            Log(holder.container_id).event(f"its /etc/hosts is not changed: {reason}{lost}")
        if error.errno in _LOST:
            holder.file = None
            holder.write()
        return reason


def _remove_lines(entry: Entry, others: "list[Entry]") -> None:
    """Remove an entry, its lines in the files of `others`, and the lines for its network in its own file.

    The entry stays if a file of another container cannot be changed now.  Then the next poststop of this
    container or gc tries again.
    """
    changed: set[File] = set()
    pending = False
    for other in others:
        if other.file and other.file not in changed:
            changed.add(other.file)
            failure = _forget(other, entry.tag)
            pending = pending or bool(failure and other.file)
    if entry.file:
        is_shared = entry.file in changed  # another container on this network uses it, too
        left = [one for one in _of_container(entry.container_id) if one.network != entry.network]
        if not left:
            _forget(entry, f"{TAG}{entry.container_id}")
            if entry.hides:
                change_file(entry, lambda file: _show_hidden(file, entry.container_id))
        elif entry.hosts:
            left[0].hosts += entry.hosts
            left[0].write()
        if not is_shared:
            _forget(entry, f" on {entry.network}")
    if pending:
        return
    # The entry is removed last, because the lines could not be found without it.
    for delete, path in (
        (os.unlink, entry.path),
        (os.rmdir, os.path.dirname(entry.path)),
        (os.rmdir, entries.FOLDER),
    ):
        try:
            delete(path)
        except OSError:
            break  # the folder still has other entries


def _forget(holder: Entry, ending: str) -> str:
    """Remove the lines of cnihook with this ending from the file of an entry.

    Returns the reason if that fails, else an empty text.
    """
    return change_file(holder, lambda file: file.remove_lines(ending, having=TAG))


def _show_hidden(file: File, container_id: str) -> None:
    text = file.read() or ""
    if loopback_names.has_hidden(text, container_id):
        file.write(loopback_names.show(text, container_id))


def _tag(line: str) -> str:
    """Return the comment that marks a line of cnihook; empty for any other line."""
    start = line.find(TAG)
    return line[start:].rstrip("\n") if start >= 0 else ""
