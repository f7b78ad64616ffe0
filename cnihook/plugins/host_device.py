# SPDX-License-Identifier: Apache-2.0
"""
host-device: an interface of the host's, moved into the container, and home again when that is over.

Nothing is made here, so nothing may be lost.  The name on the host is in the alias of the moved device, as
with the reference: each gives back what the other took.  What an alias has no room for is on file in
/run/cnihook/host-device, from before the move until the device is home.

When a namespace ends without a DEL, the kernel sends hardware home by itself, under the name that it had in
the container and into the namespace that the machine was booted with; what is only software ends with it.
"""

import errno
import os
import time

from cnihook.lean import fastjson
from cnihook.lean.words import describe
from cnihook.linux import sysfs
from cnihook.linux.layer3 import Layer3
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.netns import NetNS
from cnihook.linux.rtnl import Link, Rtnl
from cnihook.log import complain
from cnihook.sdk import (
    DNS,
    Call,
    CniError,
    Interface,
    Result,
    Undo,
    inside,
    interface,
    invalid_config,
    ipam,
    try_each,
)
from cnihook.spec.errors import INTERNAL
from cnihook.spec.names import check_ifname

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_FOLDER = "/run/cnihook/host-device"
_DPDK_DRIVERS = ("vfio-pci", "uio_pci_generic", "igb_uio")
_HOME_WAIT = 2.0  # seconds that the kernel may take to end a namespace and send home what was in it

# What a container may change of a device, by the names that Link and set_link() have for it.
_ATTRIBUTES = ("mac", "mtu", "txqlen", "promiscuous", "allmulti")


class Conf:
    """Which device, in one of five ways; in the reference's order, but for the runtime's word."""

    def __init__(self, call: Call) -> None:
        conf = call.conf
        self.device = self.mac = self.pci = self.folder = ""
        if device_id := call.runtime_config.string("deviceID"):
            # It is about this container, where the other keys are about all that are on the network.
            self.what = f"device ID {device_id}"
            self.folder = sysfs.device_on("pci", device_id)
            self.pci = device_id if self.folder else ""
            self.folder = self.folder or sysfs.device_on("auxiliary", device_id)
            if not self.folder:
                raise invalid_config(f"runtime config DeviceID {device_id} not found or unsupported")
        elif device := conf.string("device"):
            self.what = f"device {device}"
            self.device = device
        elif address := conf.string("hwaddr"):
            self.what = f"hwaddr {address}"
            self.mac = _hardware_address(address)
            if not self.mac:
                raise conf.refuse("hwaddr", f"is wrong: {address!r} is no hardware address")
        elif path := conf.string("kernelpath"):
            self.what = f"kernelpath {path}"
            self.folder = os.path.normpath(path)
            if not self.folder.startswith("/sys/devices/"):
                why = f"is wrong: {path!r} must be absolute and begin with /sys/devices/"
                raise conf.refuse("kernelpath", why)
        elif pci := conf.string("pciBusID"):
            self.what = f"pciBusID {pci}"
            self.pci = pci
            self.folder = sysfs.device_on("pci", pci)
            if not self.folder:
                raise conf.refuse("pciBusID", f"is wrong: there is no {pci!r} in /sys/bus/pci/devices")
        else:
            raise invalid_config('specify either "device", "hwaddr", "kernelpath" or "pciBusID"')
        self.is_dpdk = bool(self.pci) and sysfs.driver_of(self.folder) in _DPDK_DRIVERS
        self.ipam = ipam.plugin_type(call)
        if not self.ipam:
            Result().check_fits(call.version)
        self.dns = DNS.given(conf)


def _hardware_address(text: str) -> str:
    """In the form of Link.mac, or empty for what is none: six bytes, eight, or InfiniBand's twenty."""
    try:
        address = bytes.fromhex(text.replace(":", "").replace("-", "").replace(".", ""))
    except ValueError:
        return ""
    return address.hex(":") if len(address) in (6, 8, 20) else ""


# What is known of a device that is not at home


class Taken:
    """A device that a container has or is about to get, and how it was on the host."""

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
        self.namespace = tuple(namespace)  # whose path that was: paths are used again
        self.name = name  # on the host
        self.kind = kind
        self.path = path  # of the hardware, in /sys; empty for what is only software
        self.alias = alias
        self.master = master
        self.up = up
        self.attributes = attributes or {}

    def to_json(self) -> "dict[str, Any]":
        return {name: getattr(self, name) for name in self.__slots__}

    def sandbox(self, call: Call) -> "NetNS | None":
        """The namespace that it was moved to, if that can be reached; for the caller to close."""
        for path in (call.netns, self.netns):
            try:
                found = NetNS.open(path)
            except OSError:
                continue
            if found.identity == self.namespace:
                return found
            found.close()
        return None

    def find_inside(self, sandbox: Rtnl) -> "Link | None":
        """The device in the container, which may have changed its name, its alias, its MAC address."""
        links = [link for link in sandbox.links() if link.kind == self.kind]
        return (
            _only(link for link in links if link.alias == self.name)
            or _only(link for link in links if link.mac == self.attributes.get("mac"))
            or _only(link for link in links if link.name == self.ifname)
        )

    def find_home(self, host: Rtnl) -> "Link | None":
        """The device on the host: it was never moved, or came home by itself, under whatever name."""
        if not self.path:
            link = host.find_link(self.name)
            return link if link and link.kind == self.kind and link.mac == self.attributes["mac"] else None
        links = [link for name in sysfs.interfaces_of(self.path) if (link := host.find_link(name))]
        return _only(link for link in links if self.name in (link.name, link.alias)) or _only(links)


