# SPDX-License-Identifier: Apache-2.0
"""
What is left of attachments whose record is lost or damaged, and whether it is in use.

A file name, an owner that the kernel stores (link aliases, comments of nftables) or a lease names an
attachment: network, container ID, interface.  The attachment may be in use while a process, or a namespace
whose name is not the ID, has the interface or an address.  This module is off the hot path.
"""

import errno
import os
import time

from cnihook.fast.address import Address
from cnihook.ipam.leases import FOLDER
from cnihook.links import veth
from cnihook.linux import netns
from cnihook.linux.netns import NetNS
from cnihook.nftables import table
from cnihook.protocol.call import Call, Invocation
from cnihook.runtime import netns_names, records
from cnihook.types.config import NetConf
from cnihook.types.errors import IO_FAILURE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.linux.rtnl import Link

    Identity = tuple[str, str, str]  # network, container ID, ifname

_ENDING = 1.0  # seconds that the kernel may take to destroy a namespace and the links to it


class AttachmentInUseError(CniError):
    """An error: a container still has the attachment."""

    def __init__(self, identity: "Identity", why: str) -> None:
        network, container_id, ifname = identity
        super().__init__(IO_FAILURE, f"{network} {ifname} of container {container_id} is in use: {why}")


def owner_of(identity: "Identity") -> str:
    network, container_id, ifname = identity
    return Call("GC", NetConf({"name": network}), Invocation(container_id, "", ifname)).owner


# What is left


def orphans() -> "list[Identity]":
    """Return the attachments that have left something on the host, but no file in the records' folder.

    Some may be in use: another runtime may keep its records elsewhere.
    """
    owners, leases, marks = _owners(), _leases(), netns_names.marked()
    # Read after them: the record of an attachment is written before anything else of it.
    files = records.identities_on_file()
    owners_on_file = {owner_of(identity) for identity in files}
    containers = {container_id for _network, container_id, _ifname in files}
    orphaned: dict[Identity, None] = {}
    for owner in sorted(owners):
        words = owner.split(" ")
        if owner not in owners_on_file and len(words) == 3 and records.are_names(*words):
            orphaned[words[0], words[1], words[2]] = None
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    for identity, written in leases.items():
        is_lost = identity[1] in marks and identity[1] not in containers
        if identity not in files and (is_lost or written[0] < booted):
            orphaned[identity] = None
    return list(orphaned)


def names() -> "list[str]":
    """Return the containers not on record whose namespace has a name that cnihook made, but no process."""
    marks = netns_names.marked()
    containers = {container_id for _network, container_id, _ifname in records.identities_on_file()}
    lost = [container_id for container_id in marks if container_id not in containers]
    used = {space.identity for space in spaces() if space.pid} if lost else set()
    return [container_id for container_id in lost if netns_names.identity_of(container_id) not in used]


def _owners() -> "dict[str, list[Address]]":
    """Return the owners that the kernel stores, each with its known addresses."""
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
    """Return the owners of host-local's leases, each with the time of the last lease and its addresses."""
    leases: dict[Identity, tuple[float, list[Address]]] = {}
    for network in _listed(FOLDER):
        for name in _listed(f"{FOLDER}/{network}"):
            path = f"{FOLDER}/{network}/{name}"
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
            if records.are_names(*identity):
                written, addresses = leases.get(identity, (0.0, []))
                leases[identity] = max(written, status.st_mtime), [*addresses, address]
    return leases


def _listed(folder: str) -> "list[str]":
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


# Is it in use?


class _Space:
    """A network namespace other than the host's, with a process in it or a name."""

    def __init__(self, path: str, identity: "tuple[int, int]", pid: int, name: str = "") -> None:
        self.path = path
        self.identity = identity
        self.pid = pid  # 0: no process is in it
        self.name = name

    def __str__(self) -> str:
        return f"process {self.pid}" if self.pid else netns.named(self.name)


def spaces() -> "list[_Space]":
    """Return the network namespaces other than the host's that have a process or a name.

    Raises OSError if a process cannot be examined: it may be in any namespace.
    """
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
    """Raise AttachmentInUseError if a container may still have the attachment."""
    container_id = identity[1]
    owner = owner_of(identity)
    addresses = {*_owners().get(owner, ()), *_leases().get(identity, (0.0, []))[1]}
    own = netns_names.identity_of(container_id)
    ends = _host_ends(owner)
    for space in spaces():
        is_own = space.identity == own or space.name == container_id
        if is_own and space.pid:
            raise AttachmentInUseError(identity, f"{space} is in {netns.named(container_id)}")
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
            raise AttachmentInUseError(identity, f"{space} has it")
        if any((end.peer_index, end.index) in peers for end in ends):
            raise AttachmentInUseError(identity, f"{space} has it")
    _wait_for_end(identity, ends)


def is_free(identity: "Identity") -> bool:
    """Return True if the attachment is certainly not in use."""
    container_id = identity[1]
    owner = owner_of(identity)
    is_known = _owners().get(owner) or identity in _leases() or _host_ends(owner)
    if not is_known and not netns_names.is_marked(container_id):
        return False  # nothing shows where it could be in use
    try:
        refuse_if_used(identity)
    except AttachmentInUseError:
        return False
    return True


def _host_ends(owner: str) -> "list[Link]":
    host = NetNS.current()
    try:
        return [link for link in host.rtnl.links() if link.kind == "veth" and link.alias == owner]
    finally:
        host.close()


def _wait_for_end(identity: "Identity", ends: "list[Link]") -> None:
    """Wait until these host ends are gone.  Raises AttachmentInUseError if they stay.

    A veth pair exists as long as both its namespaces.  A namespace that spaces() did not find is about to
    end, or is held by a descriptor.
    """
    deadline = time.monotonic() + _ENDING
    indexes = {end.index for end in ends}
    while indexes:
        indexes &= {end.index for end in _host_ends(owner_of(identity))}
        if indexes and time.monotonic() > deadline:
            raise AttachmentInUseError(
                identity, f"{ends[0].name} leads to a namespace without a process and a name"
            )
        time.sleep(0.01)
