# SPDX-License-Identifier: Apache-2.0
"""
The leases of host-local: one file for each address, in a folder that other implementations use, too.

    FOLDER/10.1.2.3              the container's ID, CR LF, the interface's name
    FOLDER/last_reserved_ip.0    the address that the first set of ranges leased last
    FOLDER/lock                  flock(2) for every operation
    FOLDER/.owners/DIGEST.0      of cnihook: a link from an owner to a lease

The reference plugin reads every lease at each operation, in order to find those of one owner.  The links are
an index that avoids this.  They do not disturb the reference: when it releases an address, it removes each
file whose content is the owner's, and through a link it reads the lease.

The index is complete if the mtime of both folders is _MARK.  The kernel changes an mtime with each name that
is added or removed, and _MARK is set at the end of an operation.  So after a crash, or after another program
has worked in the folder, the mtime is different, and the index is made again from the leases.

A lease is read as bytes, because a crash can leave any content.  Only a regular file is a lease.  Another
kind of file with the name of an address prevents a lease of this address, and is not opened.
"""

import errno
import fcntl
import os
import stat

from cnihook.fast import descriptor, statefile
from cnihook.fast.address import Address, is_address
from cnihook.fast.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Container
    from types import TracebackType

FOLDER = "/var/lib/cni/networks"  # with a folder for each network, unless `dataDir` names another
LAST_RESERVED = "last_reserved_ip."
# The key of CNI_ARGS with a container's sticky name, and the owner of what is kept for one: see sticky.py
STICKY = "CNIHOOK_STICKY"
STICKY_OWNER = "sticky:"  # and the name; the ID of a container has no colon
OWNERS = ".owners"
_MARK = (
    981173106  # seconds, 2001-02-03 04:05:06 UTC: a whole second in the past, which every filesystem keeps
)