def _only(links: "Iterable[Link]") -> "Link | None":
    """The one that there is; of several nobody knows which."""
    found = list(links)
    return found[0] if len(found) == 1 else None


def _path(network: str, container_id: str, ifname: str) -> str:
    return f"{_FOLDER}/{network}+{container_id}+{ifname}"


def _load(path: str) -> "Taken | None":
    try:
        with open(path) as file:
            return Taken(**fastjson.loads(file.read()))
    except (OSError, ValueError, TypeError):
        # There is none; or whoever wrote it was killed before it was whole, and so before the move.
        return None


def _store(taken: Taken) -> None:
    os.makedirs(_FOLDER, mode=0o700, exist_ok=True)
    path = _path(taken.network, taken.container_id, taken.ifname)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "w") as file:
        file.write(fastjson.dumps(taken.to_json(), indent=1))


def _forget(taken: Taken) -> None:
    path = _path(taken.network, taken.container_id, taken.ifname)
    for remove, what in ((os.unlink, path), (os.rmdir, _FOLDER)):
        try:
            remove(what)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise


def _all_taken() -> "list[Taken]":
    try:
        names = os.listdir(_FOLDER)
    except OSError:
        return []
    return [taken for name in names if (taken := _load(f"{_FOLDER}/{name}"))]


# ADD


def add(call: Call) -> Result:
    conf = Conf(call)
    if conf.is_dpdk:
        return _add_dpdk(call, conf)
    inside.refuse_taken(call)
    if earlier := _load(_path(call.network, call.container_id, call.ifname)):
        _bring_home(call, earlier)  # a container of this ID that ended without a DEL
    device = _find_device(call.host, conf)
    taken = _as_it_is(call, device)
    layer3 = Layer3(call.host, device)
    with Undo() as undo:
        # Before ipam.add(), which may fail with some addresses taken; and last when undoing, as in DEL.
        undo.push(ipam.delete, call)
        undo.push(_take_back, call, taken, layer3)
        _store(taken)
        _move_in(call, device)
        link = call.sandbox.link(call.ifname)
        result = ipam.add(call) if conf.ipam else Result()
        _complete(result, conf, Interface(link.name, link.mac, sandbox=call.netns))
        if conf.ipam:
            interface.configure(call, link, result)
        return result


def _add_dpdk(call: Call, conf: Conf) -> Result:
    """A program drives the device, and the kernel has no interface to move: the result is all there is."""
    netns = call.sandbox_ns.path
    result = ipam.add(call) if conf.ipam else Result()
    _complete(result, conf, Interface(call.ifname, sandbox=netns, pci_id=conf.pci))
    return result


def _complete(result: Result, conf: Conf, own: Interface) -> None:
    result.interfaces = [own]
    for ip in result.ips:
        ip.interface = 0
    if conf.dns is not None:
        result.dns = conf.dns


def _find_device(host: Rtnl, conf: Conf) -> Link:
    if conf.device:
        link = host.find_link(conf.device)
    elif conf.mac:
        link = next((link for link in host.links() if link.mac == conf.mac), None)
    else:
        link = next(filter(None, map(host.find_link, sysfs.interfaces_of(conf.folder))), None)
    if link:
        return link
    hint = ""
    for taken in _all_taken():
        if (
            taken.name == conf.device
            or (conf.mac and taken.attributes.get("mac") == conf.mac)
            or (conf.folder and taken.path.startswith(os.path.realpath(conf.folder)))
        ):
            hint = f"container {taken.container_id} has {taken.name} as {taken.ifname}"
    raise CniError(INTERNAL, f"failed to find host device: {conf.what} is no interface of the host", hint)


def _as_it_is(call: Call, device: Link) -> Taken:
    master = call.host.find_link_by_index(device.master) if device.master else None
    return Taken(
        call.network,
        call.container_id,
        call.ifname,
        call.netns,
        call.sandbox_ns.identity,
        device.name,
        device.kind,
        path=sysfs.device_of(device.name),
        alias=device.alias,
        master=master.name if master else "",
        up=device.is_up,
        attributes={name: getattr(device, name) for name in _ATTRIBUTES},
    )


def _move_in(call: Call, device: Link) -> None:
    try:
        # In one request, so that nobody sees it half-way.
        call.host.set_link(device, netns=call.sandbox_ns.fd, name=call.ifname, alias=device.name, up=True)
    except NetlinkError as error:
        what = f"move {device.name} into {call.netns} as {call.ifname}"
        raise CniError(INTERNAL, f"{what}: {error.strerror}") from None


