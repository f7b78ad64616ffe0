# SPDX-License-Identifier: Apache-2.0
"""
The names of each container on each network, in /run/cnihook/names/NETWORK/ID.

One container has the strongest claim to a name on a network: the container with this ID, else the first with
this host name, else the first with this alias.  Later containers with a claim of the same kind have the
name, too.  They follow the first one in each hosts file.

The containers of other hosts on a network are one entry, OTHERS, whose `hosts` have their names; see
other_hosts.
"""

import os
import time
from _stat import S_ISDIR, S_ISREG

from cnihook.fast import statefile
from cnihook.names.rootfs_file import File
from cnihook.runtime import records
from cnihook.types.errors import CniError
from cnihook.types.names import record_name

FOLDER = "/run/cnihook/names"
TAG = "# cnihook: "
OTHERS = "@other-hosts"  # not the ID of a container, which begins with a letter or a digit


class Entry:
    """One container on one network: its names there, and its hosts file, which holds the names of others.

    `names` are its ID and host names, which have priority over `aliases`.  `private` names are in its own
    file only.  `hosts` are additional lines of that file, as "ADDRESS NAME".  An older entry has a smaller
    `joined`.
    """

    __slots__ = (
        "_claims", "addresses", "aliases", "container_id", "file", "hides", "hosts", "ifname", "joined",
        "names", "network", "private",
    )  # fmt: skip

    def __init__(
        self,
        network: str,
        container_id: str,
        ifname: str,
        addresses: "list[str]",
        names: "list[str]",
        aliases: "list[str]",
        file: "File | None",
        private: "list[str] | None" = None,
        joined: int = 0,
        *,
        hides: bool = False,
        hosts: "list[str] | None" = None,
    ) -> None:
        self.network = network
        self.container_id = container_id
        self.ifname = ifname
        self.addresses = addresses
        self.names = names
        self.aliases = aliases
        self.file = file
        self.private = private or []
        self.joined = joined or time.monotonic_ns()
        self.hides = hides  # True if lines of its file are hidden; see loopback_names
        self.hosts = hosts or []
        self._claims: dict[str, int] = {}

    @property
    def claims(self) -> "dict[str, int]":
        """The strength of its claim to each name in lower case: 2 by ID, 1 by host name, 0 by alias."""
        if not self._claims:
            self._claims = {name.lower(): 0 for name in self.aliases}
            for name in self.names:
                self._claims[name.lower()] = 2 if name == self.container_id else 1
        return self._claims

    @property
    def path(self) -> str:
        return f"{FOLDER}/{self.network}/{self.container_id}"

    @property
    def tag(self) -> str:
        return f"{TAG}{self.container_id} on {self.network}"

    @property
    def all_names(self) -> "list[str]":
        """The names for the hosts files of other containers; if empty, they get no line for this one."""
        return list(dict.fromkeys([*self.names, *self.aliases]))

    @property
    def own_names(self) -> "list[str]":
        """All names of the container in its own file."""
        return list(dict.fromkeys([*self.private, *self.all_names]))

    def rank(self, name: str) -> int:
        """Return the strength of its claim to a name, -1 for none."""
        return self.claims.get(name.lower(), -1)

    def is_rival(self, other: "Entry") -> bool:
        """Return True if both claim the same name."""
        return not self.claims.keys().isdisjoint(other.claims)

    def yielding(self, other: "Entry") -> "list[str]":
        """Return the names of this entry to which another entry has a stronger claim."""
        return [name for name in self.all_names if other.rank(name) > self.rank(name)]

    def give_up(self, names: "list[str]") -> None:
        """Leave these names to another container; its host names stay in its own file."""
        self.private += [name for name in self.names if name in names]
        self.names = [name for name in self.names if name not in names]
        self.aliases = [name for name in self.aliases if name not in names]
        self._claims = {}

    def claim(self, aliases: "list[str]") -> None:
        """Take other aliases instead of those that it has."""
        self.aliases = aliases
        self._claims = {}

    def lines(self, reader: "Entry | None" = None) -> str:
        """Return its lines for the hosts file of `reader`, without names that the reader has itself.

        None: return the lines for its own file.
        """
        if self.container_id == OTHERS:
            return self._lines_of_others(reader)
        names = self.all_names
        if not reader:
            names = self.own_names
        elif self.is_rival(reader):
            names = [name for name in names if reader.rank(name) < 0]
        if not names:
            return ""
        return "".join(f"{address}\t{' '.join(names)}\t{self.tag}\n" for address in self.addresses)

    def _lines_of_others(self, reader: "Entry | None") -> str:
        lines = []
        for host in self.hosts:
            address, *names = host.split(" ")
            if names := [name for name in names if not reader or reader.rank(name) < 0]:
                lines.append(f"{address}\t{' '.join(names)}\t{self.tag}\n")
        return "".join(lines)

    def write(self) -> None:
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        place = [self.file.base, self.file.name, *map(str, self.file.identity or ())] if self.file else []
        parts = [
            [self.ifname], place, self.names, self.aliases, self.private, self.addresses, [str(self.joined)],
            ["hides"] if self.hides else [],
            self.hosts,
        ]  # fmt: skip
        with open(statefile.create(self.path, mode=0o644), "wb") as file:
            file.write(os.fsencode("".join("\t".join(part) + "\n" for part in parts)))

    @classmethod
    def read(cls, network: str, container_id: str) -> "Entry | None":
        """Read an entry; None if it does not exist.  If its writer was killed, names or file are missing."""
        try:
            data = statefile.read(f"{FOLDER}/{network}/{container_id}")
        except NotADirectoryError:
            return None
        if data is None:
            return None
        lines = [line.split("\t") if line else [] for line in os.fsdecode(data).split("\n")]
        ifname, place, names, aliases, private, addresses, joined, hides, hosts = [*lines, *([[]] * 9)][:9]
        return cls(
            network,
            container_id,
            "".join(ifname[:1]),
            addresses,
            names,
            aliases,
            _file_of(place),
            private,
            _number("".join(joined[:1])),
            hides=bool(hides),
            hosts=hosts,
        )

    @property
    def stands(self) -> bool:
        """True while the attachment is on record.  Raises OSError if that cannot be determined."""
        if self.container_id == OTHERS:
            return True  # `cnihook cluster leave` removes it
        try:
            os.lstat(f"{records.FOLDER}/{record_name(self.network, self.container_id, self.ifname)}")
        except (CniError, FileNotFoundError):
            return False
        return True


