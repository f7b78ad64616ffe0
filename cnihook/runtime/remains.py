# SPDX-License-Identifier: Apache-2.0
"""
What is left of attachments without a sound record, and whether it is in use.

A file name, an owner that the kernel stores (link aliases, comments of nftables) or a lease names an
attachment: network, container ID, interface.  It may be in use while a process, or a namespace that has
another name than the ID, has the interface or an address.  Off the hot path: only what is left needs this.
"""

import errno
import os
import time

from cnihook.lean.address import Address
from cnihook.linux import netns
from cnihook.linux.netns import NetNS
from cnihook.runtime import cache, netns_names
from cnihook.sdk import invoke, table, veth
from cnihook.sdk.call import Call, Request
from cnihook.spec.config import NetConf
from cnihook.spec.errors import IO_FAILURE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.linux.rtnl import Link

    Identity = tuple[str, str, str]  # network, container ID, ifname

_ENDING = 1.0  # seconds that the kernel may take to end a namespace, and with it the links to it


class InUse(CniError):
    """A container has the attachment still."""

    def __init__(self, identity: "Identity", why: str) -> None:
        network, container_id, ifname = identity
        super().__init__(IO_FAILURE, f"{network} {ifname} of container {container_id} is in use: {why}")


def owner_of(identity: "Identity") -> str:
    network, container_id, ifname = identity
    return Call("GC", NetConf({"name": network}), Request(container_id, "", ifname)).owner


# What there is


def orphans() -> "list[Identity]":
    """Return the attachments that left something on the host, and have no file in the records' folder.

    Those in use are among them: another runtime may keep its records elsewhere.
    """
    owners, leases, marks = _owners(), _leases(), netns_names.marked()
    # After those, since a record is older than what it is of.
    files = cache.identities_on_file()
    known = {owner_of(identity) for identity in files}
    containers = {container_id for _network, container_id, _ifname in files}
    found: dict[Identity, None] = {}
    for owner in sorted(owners):
        words = owner.split(" ")
        if owner not in known and len(words) == 3 and cache.are_names(*words):
            found[words[0], words[1], words[2]] = None
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    for identity, written in leases.items():
        is_lost = identity[1] in marks and identity[1] not in containers
        if identity not in files and (is_lost or written[0] < booted):
            found[identity] = None
    return list(found)


def names() -> "list[str]":
    """Return the containers that are not on record, whose namespace has a name by cnihook and no process."""
    marks = netns_names.marked()
    containers = {container_id for _network, container_id, _ifname in cache.identities_on_file()}
    lost = [container_id for container_id in marks if container_id not in containers]
    used = {space.identity for space in spaces() if space.pid} if lost else set()
    return [container_id for container_id in lost if netns_names.identity_of(container_id) not in used]


def _owners() -> "dict[str, list[Address]]":
    """Return the owners that the kernel stores, each with the addresses that are known to be its own."""
    owners: dict[str, list[Address]] = {}
    host = NetNS.current()
    try:
        for link in host.rtnl.links():
            if link.kind == "ifb" or (link.kind == "veth" and link.name in veth.names_for(link.alias)):
                owners.setdefault(link.alias, [])
    finally:
        host.close()
    try:
        for name, key, owner in table.owned():
            addresses = owners.setdefault(owner, [])
            if name.startswith(table.BY_ADDRESS):
                addresses.append(Address(key))
    except OSError as error:
        if error.errno not in (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL):  # no nftables
            raise
    return owners


def _leases() -> "dict[Identity, tuple[float, list[Address]]]":
    """Return the owners of host-local's leases, each with the time of the last one, and their addresses."""
    leases: dict[Identity, tuple[float, list[Address]]] = {}
    folder = invoke.load("host-local").DATA_DIR
    for network in _listed(folder):
        for name in _listed(f"{folder}/{network}"):
            path = f"{folder}/{network}/{name}"
            try:
                address = Address.parse(name)
                status = os.lstat(path)
                if status.st_mode & 0o170000 != 0o100000:  # S_IFREG
                    continue
                with open(path, "rb") as file:
                    container_id, _, ifname = file.read(1024).decode().strip().partition("\r\n")
            except (FileNotFoundError, ValueError):
                continue
            identity = network, container_id, ifname
            if cache.are_names(*identity):
                written, addresses = leases.get(identity, (0.0, []))
                leases[identity] = max(written, status.st_mtime), [*addresses, address]
    return leases