def _take_back(call: Call, taken: Taken, layer3: Layer3) -> None:
    """Undo.  Addresses and routes come back, too; after a DEL, hours later, they would be of the past."""
    link = _give_back(call, taken)
    if not link:
        raise CniError(INTERNAL, f"{taken.name} is neither in {call.netns} nor on the host")
    _forget(taken)
    layer3.restore(call.host, link)


# Home


def _give_back(call: Call, taken: Taken) -> "Link | None":
    """The device, on the host again and as it was; None if it is gone."""
    home = taken.find_home(call.host)
    sandbox = None if home else taken.sandbox(call)
    if sandbox:
        try:
            if link := taken.find_inside(sandbox.rtnl):
                home = _move_home(call.request.host, sandbox, link, taken.name)
        finally:
            sandbox.close()
    elif taken.path:
        # The kernel sends hardware home, but some time after the namespace has lost its last user.
        deadline = time.monotonic() + _HOME_WAIT
        while not home and time.monotonic() < deadline:
            time.sleep(0.02)
            home = taken.find_home(call.host)
    return _restored(call.host, home, taken) if home else None


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


def _restored(host: Rtnl, link: Link, taken: Taken) -> Link:
    """With all that it had.  What fails of that is told; the device is home, so nothing has failed."""
    if link.name != taken.name:
        if host.find_link(taken.name):
            complain(
                f"host-device: {taken.name} is home from container {taken.container_id} as {link.name}: there is"
                f" another {taken.name} by now; `ip link set {link.name} name NAME` renames it"
            )
        else:
            host.set_link(link, up=False)
            host.set_link(link, name=taken.name)
            link = host.link(taken.name)
    master = host.find_link(taken.master) if taken.master else None
    wanted: list[dict[str, Any]] = [
        {name: value} for name, value in taken.attributes.items() if getattr(link, name) != value
    ]
    if link.alias != taken.alias:
        wanted.append({"alias": taken.alias})
    if master and link.master != master.index:
        wanted.append({"master": master.index})
    if taken.up and not link.is_up:
        wanted.append({"up": True})  # last
    for change in wanted:
        try:
            host.set_link(link, **change)
        except (OSError, ValueError) as error:
            complain(f"host-device: restore {', '.join(change)} of {link.name}: {describe(error)}")
    return link


def _bring_home(call: Call, taken: Taken) -> None:
    if not _give_back(call, taken):
        where = f"{taken.name}, which was {taken.ifname} of container {taken.container_id}, is gone"
        why = "what is only software ends with the namespace that it is in"
        if taken.path:
            why = f"if there still is {taken.path}, look for it in the network namespace of process 1"
        complain(f"host-device: {where}: {why}")
    _forget(taken)


# DEL


def delete(call: Call) -> None:
    """The address is given back when the device that has it is home."""
    try_each(lambda: _release(call), lambda: ipam.delete(call))


def _release(call: Call) -> None:
    taken = _load(_path(call.network, call.container_id, call.ifname))
    if taken:
        _bring_home(call, taken)
    elif (sandbox := call.sandbox_if_alive()) and (taken := _taken_by_reference(call, sandbox)):
        _give_back(call, taken)


def _taken_by_reference(call: Call, sandbox: Rtnl) -> "Taken | None":
    """What the reference plugin took: of that there is its name, in the alias, and no more."""
    result = call.prev_result
    macs = {i.mac.lower() for i in result.interfaces if i.sandbox and i.mac} if result else set()
    device = call.conf.string("device")
    ours = {taken.name for taken in _all_taken() if taken.container_id == call.container_id}
    links = [link for link in sandbox.links() if link.alias not in ours and _is_ifname(link.alias)]
    link = (
        _only(link for link in links if link.name == call.ifname)
        or _only(link for link in links if link.alias == device)
        or _only(link for link in links if link.mac in macs)
    )
    if not link:
        return None
    return Taken(
        call.network,
        call.container_id,
        call.ifname,
        call.netns,
        call.sandbox_ns.identity,
        link.alias,
        link.kind,
    )


def _is_ifname(text: str) -> bool:
    try:
        check_ifname(text)
    except CniError:
        return False
    return True


# CHECK, GC, STATUS


def check(call: Call) -> None:
    conf = Conf(call)
    if conf.ipam:
        ipam.check(call)
    if conf.is_dpdk:
        interface.find_in_result(call, call.required_prev_result())
    else:
        interface.check(call, None)


def gc(call: Call) -> None:
    """Bring home what attachments to this network took that are not on the keep-list."""
    keep = call.valid_attachments()
    gone = [
        taken
        for taken in _all_taken()
        if keep is not None
        and taken.network == call.network
        and (taken.container_id, taken.ifname) not in keep
    ]

    def collector(taken: Taken) -> "Callable[[], None]":
        return lambda: _bring_home(call, taken)

    try_each(*map(collector, gone), lambda: ipam.gc(call))


def status(call: Call) -> None:
    Conf(call)
    ipam.status(call)
