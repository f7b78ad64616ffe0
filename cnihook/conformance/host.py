# SPDX-License-Identifier: Apache-2.0
"""
A throw-away host: network, mount and process namespaces, which end with their first process.

/run, /etc/cni and /var/lib/cni are empty.  What a plugin writes to the rest of /etc and /var/lib goes to an
overlay.  Every process that a plugin leaves behind ends with the host.  The host is made with system calls
alone, which takes 5 ms, so that every check can have a new one.
"""

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cnihook.fast.errors_text import message_with_notes
from cnihook.linux import libc, mounts, netns
from cnihook.linux.netns import NetNS
from cnihook.linux.rtnl import Rtnl

_CLONE_NEWPID = 0x20000000  # <sched.h>
_HIDING = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
# These folders are empty in the host.  They are mounted after the overlays on /etc and /var/lib.
_EMPTY = ("/etc/cni", "/var/lib/cni")
# These sysctls have the values of a newly installed machine, not those of this machine.
_SYSCTLS = {"net/ipv4/ip_forward": "0", "net/ipv6/conf/default/accept_dad": "0"}


def run_in_host(
    function: Callable[[], None], failed: Callable[[str], None], shown: Iterable[str] = ()
) -> None:
    """Call `function` as the first process of a new throw-away host, or `failed` if none can be made.

    `shown`: folders that must be visible, also where the host is empty.  Call this in a process that does
    nothing else, because it moves into the new namespaces as well.
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
            failed(f"cannot furnish a throw-away host: {message_with_notes(error)}")
        else:
            function()
            status = 0
    finally:
        os._exit(status)


def _furnish(shown: Iterable[str]) -> None:
    libc.mount("none", "/", flags=libc.MS_PRIVATE | libc.MS_REC)
    # Open the folders in the new mount namespace, because the kernel cannot bind a mount of another one.
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
    # First the loopback, which sleeps until the kernel's lock of all links is free.  A write to ip_forward
    # is tried again and again until then: 5 ms of processor time with eight hosts at once.
    with _rtnl() as rtnl:
        rtnl.set_link(rtnl.link("lo"), up=True)
    for key, value in _SYSCTLS.items():
        try:
            Path(f"/proc/sys/{key}").write_text(value)
        except FileNotFoundError:
            pass  # a kernel without IPv6


@contextmanager
def _rtnl(path: str = "") -> Iterator[Rtnl]:
    """Yield a netlink socket in a namespace; close both after the block."""
    namespace = NetNS.open(path) if path else NetNS.current()
    try:
        yield namespace.rtnl
    finally:
        namespace.close()


host = _rtnl


class Container:
    """A network namespace that stands for a container, with its attachment's ID and interface name."""

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
        """Return the interface's addresses as CIDR, without link-local ones, which the kernel adds."""
        with self.inside() as rtnl:
            link = rtnl.find_link(ifname)
            listed = rtnl.addresses(link) if link else []
            return [str(one.net) for one in listed if not one.net.address.is_link_local]


def links() -> "set[str]":
    """Return the names of the host's links."""
    with _rtnl() as rtnl:
        return {link.name for link in rtnl.links()}


def files(places: Sequence[str] = ("/run", "/var/lib/cni"), without: Sequence[str] = ()) -> "set[str]":
    """Return every file and folder that was created in this host."""
    skipped = ("/run/.host", "/run/netns", *without)
    paths: set[str] = set()
    for place in places:
        for folder, folders, names in os.walk(place):
            folders[:] = [name for name in folders if f"{folder}/{name}" not in skipped]
            paths.update(f"{folder}/{name}" for name in (*folders, *names))
    return paths
