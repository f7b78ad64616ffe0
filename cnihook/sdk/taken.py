# SPDX-License-Identifier: Apache-2.0
"""
A device of the host's that a container has: how it was at home, on file until it is there again.

Its name there is in its alias, too, as with the reference plugin: each gives back what the other has taken.
An alias has room for nothing else, and is the container's to change; the file is from before the move.
"""

import errno
import os
import time

from cnihook.lean import fastjson, statefile
from cnihook.lean.words import describe
from cnihook.linux import sysfs
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.netns import NetNS
from cnihook.linux.rtnl import Link, Rtnl
from cnihook.log import notice
from cnihook.sdk.call import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_FOLDER = "/run/cnihook/host-device"
_HOME_WAIT = 2.0  # seconds that the kernel may take to end a namespace and send home what was in it

# What a container may change of a device, by the names that Link and set_link() have for it.
_ATTRIBUTES = ("mac", "mtu", "txqlen", "promiscuous", "allmulti")


class Taken:
    """`name` is the device's on the host, `ifname` the one in the container."""

    __slots__ = (
        "alias", "attributes", "container_id", "ifname", "kind", "master", "name", "namespace", "netns",
        "network", "path", "up",
    )  # fmt: skip

    def __init__(
        self,
        network: str,
        container_id: str,
        ifname: str,
        netns: str,
        namespace: "tuple[int, int]",
        name: str,
        kind: str,
        *,
        path: str = "",
        alias: str = "",
        master: str = "",
        up: bool = False,
        attributes: "dict[str, Any] | None" = None,
    ) -> None:
        self.network = network
        self.container_id = container_id
        self.ifname = ifname
        self.netns = netns
        self.namespace = tuple(namespace)  # what that path led to: paths are used again
        self.name = name
        self.kind = kind
        self.path = path  # of the hardware, in /sys; empty for what is only software
        self.alias = alias
        self.master = master
        self.up = up
        self.attributes = attributes or {}

    @classmethod
    def by(cls, call: Call, name: str, kind: str, **known: "Any") -> "Taken":
        """Taken for this call; `known` is how the device was, as far as that is known."""
        return cls(
            call.network,
            call.container_id,
            call.ifname,
            call.netns,
            call.sandbox_ns.identity,
            name,
            kind,
            **known,
        )

    @classmethod
    def as_it_is(cls, call: Call, device: Link) -> "Taken":
        """A device of the host's that is about to be moved."""
        master = call.host.find_link_by_index(device.master) if device.master else None
        return cls.by(
            call,
            device.name,
            device.kind,
            path=sysfs.device_of(device.name),
            alias=device.alias,
            master=master.name if master else "",
            up=device.is_up,
            attributes={name: getattr(device, name) for name in _ATTRIBUTES},
        )

    # The file

    @property
    def _file(self) -> str:
        return f"{_FOLDER}/{_file_name(self.network, self.container_id, self.ifname)}"

    def store(self) -> None:
        os.makedirs(_FOLDER, mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(self._file, flags, 0o600), "w") as file:
            file.write(fastjson.dumps({name: getattr(self, name) for name in self.__slots__}, indent=1))

    def forget(self) -> None:
        for remove, path in ((os.unlink, self._file), (os.rmdir, _FOLDER)):
            try:
                remove(path)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                    raise

    # The way home

    def bring_home(self, call: Call) -> None:
        """The device on the host as it was, if it still exists; and its file is gone."""
        if not self.give_back(call):
            why = "what is only software ends with the namespace that it is in"
            if self.path:
                why = f"if there is {self.path}, look for its interface in the namespace of process 1"
            where = f"{self.name}, which was {self.ifname} of container {self.container_id}"
            notice(f"host-device: {where}, is gone: {why}")
        self.forget()

    def give_back(self, call: Call) -> "Link | None":
        """The device, on the host again and as it was; None if it is gone."""
        home = self._find_home(call.host)
        sandbox = None if home else self._sandbox(call)
        if sandbox:
            try:
                if link := self._find_inside(sandbox.rtnl):
                    home = _move_home(call.request.host, sandbox, link, self.name)
            finally:
                sandbox.close()
        elif self.path:
            # The kernel sends hardware home, but some time after the namespace has lost its last user.
            deadline = time.monotonic() + _HOME_WAIT
            while not home and time.monotonic() < deadline:
                time.sleep(0.02)
                home = self._find_home(call.host)
        home = home or self._find_astray(call.host)
        return self._restored(call.host, home) if home else None

    def _sandbox(self, call: Call) -> "NetNS | None":
        """The namespace that it was moved to, if that can be reached; for the caller to close."""
        for path in (call.netns, self.netns):
            namespace = NetNS.find(path)
            if namespace and namespace.identity == self.namespace:
                return namespace
            if namespace:
                namespace.close()
        return None

    def _find_inside(self, sandbox: Rtnl) -> "Link | None":
        """The device in the container, which may have changed its name, its alias, its MAC address."""
        links = [link for link in sandbox.links() if link.kind == self.kind]
        return (
            only(link for link in links if link.alias == self.name)
            or only(link for link in links if link.mac == self.attributes.get("mac"))
            or only(link for link in links if link.name == self.ifname)
        )

    def _find_home(self, host: Rtnl) -> "Link | None":
        """The device on the host: it was never moved, or came home by itself, under whatever name."""
        mac = self.attributes.get("mac")
        if not self.path:
            link = host.find_link(self.name)
            return link if link and (link.kind, link.mac) == (self.kind, mac) else None
        # One piece of hardware may have several interfaces, and the others are not ours.
        links = [link for name in sysfs.interfaces_of(self.path) if (link := host.find_link(name))]
        return only(link for link in links if self.name in (link.name, link.alias)) or only(
            link for link in links if link.mac == mac
        )

    def _find_astray(self, host: Rtnl) -> "Link | None":
        """The device on the host under the container's name: somebody has moved it by hand."""
        own = (self.kind, self.attributes.get("mac"), self.name)
        return only(link for link in host.links() if (link.kind, link.mac, link.alias) == own)

    def _restored(self, host: Rtnl, link: Link) -> Link:
        """With all that it had.  What fails of that is told; the device is home, so nothing has failed."""
        if link.name != self.name:
            if host.find_link(self.name):
                notice(
                    f"host-device: {self.name} is home from container {self.container_id} as {link.name}:"
                    f" there is another {self.name} by now; `ip link set {link.name} name NAME` renames it"
                )
            else:
                host.set_link(link, up=False)  # older kernels rename none that is up
                host.set_link(link, name=self.name)
                link = host.link(self.name)
        wanted: list[dict[str, Any]] = [
            {name: value} for name, value in self.attributes.items() if getattr(link, name) != value
        ]
        if link.alias != self.alias:
            wanted.append({"alias": self.alias})
        master = host.find_link(self.master) if self.master else None
        if master and link.master != master.index:
            wanted.append({"master": master.index})
        if self.up and not link.is_up:
            wanted.append({"up": True})  # last: up, some drivers change no MAC address
        for change in wanted:
            try:
                host.set_link(link, **change)
            except (OSError, ValueError) as error:
                notice(f"host-device: restore {', '.join(change)} of {link.name}: {describe(error)}")
        return link


