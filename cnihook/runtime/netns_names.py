# SPDX-License-Identifier: Apache-2.0
"""
The names in /run/netns that cnihook gives to attached namespaces, each with a mark.

    /run/netns/ID           the namespace, for `ip netns` and for DEL
    /run/cnihook/ID.ns      "DEVICE INODE" of that namespace

The mark is made before the name and removed after it.  So a name whose record is lost can be found by its
mark.  A name from the operator's `ip netns add` has no mark.
"""

import errno
import os

from cnihook.fast import statefile
from cnihook.linux import netns
from cnihook.linux.netns import NetNS

FOLDER = "/run/cnihook"
_ENDING = ".ns"


def bind(namespace: NetNS, container_id: str) -> None:
    """Give the namespace the container's ID as its name, with a mark.

    A name that an earlier container of this ID left is replaced, unless a process is in its namespace.
    Raises FileExistsError if another namespace has the name, or if another program made the name.
    """
    identity = namespace.identity
    is_own = False
    if not _mark(container_id, identity, os.O_EXCL):
        earlier = identity_of(container_id)
        is_own = earlier == identity
        if not is_own:
            if netns.processes(earlier):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), netns.named(container_id))
            netns.unbind(container_id, earlier)
            _mark(container_id, identity, os.O_TRUNC)
    try:
        netns.bind(namespace, container_id, again=is_own)
    except OSError:
        unmark(container_id)
        raise


def _mark(container_id: str, identity: "tuple[int, int]", flags: int) -> bool:
    """Write the mark.  Returns False if there is one already and `flags` have O_EXCL."""
    path = _path(container_id)
    try:
        fd = statefile.create(path, flags)
    except FileNotFoundError:
        os.makedirs(FOLDER, mode=0o700, exist_ok=True)
        fd = statefile.create(path, flags)
    except FileExistsError:
        return False
    try:
        os.write(fd, b"%d %d\n" % identity)
    finally:
        os.close(fd)
    return True


def unbind(container_id: str, identity: "tuple[int, int]") -> None:
    """Remove the name if the namespace has this identity, then the mark."""
    netns.unbind(container_id, identity)
    unmark(container_id)


def unbind_own(path: str, container_id: str, identity: "tuple[int, int]") -> None:
    """Call unbind(), unless another program gave the name.  `path`: the namespace's, on record."""
    if path == netns.named(container_id) or is_marked(container_id):
        unbind(container_id, identity)


def unmark(container_id: str) -> None:
    """Remove the mark.  Call it if there is no name, or if the operator keeps the name."""
    try:
        os.unlink(_path(container_id))
    except FileNotFoundError:
        pass


def is_marked(container_id: str) -> bool:
    return os.path.lexists(_path(container_id))


def marked() -> "list[str]":
    """Return the IDs of containers whose namespace has, or had, a name that cnihook made."""
    try:
        names = os.listdir(FOLDER)
    except FileNotFoundError:
        return []
    return sorted(name.removesuffix(_ENDING) for name in names if name.endswith(_ENDING))


def identity_of(container_id: str) -> "tuple[int, int]":
    """Return the identity in the mark, or (0, 0) if the mark's writer was killed or there is none."""
    try:
        device, inode = (statefile.read(_path(container_id)) or b"").split()
        return int(device), int(inode)
    except ValueError:
        return 0, 0


def _path(container_id: str) -> str:
    return f"{FOLDER}/{container_id}{_ENDING}"
