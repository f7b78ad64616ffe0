# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: hold one by a descriptor, work inside it, give it a name that `ip netns` knows."""

import errno
import fcntl
import os

from cnihook.fast import descriptor
from cnihook.linux import libc
from cnihook.linux.rtnl import Rtnl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

NAMES = "/run/netns"  # where iproute2 looks
_PLACE_HOLDER = 0o444  # mode of the file that a namespace is mounted over

_NS_GET_NSTYPE = 0xB703  # <linux/nsfs.h>


class NotANamespaceError(OSError):
    """The path leads to something that is not a network namespace."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EINVAL, "is not a network namespace", path)

    def __str__(self) -> str:
        return f"{self.filename} is not a network namespace"


class NetNS:
    """A network namespace, kept alive by an open descriptor until close()."""

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path  # as of open(); later, something else may be there
        self._rtnl: Rtnl | None = None

    @classmethod
    def open(cls, path: str) -> "NetNS":
        """Open the namespace at a path.  Raises FileNotFoundError, NotANamespaceError or another OSError."""
        # O_NONBLOCK: the caller chose the path, and opening a FIFO would wait for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if fcntl.ioctl(fd, _NS_GET_NSTYPE) == libc.CLONE_NEWNET:
                return cls(fd, path)
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                descriptor.close(fd)
                raise
        descriptor.close(fd)
        raise NotANamespaceError(path)

    @classmethod
    def find(cls, path: str) -> "NetNS | None":
        """Return None if the path leads to nothing, or not to a namespace.  Raises OSError otherwise."""
        try:
            return cls.open(path)
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError, NotANamespaceError):
            return None

    @classmethod
    def current(cls) -> "NetNS":
        return cls.open("/proc/thread-self/ns/net")

    @classmethod
    def create(cls) -> "NetNS":
        """Create a namespace.  It ends when its descriptor is closed, unless something else holds it."""
        home = cls.current()
        try:
            libc.unshare(libc.CLONE_NEWNET)
            try:
                return cls.current()
            finally:
                _return_to(home.fd)
        finally:
            home.close()

    def close(self) -> None:
        if self._rtnl:
            self._rtnl.close()
            self._rtnl = None
        if self.fd >= 0:
            descriptor.close(self.fd)
            self.fd = -1

    @property
    def identity(self) -> "tuple[int, int]":
        """(device, inode): the same for every path and descriptor of one namespace, until a reboot."""
        try:
            status = os.fstat(self.fd)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.path or "a network namespace") from None
        return status.st_dev, status.st_ino

    @property
    def rtnl(self) -> Rtnl:
        """A netlink socket inside the namespace, opened at first use, usable from any namespace."""
        if not self._rtnl:
            with self.entered():
                self._rtnl = Rtnl()
        return self._rtnl

    def entered(self) -> "_Entered":
        """Return a context manager that runs its block inside the namespace.

        It is for what has no descriptor of its own, such as sysctls.  The whole process moves.  So there
        must be one thread only, and the block must not return control to the caller.
        """
        return _Entered(self)


class _Entered:
    def __init__(self, inside: NetNS) -> None:
        self._inside = inside
        self._home = -1

    def __enter__(self) -> None:
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc.setns(self._inside.fd, libc.CLONE_NEWNET)
        except OSError as error:
            descriptor.close(self._home)
            why = f"enter the container's network namespace: {error.strerror}"
            raise OSError(error.errno, why) from None

    def __exit__(
        self,
        _kind: "type[BaseException] | None",
        _error: "BaseException | None",
        _trace: "TracebackType | None",
    ) -> None:
        _return_to(self._home)
        descriptor.close(self._home)


def processes(identity: "tuple[int, int]") -> "list[int]":
    """Return the PIDs in the namespace with this identity, of those that this process may look at."""
    pids = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                status = os.stat(f"/proc/{name}/ns/net")
            except OSError:
                continue
            if (status.st_dev, status.st_ino) == identity:
                pids.append(int(name))
    return pids


def inode_of_host() -> int:
    """Return the inode of the namespace that this process is in."""
    return os.stat("/proc/thread-self/ns/net").st_ino


def in_use(namespaces: "dict[tuple[int, int], str]") -> "set[tuple[int, int]]":
    """Return which namespaces a process is in, or that are mounted elsewhere than at their path.

    `namespaces`: the path by identity.  A descriptor that another process holds is not found.
    """
    if not namespaces:
        return set()
    used = set()
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                status = os.stat(f"/proc/{name}/ns/net")
            except OSError:
                continue
            used.add((status.st_dev, status.st_ino))
    inodes = {f"net:[{inode}]": (device, inode) for device, inode in namespaces}
    with open("/proc/self/mountinfo") as file:
        for line in file:
            root, path = line.split(" ", 5)[3:5]
            identity = inodes.get(root)
            if identity and path != namespaces[identity]:
                used.add(identity)
    return used & namespaces.keys()


status_if_lost = 1  # exit status of a process that cannot return to its network namespace


def _return_to(home: int) -> None:
    try:
        libc.setns(home, libc.CLONE_NEWNET)
    except OSError as error:
        # To continue would configure a container as if it were the host.
        os.write(2, f"cnihook: cannot return to the host's network namespace: {error.strerror}\n".encode())
        os._exit(status_if_lost)


def named(name: str) -> str:
    return f"{NAMES}/{name}"


def bind(namespace: NetNS, name: str, *, again: bool = True) -> str:
    """Give the namespace a name, which also keeps it alive without a process.  Returns the path.

    Raises FileExistsError if the name is in use: by another namespace, or by any file but one that a bind()
    left behind.  With `again`, this namespace may have the name already.
    """
    path = named(name)
    os.makedirs(NAMES, mode=0o755, exist_ok=True)
    _share_names()
    try:
        descriptor.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PLACE_HOLDER))
    except FileExistsError:
        holder = _holder(path)
        if again and holder == namespace.identity:
            return path
        if holder or not _is_place_holder(path):
            raise FileExistsError(errno.EEXIST, "another program made it", path) from None
    try:
        libc.mount(f"/proc/self/fd/{namespace.fd}", path, flags=libc.MS_BIND)
    except OSError:
        os.unlink(path)
        raise
    return path


def _holder(path: str) -> "tuple[int, int] | None":
    """Return the identity of the namespace that is mounted at a name, None if there is none."""
    if not _is_regular(path):
        return None  # a link to a namespace is not a name that bind() gave
    try:
        holder = NetNS.open(path)
    except (FileNotFoundError, NotANamespaceError):
        return None
    identity = holder.identity
    holder.close()  # else the namespace would live until this process ends
    return identity


def _is_regular(path: str) -> bool:
    try:
        return os.lstat(path).st_mode & 0o170000 == 0o100000  # S_IFREG; also that of a namespace
    except FileNotFoundError:
        return False


def _is_place_holder(path: str) -> bool:
    """Return True for the empty file that is below a name of bind(), without the mount.

    A crash leaves such a file, and so does a mount that another mount namespace does not see.  `ip netns`
    makes them with mode 0, so a name that it gave elsewhere does not count.
    """
    status = os.lstat(path)
    mode = status.st_mode & 0o7777
    is_of_mode = mode & _PLACE_HOLDER == mode and mode & 0o400  # the umask may have cleared a part of it
    return bool(_is_regular(path) and is_of_mode and status.st_size == 0 and status.st_uid == os.geteuid())


def _share_names() -> None:
    """Share names, and their end, with all mount namespaces that have /run/netns, as `ip netns add` does.

    Otherwise an older one sees an empty file at a name, and a newer one keeps a dead namespace alive.
    """
    try:
        libc.mount("none", NAMES, flags=libc.MS_SHARED | libc.MS_REC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        libc.mount(NAMES, NAMES, flags=libc.MS_BIND | libc.MS_REC)  # only a mount can be shared
        libc.mount("none", NAMES, flags=libc.MS_SHARED | libc.MS_REC)


def unbind(name: str, identity: "tuple[int, int]") -> None:
    """Remove the name, if it is (or no longer is) that of the namespace with this identity.

    A file that bind() did not make stays.
    """
    path = named(name)
    if not _is_regular(path):
        return
    holder = _holder(path)
    if holder:
        if holder != identity:
            return
        libc.umount(path, libc.MNT_DETACH)
    if _is_place_holder(path):
        os.unlink(path)
