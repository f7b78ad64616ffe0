# SPDX-License-Identifier: Apache-2.0
"""
Who is called what on each network, in the /etc/hosts of all who are on it.

Each line of ours ends with a comment that says whose it is, `# cnihook: c1 on mynet`, so that it can be
added by one write at the end of a file, and taken away wherever it is by then.  Who is on a network, under
which names, and has which hosts file, is in /run/cnihook/names/NETWORK/ID; where nobody has one there is
nothing to read.  An entry is good for as long as its attachment is on record, and a line for as long as its
entry is.
"""

import os

from cnihook.linux.flock import Lock
from cnihook.oci.etc import File
from cnihook.runtime import cache
from cnihook.spec.errors import CniError
from cnihook.spec.names import record_name

FOLDER = "/run/cnihook/names"
LOCALHOST = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_TAG = "# cnihook: "


class Entry:
    """One container on one network: its names there, and the file that is told of the others', if any."""

    __slots__ = ("addresses", "container_id", "file", "ifname", "names", "network")

    def __init__(
        self,
        network: str,
        container_id: str,
        ifname: str,
        addresses: "list[str]",
        names: "list[str]",
        file: "File | None",
    ) -> None:
        self.network = network
        self.container_id = container_id
        self.ifname = ifname
        self.addresses = addresses
        self.names = names  # without any, nobody is told of it
        self.file = file

    @property
    def path(self) -> str:
        return f"{FOLDER}/{self.network}/{self.container_id}"

    @property
    def tag(self) -> str:
        return f"{_TAG}{self.container_id} on {self.network}"

    def lines(self, reader: "Entry | None" = None) -> str:
        """Its lines in a hosts file.  A name that the reader has itself means the reader there."""
        names = [name for name in self.names if not reader or name not in reader.names]
        if not names:
            return ""
        return "".join(f"{address}\t{' '.join(names)}\t{self.tag}\n" for address in self.addresses)

    def write(self) -> None:
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        place = [self.file.base, self.file.name] if self.file else []
        words = [[self.ifname], place, self.names, self.addresses]
        with open(self.path, "wb") as file:
            file.write(os.fsencode("".join("\t".join(part) + "\n" for part in words)))

    @classmethod
    def read(cls, network: str, container_id: str) -> "Entry | None":
        """None if there is none; one without names or file if its writer was killed on the way."""
        try:
            fd = os.open(f"{FOLDER}/{network}/{container_id}", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        text = os.fsdecode(os.read(fd, 1 << 16))
        os.close(fd)
        ifname, place, names, addresses = [*text.split("\n"), "", "", "", ""][:4]
        base, tab, name = place.partition("\t")
        return cls(
            network,
            container_id,
            ifname,
            addresses.split("\t") if addresses else [],
            names.split("\t") if names else [],
            File(base, name) if tab else None,
        )

    @property
    def stands(self) -> bool:
        try:
            return os.path.lexists(
                f"{cache.FOLDER}/{record_name(self.network, self.container_id, self.ifname)}"
            )
        except CniError:
            return False


def join(
    container_id: str,
    own: "list[Entry]",
    further: "list[tuple[str, str]]",
    file: "File | None",
    problems: "list[str]",
) -> str:
    """Put a container's names into the hosts files of those on its networks, and theirs into its own.

    `own`, one for each network, have that file, too.  `further` are (name, address) for it alone.  Returns
    the lines that it has, or ought to have where it is None.  What keeps others from being told goes to
    `problems`; raises OSError with what keeps the own file from being written.
    """
    with _lock(container_id):
        old = without_ours(file, own) if file else ""
        text = "".join(entry.lines() for entry in own)
        text += "".join(f"{address}\t{name}\t{_TAG}{container_id}\n" for name, address in further)
        for entry in own:
            others = _entries(entry.network, but=container_id)
            if entry.names or file:
                entry.write()
            told = {file}
            for other in others:
                text += other.lines(reader=entry)
                if other.file and other.file not in told:
                    told.add(other.file)
                    _tell(other.file, entry.lines(reader=other), problems)
        if file:
            file.write(old + text)
        return text


def leave(network: str, container_id: str) -> None:
    """Take a container's names on one network away, if it has any.  Raises Busy where others take long."""
    if os.path.exists(f"{FOLDER}/{network}/{container_id}"):
        with _lock(container_id):
            entry = Entry.read(network, container_id)
            if entry:
                _remove(entry, _entries(network, but=container_id))


def sweep() -> None:
    """Take away the names of all whose attachments are on record no more."""
    if os.path.isdir(FOLDER):
        with _lock("gc"):
            for network in _listed(FOLDER):
                _entries(network)


def without_ours(file: File, own: "list[Entry]") -> str:
    """What a file is to hold besides the lines on the networks of `own`: what is not ours, and what is ours
    and stands, since the file has been on other networks, or is another container's, too.
    """
    old = file.read()
    if not (old and old.strip()):
        return LOCALHOST
    if _TAG not in old:
        return old if old.endswith("\n") else f"{old}\n"
    # What a tag says is the image's word, so it is only compared.
    having = [entry for network in _listed(FOLDER) for entry in _entries(network) if entry.file == file]
    networks = {entry.network for entry in having} - {entry.network for entry in own}
    containers = {entry.container_id for entry in having}

    def stands(tag: str) -> bool:
        container_id, on, network = tag.removeprefix(_TAG).partition(" on ")
        return not tag or (network in networks if on else container_id in containers)

    kept = "".join(line for line in old.splitlines(keepends=True) if stands(_tag(line)))
    if not kept.strip():
        return LOCALHOST
    return kept if kept.endswith("\n") else f"{kept}\n"


def _lock(container_id: str) -> Lock:
    return Lock("names", timeout=5, purpose=f"names of {container_id}")


def _listed(folder: str) -> "list[str]":
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _entries(network: str, but: str = "") -> "list[Entry]":
    """All on a network but one; those that do not stand are gone after this."""
    names = [name for name in _listed(f"{FOLDER}/{network}") if name != but]
    found = [entry for name in names if (entry := Entry.read(network, name))]
    standing = [entry for entry in found if entry.stands]
    if len(standing) < len(found):
        own = Entry.read(network, but) if but else None
        for entry in found:
            if entry not in standing:
                _remove(entry, [*standing, *([own] if own else [])])
    return standing


def _of_container(container_id: str) -> "list[Entry]":
    found = [Entry.read(network, container_id) for network in _listed(FOLDER)]
    return [entry for entry in found if entry and entry.stands]


def _tell(file: File, lines: str, problems: "list[str]") -> None:
    try:
        if lines:
            file.append(lines)
    except OSError as error:  # it may be gone, as its container soon will be
        problems.append(f"{file}: {error.strerror}")


def _remove(entry: Entry, others: "list[Entry]") -> None:
    """Take its lines out of the others' files, and what it knows of the network out of its own."""
    done: set[File] = set()
    for other in others:
        if other.file and other.file not in done:
            done.add(other.file)
            _forget(other.file, entry.tag)
    if entry.file:
        left = [known for known in _of_container(entry.container_id) if known.network != entry.network]
        if not left:
            _forget(entry.file, f"{_TAG}{entry.container_id}")
        if entry.file not in done:  # else another has it, too, and stays
            _forget(entry.file, f" on {entry.network}")
    # Last, for without it nobody would know of the lines.
    for remove, path in (
        (os.unlink, entry.path),
        (os.rmdir, os.path.dirname(entry.path)),
        (os.rmdir, FOLDER),
    ):
        try:
            remove(path)
        except OSError:
            break  # others are in the folder


def _forget(file: File, ending: str) -> None:
    """Take our lines that end so out of a file."""
    try:
        file.remove_lines(ending, having=_TAG)
    except OSError:
        pass  # whatever is wrong with it is its container's affair


def _tag(line: str) -> str:
    """The comment that makes a line ours; empty for any other."""
    start = line.find(_TAG)
    return line[start:].rstrip("\n") if start >= 0 else ""