def _move_home(host: NetNS, sandbox: NetNS, link: Link, wanted: str) -> Link:
    """Under the wanted name; or, if the host has one of that name meanwhile, as the kernel would name it."""
    name, number = wanted, link.index
    while host.rtnl.find_link(name):
        name, number = f"dev{number}", number + 1
    sandbox.rtnl.set_link(link, up=False)  # older kernels rename none that is up
    if link.name != name:
        try:
            # Before the move, or udev on the host would see the container's name first and may act on it.
            sandbox.rtnl.set_link(link, name=name)
        except NetlinkError as error:
            if error.errno != errno.EEXIST:  # the container has one of this name, so it changes on the way
                raise
    sandbox.rtnl.set_link(link, netns=host.fd, name=name)
    return host.rtnl.link(name)


def only(links: "Iterable[Link]") -> "Link | None":
    """The one that there is; of several nobody knows which."""
    found = list(links)
    return found[0] if len(found) == 1 else None


def find(call: Call) -> "Taken | None":
    """What this call's ADD took, or was about to take."""
    return _load(_file_name(call.network, call.container_id, call.ifname))


def everything() -> "list[Taken]":
    """What all containers have at the moment."""
    try:
        names = os.listdir(_FOLDER)
    except FileNotFoundError:
        return []
    return [taken for name in names if (taken := _load(name))]


def _file_name(network: str, container_id: str, ifname: str) -> str:
    return f"{network}+{container_id}+{ifname}"


def _load(name: str) -> "Taken | None":
    content = statefile.read(f"{_FOLDER}/{name}")
    if content is None:
        return None
    try:
        return Taken(**fastjson.loads(content.decode()))
    except (ValueError, TypeError):
        return None  # its writer was killed before it was whole, and so before the move
