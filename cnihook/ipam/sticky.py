# SPDX-License-Identifier: Apache-2.0
"""
What is kept for the sticky name of a container: its addresses and MAC addresses, on each of its networks.

    /var/lib/cnihook/sticky/web    {"container": ID, "networks": {NAME: {"ips": ["10.1.2.3/24"], ...}}}

While no container uses the name, the lease of an address has the owner "sticky:web".  This cannot be the ID
of a container, so no plugin leases the address to another container, and no DEL releases it.  Without the
file, a lease of this owner is left over.
"""

import os

from cnihook.fast import fastjson, statefile
from cnihook.fast.address import Address
from cnihook.ipam import leases
from cnihook.ipam.leases import STICKY_OWNER, Store
from cnihook.types import Value
from cnihook.types.errors import IO_FAILURE, CniError
from cnihook.types.names import check_sticky_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FOLDER = "/var/lib/cnihook/sticky"
MOST = 4096  # names, because a container can request any name
_LONGEST = 1 << 20  # bytes; 256 networks take 40,000


class DamagedError(CniError):
    """An error: the file of a sticky name does not hold what cnihook wrote."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(
            IO_FAILURE,
            f"sticky name {name}: {_path(name)} {problem}",
            f"`cnihook sticky rm {name}` removes it, and releases its addresses",
        )


class OnNetwork(Value):
    """The addresses that are kept on one network.

    `folder`: that of its leases; empty without the built-in host-local.
    """

    __slots__ = ("folder", "ips", "mac")

    def __init__(self, ips: "list[str] | None" = None, mac: str = "", folder: str = "") -> None:
        self.ips = ips or []
        self.mac = mac
        self.folder = folder


class StickyName(Value):
    """A sticky name, the container that used it last, and what is kept for it, by network."""

    __slots__ = ("container", "name", "networks")

    def __init__(
        self, name: str, container: str = "", networks: "dict[str, OnNetwork] | None" = None
    ) -> None:
        self.name = name
        self.container = container
        self.networks = networks or {}

    def text(self) -> str:
        on = {
            network: {"ips": one.ips, "mac": one.mac, "folder": one.folder}
            for network, one in self.networks.items()
        }
        return fastjson.dumps({"container": self.container, "networks": on})

    def write(self) -> None:
        """Store it whole or not at all.  The caller holds the lock of the name."""
        os.makedirs(FOLDER, mode=0o700, exist_ok=True)
        statefile.replace(_path(self.name), self.text().encode(), durable=True)


def _path(name: str) -> str:
    return f"{FOLDER}/{name}"


def find(name: str) -> "StickyName | None":
    """Return what is kept for a name, or None.  Raises DamagedError, or OSError if it cannot be read."""
    try:
        content = statefile.content(_path(name), longest=_LONGEST)
        if content is None:
            return None
        raw = fastjson.loads(content.decode())
        networks = {network: _on_network(one) for network, one in raw["networks"].items()}
        return StickyName(name, _text(raw["container"]), networks)
    except statefile.UnusableFileError as error:
        raise DamagedError(name, str(error)) from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise DamagedError(name, "is damaged") from None


def _on_network(raw: "Any") -> OnNetwork:
    return OnNetwork([_text(ip) for ip in raw["ips"]], _text(raw["mac"]), _text(raw["folder"]))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def names() -> "list[str]":
    try:
        return sorted(name for name in os.listdir(FOLDER) if not name.startswith("."))
    except FileNotFoundError:
        return []


def owner(name: str) -> bytes:
    return f"{STICKY_OWNER}{name}".encode()


def owners() -> "set[bytes]":
    """Return the owners of leases that are kept."""
    return {owner(name) for name in names()}


def remove(name: str) -> bool:
    """Release what is kept for a name.  Returns False if nothing is.  The caller holds the lock of the name.

    A container that uses the name keeps its addresses until it ends.
    """
    try:
        kept = find(name)
        folders = {one.folder for one in kept.networks.values() if one.folder} if kept else set()
        is_known = kept is not None
    except DamagedError:
        folders, is_known = {f"{leases.FOLDER}/{network}" for network in _listed(leases.FOLDER)}, True
    if not is_known:
        return False
    # The file first: a DEL that runs now must not keep the address again.
    leases.unlink(_path(name))
    for folder in folders:
        release(name, folder)
    return True


def _listed(folder: str) -> "list[str]":
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def release(name: str, folder: str) -> None:
    """Release the leases that are kept for a name in one folder."""
    if leases.exists(folder):
        with Store(folder, owner(name).decode()) as store:
            store.release()


class Kept:
    """The leases that are kept for a name, in one operation of host-local for a container with this name.

    `own`: the owner of the container's leases.
    """

    def __init__(self, name: str, store: Store, own: bytes) -> None:
        check_sticky_name(name)
        self._name = name
        self._store = store
        self._own = own
        self._owner = owner(name)
        self._taken: list[Address] = []
        self.addresses = store.leased_to(self._owner)

    def take(self, address: Address) -> bool:
        """Lease the address to the container.  Returns False if it is not kept for the name."""
        if address not in self.addresses:
            return False
        self._store.give(address, self._owner, self._own)
        self.addresses = [one for one in self.addresses if one != address]
        self._taken.append(address)
        return True

    def take_back(self) -> None:
        """Undo take()."""
        for address in self._taken:
            self._store.give(address, self._own, self._owner)

    def release_rest(self) -> None:
        """Release what the container did not take: the ranges have changed, or it requested an address."""
        self._store.drop({str(address) for address in self.addresses}, self._owner)

    def release(self) -> None:
        """Keep the container's addresses for its name, if that was not removed, and release all else."""
        addresses = self._store.owned() if os.path.lexists(_path(self._name)) else []
        for address in addresses:
            self._store.give(address, self._own, self._owner)
        self._store.release(searches=not addresses)
