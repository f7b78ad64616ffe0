# SPDX-License-Identifier: Apache-2.0
"""
A device of the host that a container has: its state on the host, in a file until it is back there.

Its name on the host is also in its alias, as with the reference plugin: each plugin returns what the other
one has moved.  An alias has no room for more, and the container can change it.  The file is written before
the move.
"""

import errno
import os
import time

from cnihook.fast import fastjson, statefile
from cnihook.fast.errors_text import message_with_notes
from cnihook.linux import sysfs
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.netns import NetNS
from cnihook.linux.rtnl import Link, Rtnl
from cnihook.log import notice
from cnihook.protocol.call import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_FOLDER = "/run/cnihook/host-device"
_HOME_WAIT = 2.0  # seconds that the kernel may take to end a namespace and return its devices

# The attributes of a device that a container may change, with their names in Link and set_link().
_ATTRIBUTES = ("mac", "mtu", "txqlen", "promiscuous", "allmulti")


class MovedDevice:
    """A moved device and its saved state.  `name`: its name on the host; `ifname`: that in the container."""

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
        self.namespace = tuple(namespace)  # the one that the path led to, because paths are used again
        self.name = name
        self.kind = kind
        self.path = path  # of the hardware, in /sys; empty for a software device
        self.alias = alias
        self.master = master
        self.up = up
        self.attributes = attributes or {}

    @classmethod
    def for_call(cls, call: Call, name: str, kind: str, **known: "Any") -> "MovedDevice":
        """Return a device that this call moves; `known`: its state before, as far as it is known."""
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
    def capture(cls, call: Call, device: Link) -> "MovedDevice":
        """Return a device of the host that will be moved next, with its present state."""
        master = call.host.find_link_by_index(device.master) if device.master else None
        return cls.for_call(
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
        with open(statefile.create(self._file), "w") as file:
            file.write(fastjson.dumps({name: getattr(self, name) for name in self.__slots__}, indent=1))

    def forget(self) -> None:
        for remove, path in ((os.unlink, self._file), (os.rmdir, _FOLDER)):
            try:
                remove(path)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                    raise

    # The return to the host

    def restore(self, call: Call) -> None:
        """Move the device back to the host as it was, if it still exists, and remove its file."""
        if not self.move_back(call):
            why = "a software device ends with the namespace that it is in"
            if self.path:
                why = f"if {self.path} exists, look for its interface in the namespace of process 1"
            where = f"{self.name}, which was {self.ifname} of container {self.container_id}"
            notice(f"host-device: {where}, is gone: {why}")
        self.forget()

    def move_back(self, call: Call) -> "Link | None":
        """Move the device back to the host and restore it.  Return it; None if it is gone."""
        home = self._find_home(call.host)
        sandbox = None if home else self._sandbox(call)
        if sandbox:
            try:
                if link := self._find_inside(sandbox.rtnl):
                    home = _move_home(call.request.host, sandbox, link, self.name)
            finally:
                sandbox.close()
        elif self.path:
            # The kernel returns hardware by itself, but some time after the namespace has lost its last
            # user.
            deadline = time.monotonic() + _HOME_WAIT
            while not home and time.monotonic() < deadline:
                time.sleep(0.02)
                home = self._find_home(call.host)
        home = home or self._find_astray(call.host)
        return self._restored(call.host, home) if home else None

    def _sandbox(self, call: Call) -> "NetNS | None":
        """Return the namespace that it was moved to, if that can be reached.  The caller must close it."""
        for path in (call.netns, self.netns):
            namespace = NetNS.find(path)
            if namespace and namespace.identity == self.namespace:
                return namespace
            if namespace:
                namespace.close()
        return None

    def _find_inside(self, sandbox: Rtnl) -> "Link | None":
        """Return the device in the container, which may have changed its name, alias or MAC address."""
        links = [link for link in sandbox.links() if link.kind == self.kind]
        return (
            single(link for link in links if link.alias == self.name)
            or single(link for link in links if link.mac == self.attributes.get("mac"))
            or single(link for link in links if link.name == self.ifname)
        )

    def _find_home(self, host: Rtnl) -> "Link | None":
        """Return the device on the host, under any name: it was never moved, or the kernel returned it."""
        mac = self.attributes.get("mac")
        if not self.path:
            link = host.find_link(self.name)
            return link if link and (link.kind, link.mac) == (self.kind, mac) else None
        # One piece of hardware may have several interfaces, and the others are not this device.
        links = [link for name in sysfs.interfaces_of(self.path) if (link := host.find_link(name))]
        return single(link for link in links if self.name in (link.name, link.alias)) or single(
            link for link in links if link.mac == mac
        )

    def _find_astray(self, host: Rtnl) -> "Link | None":
        """Return the device on the host under the container's name, if the operator has moved it by hand."""
        own = (self.kind, self.attributes.get("mac"), self.name)
        return single(link for link in host.links() if (link.kind, link.mac, link.alias) == own)

    def _restored(self, host: Rtnl, link: Link) -> Link:
        """Restore the attributes of a device that is on the host again.  A failure is reported only."""
        if link.name != self.name:
            if host.find_link(self.name):
                notice(
                    f"host-device: {self.name} is back from container {self.container_id} as {link.name}:"
                    f" another link is named {self.name} now; `ip link set {link.name} name NAME` renames it"
                )
            else:
                host.set_link(link, up=False)  # older kernels do not rename a link that is up
                host.set_link(link, name=self.name)
                link = host.link(self.name)
        changes: list[dict[str, Any]] = [
            {name: value} for name, value in self.attributes.items() if getattr(link, name) != value
        ]
        if link.alias != self.alias:
            changes.append({"alias": self.alias})
        master = host.find_link(self.master) if self.master else None
        if master and link.master != master.index:
            changes.append({"master": master.index})
        if self.up and not link.is_up:
            changes.append({"up": True})  # last, because some drivers change no MAC address while up
        for change in changes:
            try:
                host.set_link(link, **change)
            except (OSError, ValueError) as error:
                notice(
                    f"host-device: restore {', '.join(change)} of {link.name}: {message_with_notes(error)}"
                )
        return link


def _move_home(host: NetNS, sandbox: NetNS, link: Link, wanted: str) -> Link:
    """Move the link to the host under the wanted name; if that is in use, under one such as the kernel's."""
    name, number = wanted, link.index
    while host.rtnl.find_link(name):
        name, number = f"dev{number}", number + 1
    sandbox.rtnl.set_link(link, up=False)  # older kernels do not rename a link that is up
    if link.name != name:
        try:
            # Before the move: otherwise udev on the host would see the container's name, and may act on it.
            sandbox.rtnl.set_link(link, name=name)
        except NetlinkError as error:
            if error.errno != errno.EEXIST:  # the container has a link of this name, so the move renames it
                raise
    sandbox.rtnl.set_link(link, netns=host.fd, name=name)
    return host.rtnl.link(name)


def single(links: "Iterable[Link]") -> "Link | None":
    """Return the link if there is exactly one; of several, it is unknown which one is meant."""
    candidates = list(links)
    return candidates[0] if len(candidates) == 1 else None


def find(call: Call) -> "MovedDevice | None":
    """Return the device that this call's ADD moved, or was about to move; None if there is none."""
    return _load(_file_name(call.network, call.container_id, call.ifname))


def load_all() -> "list[MovedDevice]":
    """Return the devices that containers have now."""
    try:
        names = os.listdir(_FOLDER)
    except FileNotFoundError:
        return []
    return [taken for name in names if (taken := _load(name))]


def _file_name(network: str, container_id: str, ifname: str) -> str:
    return f"{network}+{container_id}+{ifname}"


def _load(name: str) -> "MovedDevice | None":
    content = statefile.read(f"{_FOLDER}/{name}")
    if content is None:
        return None
    try:
        return MovedDevice(**fastjson.loads(content.decode()))
    except (ValueError, TypeError):
        return None  # the writer was killed before it finished, and so before the move
