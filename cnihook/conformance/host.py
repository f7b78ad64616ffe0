# SPDX-License-Identifier: Apache-2.0
"""
A throw-away host: namespaces in which a plugin may do what it does, and which end with their first process.

Network, mount and process namespaces of their own.  /run, /etc/cni and /var/lib/cni are empty, what is
written to the rest of /etc and /var/lib stays in here, and every process that a plugin leaves ends with it.
All in system calls: 5 ms, so that every check can have a new one.
"""

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cnihook.lean.words import describe
from cnihook.linux import libc, mounts, netns
from cnihook.linux.netns import NetNS
from cnihook.linux.rtnl import Rtnl

_CLONE_NEWPID = 0x20000000  # <sched.h>
_HIDING = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
# What is empty in here, once /etc and /var/lib are overlaid.
_EMPTY = ("/etc/cni", "/var/lib/cni")
# What a plugin finds as on a machine that was just installed, not as it is here.
_SYSCTLS = {"net/ipv4/ip_forward": "0", "net/ipv6/conf/default/accept_dad": "0"}


def run_in_host(
    function: Callable[[], None], failed: Callable[[str], None], shown: Iterable[str] = ()
) -> None:
    """Call `function` as the first process of a new throw-away host, or `failed` where none can be made.

    `shown` are folders that must be there although they may stand where the host is empty.  For a process
    that does nothing else: it moves into the new namespaces as well.
    """
    try:
        libc.unshare(_CLONE_NEWPID | libc.CLONE_NEWNS | libc.CLONE_NEWNET)
    except OSError as error:
        failed(f"cannot make namespaces: {error.strerror}")
        return
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        return
    status = 1
    try:
        libc.set_parent_death_signal(signal.SIGKILL)
        try:
            _furnish(shown)
        except OSError as error:
            failed(f"cannot furnish a throw-away host: {describe(error)}")
        else:
            function()
            status = 0
    finally:
        os._exit(status)


def _furnish(shown: Iterable[str]) -> None:
    libc.mount("none", "/", flags=libc.MS_PRIVATE | libc.MS_REC)
    # Opened here: a mount of another mount namespace cannot be bound.
    kept = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in shown if os.path.isdir(path)}
    libc.mount("proc", "/proc", "proc", _HIDING)
    libc.mount("tmpfs", "/run", "tmpfs", libc.MS_NOSUID | libc.MS_NODEV, "mode=755")
    for number, place in enumerate(("/etc", "/var/lib")):
        upper, work = f"/run/.host/{number}", f"/run/.host/{number}.work"
        os.makedirs(upper)
        os.makedirs(work)
        libc.mount("overlay", place, "overlay", 0, f"lowerdir={place},upperdir={upper},workdir={work}")
    for place in _EMPTY:
        os.makedirs(place, exist_ok=True)
        libc.mount("tmpfs", place, "tmpfs", libc.MS_NOSUID | libc.MS_NODEV, "mode=755")
    os.makedirs("/run/netns")
    for path, fd in kept.items():
        if not os.path.isdir(path):
            os.makedirs(path)
            libc.mount(f"/proc/self/fd/{fd}", path, flags=libc.MS_BIND | libc.MS_REC)
        os.close(fd)
    mounts.renew_sys()
    for key, value in _SYSCTLS.items():
        try:
            Path(f"/proc/sys/{key}").write_text(value)
        except FileNotFoundError:
            pass  # a kernel without IPv6
    with _rtnl() as rtnl:
        rtnl.set_link(rtnl.link("lo"), up=True)


@contextmanager
def _rtnl(path: str = "") -> Iterator[Rtnl]:
    """A netlink socket in a namespace, and nothing of it left after the block."""
    namespace = NetNS.open(path) if path else NetNS.current()
    try:
        yield namespace.rtnl
    finally:
        namespace.close()


host = _rtnl


class Container:
    """A network namespace that plays a container, and what has been attached to it."""

    def __init__(self, number: int, container_id: str, ifname: str) -> None:
        self.number = number
        self.id = container_id
        self.ifname = ifname
        self.name = f"ns{number}"
        self.path = netns.named(self.name)
        namespace = NetNS.create()
        self._identity = namespace.identity
        netns.bind(namespace, self.name)
        namespace.close()

    @contextmanager
    def inside(self) -> Iterator[Rtnl]:
        with _rtnl(self.path) as rtnl:
            yield rtnl

    def destroy(self) -> None:
        """Let the namespace end, as it does when a container stops."""
        netns.unbind(self.name, self._identity)

    def links(self) -> "set[str]":
        with self.inside() as rtnl:
            return {link.name for link in rtnl.links()}

    def addresses(self, ifname: str) -> "list[str]":
        """As CIDR, without those that IPv6 makes itself."""
        with self.inside() as rtnl:
            link = rtnl.find_link(ifname)
            found = rtnl.addresses(link) if link else []
            return [str(one.net) for one in found if not one.net.address.is_link_local]


def links() -> "set[str]":
    """Of the host."""
    with _rtnl() as rtnl:
        return {link.name for link in rtnl.links()}


def files(places: Sequence[str] = ("/run", "/var/lib/cni"), without: Sequence[str] = ()) -> "set[str]":
    """Every file and folder that somebody has made in this host."""
    skipped = ("/run/.host", "/run/netns", *without)
    found: set[str] = set()
    for place in places:
        for folder, folders, names in os.walk(place):
            folders[:] = [name for name in folders if f"{folder}/{name}" not in skipped]
            found.update(f"{folder}/{name}" for name in (*folders, *names))
    return found