def _listed(folder: str) -> "list[str]":
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


# Whether it is in use


class _Space:
    """A network namespace that is not the host's, and a process in it, or a name of it."""

    def __init__(self, path: str, identity: "tuple[int, int]", pid: int, name: str = "") -> None:
        self.path = path
        self.identity = identity
        self.pid = pid  # 0: no process is in it
        self.name = name

    def __str__(self) -> str:
        return f"process {self.pid}" if self.pid else netns.named(self.name)


def spaces() -> "list[_Space]":
    """Raise OSError if a process cannot be looked at: it may be in any."""
    host = NetNS.current()
    seen = {host.identity: _Space("", host.identity, 0)}
    host.close()
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                status = os.stat(f"/proc/{entry}/ns/net")
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
            identity = status.st_dev, status.st_ino
            if identity not in seen:
                seen[identity] = _Space(f"/proc/{entry}/ns/net", identity, int(entry))
    for name in _listed(netns.NAMES):
        space = NetNS.find(netns.named(name))
        if space:
            seen.setdefault(space.identity, _Space(netns.named(name), space.identity, 0, name))
            space.close()
    return [space for space in seen.values() if space.path]


def refuse_if_used(identity: "Identity") -> None:
    """Raise InUse if a container may have the attachment still."""
    container_id = identity[1]
    owner = owner_of(identity)
    addresses = {*_owners().get(owner, ()), *_leases().get(identity, (0.0, []))[1]}
    own = netns_names.identity_of(container_id)
    ends = _host_ends(owner)
    for space in spaces():
        is_own = space.identity == own or space.name == container_id
        if is_own and space.pid:
            raise InUse(identity, f"{space} is in {netns.named(container_id)}")
        namespace = NetNS.find(space.path)
        if not namespace:
            continue  # it has ended
        try:
            links = namespace.rtnl.links()
            peers = {(link.index, link.peer_index) for link in links if link.kind == "veth"}
            ends = [end for end in ends if not (is_own and (end.peer_index, end.index) in peers)]
            if is_own:
                continue
            present = {address.net.address for address in namespace.rtnl.addresses()}
        finally:
            namespace.close()
        if any(link.alias == owner for link in links) or addresses & present:
            raise InUse(identity, f"{space} has it")
        if any((end.peer_index, end.index) in peers for end in ends):
            raise InUse(identity, f"{space} has it")
    _wait_for_end(identity, ends)


def is_free(identity: "Identity") -> bool:
    """Return True if the attachment is certainly not in use."""
    container_id = identity[1]
    owner = owner_of(identity)
    is_known = _owners().get(owner) or identity in _leases() or _host_ends(owner)
    if not is_known and not netns_names.is_marked(container_id):
        return False  # nothing says where it would be in use
    try:
        refuse_if_used(identity)
    except InUse:
        return False
    return True


def _host_ends(owner: str) -> "list[Link]":
    host = NetNS.current()
    try:
        return [link for link in host.rtnl.links() if link.kind == "veth" and link.alias == owner]
    finally:
        host.close()


def _wait_for_end(identity: "Identity", ends: "list[Link]") -> None:
    """A pair lives as long as both its namespaces: one that was not seen is about to end, or is held."""
    deadline = time.monotonic() + _ENDING
    indexes = {end.index for end in ends}
    while indexes:
        indexes &= {end.index for end in _host_ends(owner_of(identity))}
        if indexes and time.monotonic() > deadline:
            raise InUse(identity, f"{ends[0].name} leads to a namespace without process and name")
        time.sleep(0.01)