def host_lines(container_id: str, hosts: "list[str]") -> str:
    """Return the lines of `hosts`, each "ADDRESS NAME".  They stay while the container has a network."""
    pairs = (host.partition(" ") for host in hosts)
    return "".join(f"{address}\t{name}\t{TAG}{container_id}\n" for address, _, name in pairs if name)


def _file_of(place: "list[str]") -> "File | None":
    """Return the file of an entry, which is valid only as long as no other file is at its path."""
    if len(place) != 4:
        return None
    return File(place[0], place[1], (_number(place[2]), _number(place[3])))


def _number(text: str) -> int:
    return int(text) if len(text) <= 20 and text.isdecimal() else 0


def of_network(network: str, but: str) -> "list[Entry]":
    """Return the entries of a network except that of container `but`, the oldest first."""
    names = [name for name in listed(f"{FOLDER}/{network}") if name != but]
    entries = [entry for name in names if (entry := Entry.read(network, name))]
    return sorted(entries, key=lambda entry: entry.joined)


def remove_damaged(network: str) -> None:
    """Remove each entry that is not a regular file, and the folders that this leaves empty."""
    folder = f"{FOLDER}/{network}"
    for name in listed(folder):
        path = f"{folder}/{name}"
        mode = os.lstat(path).st_mode
        if not S_ISREG(mode):
            (os.rmdir if S_ISDIR(mode) else os.unlink)(path)
    for empty in (folder, FOLDER):
        try:
            os.rmdir(empty)
        except OSError:
            break  # in use


def listed(folder: str) -> "list[str]":
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