class Store:
    """The leases of one network, locked during a `with` block.  An owner is optional."""

    def __init__(self, folder: str, container_id: str = "", ifname: str = "") -> None:
        self.folder = folder
        container_id = container_id.strip()
        # Leases from before 2018 have the ID only.  They count if the owner has no other lease.
        self._owner = owner(container_id, ifname)
        self._old_owner = container_id.encode()
        self._owners = f"{folder}/{OWNERS}"
        self._lock = -1
        self._is_indexed = False
        self._is_changed = False
        self._unreadable: dict[str, OSError] = {}  # leases that cannot be read and have no link

    def __enter__(self) -> "Store":
        path = f"{self.folder}/lock"
        # O_NONBLOCK: a FIFO is opened without waiting, and can be locked as well.
        flags = os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self._lock = os.open(path, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(self.folder, mode=0o755, exist_ok=True)
            self._lock = os.open(path, flags, 0o600)
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            except OSError as error:  # it has no file name, because flock() takes a descriptor
                raise OSError(error.errno, error.strerror, f"lock {self.folder}/lock") from None
            self._is_indexed = self._has_marks()
        except BaseException:
            descriptor.close(self._lock)
            raise
        return self

    def __exit__(
        self,
        _kind: "type[BaseException] | None",
        _error: "BaseException | None",
        _trace: "TracebackType | None",
    ) -> None:
        try:
            if self._is_indexed and self._is_changed:
                self._set_marks()
        finally:
            descriptor.close(self._lock)

    # One owner's leases

    def owned(self) -> "list[Address]":
        """Return the addresses that the owner has leased.  Raises OSError if a lease cannot be read."""
        return self.leased_to(self._owner) or self.leased_to(self._old_owner)

    def leased_to(self, owner: bytes) -> "list[Address]":
        """Return the addresses that an owner has leased.  Raises OSError if a lease cannot be read."""
        if not self._is_indexed:
            self.index()
        return [Address.parse(name) for name in self._targets(owner) if self._read(name) == owner]

    def reserve(self, address: Address, set_index: int) -> bool:
        """Lease the address.  Returns False if it is taken."""
        name = str(address)
        path = f"{self.folder}/{name}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, 0o600)
        except FileExistsError:
            # An empty file remains from a lease after a crash: no other process writes one under the lock.
            status = os.lstat(path)
            if status.st_size or not stat.S_ISREG(status.st_mode):
                return False
            os.unlink(path)
            fd = os.open(path, flags, 0o600)
        self._is_changed = True
        with Undo() as undo:
            undo.push(self.drop, {name})
            undo.push(unlink, path)
            try:
                self._link(name, self._owner)
                _write(fd, self._owner)
            except OSError as error:  # the disk is full: an empty lease would have no owner
                raise OSError(error.errno, error.strerror, path) from None
            finally:
                os.close(fd)
            self._set_last_reserved(set_index, address)
        return True

    def give(self, address: Address, source: bytes, target: bytes) -> None:
        """Make `target` the owner of a lease of `source`.  A crash leaves the lease with one of the two."""
        name = str(address)
        temporary = f"{self._owners}/{name}"  # index() removes it there after a crash
        self._is_changed = True
        with Undo() as undo:
            undo.push(self.drop, {name}, target)
            self._link(name, target)
            fd = statefile.create(temporary)
            try:
                _write(fd, target)
                os.fsync(fd)
            except OSError as error:
                unlink(temporary)
                raise OSError(error.errno, error.strerror, f"{self.folder}/{name}") from None
            finally:
                os.close(fd)
            os.rename(temporary, f"{self.folder}/{name}")
        self.drop({name}, source)

    def release(self, names: "Container[str] | None" = None, *, searches: bool = True) -> None:
        """Release the owner's leases, or those of the addresses in `names`.

        `searches`: an owner without a link may have leases, so all leases are read to find them.
        If a link leads to a lease of another owner, only the link is removed.  If a lease cannot be read, it
        keeps its link, the others are released, and the first error is raised.
        """
        if not self._is_indexed or (searches and not self._targets(self._owner)):
            # This is rare, so the whole folder can be searched for a lease that has no link.
            self.index()
        errors = list(self._unreadable.values())
        for owner in (self._owner, self._old_owner):
            if self._targets(owner):
                errors += self.drop(names, owner)
                break
        remove_if_empty(self._owners)
        if errors:
            raise errors[0]

    def drop(self, names: "Container[str] | None", owner: bytes = b"") -> "list[OSError]":
        """Remove leases, each before its link, so that a lease has its link as long as it exists.

        `owner`: that of the leases, if it is not the owner of this store.  Returns the errors.
        """
        self._is_changed = True
        owner = owner or self._owner
        targets = self._targets(owner)
        errors = []
        for number in reversed(range(len(targets))):
            name = targets[number]
            if names is not None and name not in names:
                continue
            try:
                content = self._read(name)
                if content is not None and _may_be_of(owner, content):
                    unlink(f"{self.folder}/{name}")
            except OSError as error:
                errors.append(error)
                continue
            last = len(targets) - 1
            if number < last:  # numbers have no gaps
                os.rename(self._path_of_link(owner, last), self._path_of_link(owner, number))
            else:
                os.unlink(self._path_of_link(owner, number))
            targets[number] = targets[last]
            del targets[last]
        return errors

    def owner_of(self, address: Address) -> str:
        """Return the ID of the container that has a lease; empty if the file does not contain it."""
        try:
            content = self._read(str(address))
        except OSError:
            return ""  # the caller reports an error already, and this one would not explain it
        return content.partition(b"\r\n")[0].decode() if content and is_owner(content) else ""

    # All owners' leases

    def release_others(self, keep: "Collection[bytes]") -> None:
        """Release every lease whose owner is not in `keep`.

        If a lease cannot be read, the others are released before the error is raised.
        """
        from cnihook.ipam import lease_index

        leases = self.index()
        digests = {digest(owner) for owner in keep}
        links = lease_index.links(self.folder)
        linked = {target for entry, target in links.items() if lease_index.digest_of(entry) in digests}
        for name, content in leases.items():
            # The content of a damaged lease does not name its owner, but its link does.
            if content not in keep and (is_owner(content) or name not in linked):
                unlink(f"{self.folder}/{name}")
        self.index()
        for error in self._unreadable.values():
            raise error

    def index(self) -> "dict[str, bytes]":
        """Read all leases and correct the links.  Return the content of each lease."""
        from cnihook.ipam import lease_index  # not for most calls, because they find it complete

        leases, self._unreadable = lease_index.rebuild(self.folder, self._owner, self._old_owner)
        self._is_indexed = not self._unreadable
        self._is_changed = True
        return leases

    def names(self) -> "set[str]":
        """Return the names in the folder; those of the leases are addresses."""
        return set(os.listdir(self.folder))

    # The address that was leased last

    def last_reserved(self, set_index: int) -> "Address | None":
        """Return the address after which the search continues; if it is None, it begins at the first."""
        try:
            content = self._read(f"{LAST_RESERVED}{set_index}")
            return Address.parse(content.decode()) if content else None
        except (OSError, ValueError):
            return None

    def _set_last_reserved(self, set_index: int, address: Address) -> None:
        path = f"{self.folder}/{LAST_RESERVED}{set_index}"
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                return  # this is only a hint, and the lease must not fail because of it
        except FileNotFoundError:
            pass
        try:
            fd = statefile.create(path)
            try:
                _write(fd, str(address).encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None

    # The index

    def _path_of_link(self, owner: bytes, number: int) -> str:
        return f"{self._owners}/{digest(owner)}.{number}"

    def _targets(self, owner: bytes) -> "list[str]":
        """Return the names of the leases that the owner's links lead to."""
        targets: list[str] = []
        if not owner:
            return targets
        prefix = f"{self._owners}/{digest(owner)}"
        try:
            while True:
                link = os.readlink(f"{prefix}.{len(targets)}")
                targets.append(os.path.basename(link))
        except FileNotFoundError:
            return targets

    def _link(self, name: str, owner: bytes) -> None:
        path = self._path_of_link(owner, len(self._targets(owner)))
        try:
            os.symlink(f"../{name}", path)
        except FileNotFoundError:
            os.mkdir(self._owners, 0o755)
            os.symlink(f"../{name}", path)

    def _has_marks(self) -> bool:
        try:
            return _has_mark(self.folder) and _has_mark(self._owners)
        except FileNotFoundError:
            return True  # the folder's mark shows that the index is complete, without links

    def _set_marks(self) -> None:
        for path in (self.folder, self._owners):
            try:
                os.utime(path, (_MARK, _MARK))
            except OSError:
                pass  # without a mark the index is not trusted

    def _read(self, name: str) -> "bytes | None":
        return read(f"{self.folder}/{name}")


def folder_of(network: str, data_dir: str) -> str:
    return os.path.join(data_dir or FOLDER, network)


def owner(container_id: str, ifname: str) -> bytes:
    return f"{container_id}\r\n{ifname}".encode()


def exists(folder: str) -> bool:
    """Return True if the folder exists.  Raises OSError if that cannot be determined."""
    try:
        os.stat(folder)
    except FileNotFoundError:
        return False
    return True


def addresses(folder: str) -> "list[Address]":
    """Return the addresses that have a file.  It takes no lock, which would create the lock file."""
    try:
        return [Address.parse(name) for name in os.listdir(folder) if is_address(name)]
    except FileNotFoundError:
        return []


def read(path: str) -> "bytes | None":
    """Return the content of a lease without surrounding space; None if it is missing or not a regular file.

    Raises OSError, with the path, if it cannot be read.
    """
    content = statefile.read(path)
    return None if content is None else content.strip()


def is_owner(content: bytes) -> bool:
    """Return True if the content can be an owner's text, and is not what a crash has left."""
    try:
        return content.decode().replace("\r\n", "", 1).isprintable()
    except UnicodeDecodeError:
        return False


def _may_be_of(owner: bytes, content: bytes) -> bool:
    """Return True if a lease with a link of the owner does not contain the text of another owner.

    A crash can leave the beginning of the text, or any bytes.
    """
    return owner.startswith(content) or not is_owner(content)


def digest(owner: bytes) -> str:
    from _blake2 import blake2s

    return blake2s(owner, digest_size=16).hexdigest()


def remove_if_empty(owners: str) -> None:
    """Remove the folder of the links if it has none."""
    try:
        os.rmdir(owners)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
            raise


def _has_mark(path: str) -> bool:
    return os.lstat(path).st_mtime_ns == _MARK * 1_000_000_000


def unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _write(fd: int, content: bytes) -> None:
    if os.write(fd, content) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
