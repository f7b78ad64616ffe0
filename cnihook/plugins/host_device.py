# SPDX-License-Identifier: Apache-2.0
"""
host-device: an interface of the host, moved into the container, and back when the container ends.

The plugin makes no interface, so it must not lose one: links.moved_device saves its state and restores it.

If a namespace ends without a DEL, the kernel itself moves hardware to the namespace that the machine was
booted with, under the name that it had in the container.  A software device ends with its namespace.
"""

import os

from cnihook import ipam
from cnihook.links import container_link, interface, moved_device
from cnihook.links.moved_device import MovedDevice
from cnihook.linux import sysfs
from cnihook.linux.link_snapshot import LinkSnapshot
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.rtnl import Link, Rtnl
from cnihook.sdk import (
    DNS,
    Call,
    CniError,
    Field,
    Interface,
    Result,
    Traits,
    Undo,
    invalid_config,
    read,
    try_each,
)
from cnihook.types.errors import INTERNAL, ResourceTakenError
from cnihook.types.names import check_ifname

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_DPDK_DRIVERS = ("vfio-pci", "uio_pci_generic", "igb_uio")

_DEVICE = Field("device", str, doc="name of the device on the host")
FIELDS = (
    _DEVICE,
    Field("hwaddr", str, doc="its hardware address, instead of `device`"),
    Field("kernelpath", str, doc="its folder below /sys/devices, instead of `device`"),
    Field("pciBusID", str, doc="its PCI address, instead of `device`"),
    *ipam.FIELDS,
)
TRAITS = Traits(
    "interface",
    link=_DEVICE,
    on_parent=True,
    capabilities=(Field("deviceID", str, doc="PCI address, or ID on the auxiliary bus, of the device"),),
    releases_by_owner=True,
)


class Conf:
    """The device, named in one of five ways: the runtime's first, then the reference's, in its order."""

    def __init__(self, call: Call) -> None:
        conf = call.conf
        options = read(conf, FIELDS)
        self.device = self.mac = self.pci = self.folder = ""
        if device_id := call.runtime_config.string("deviceID"):
            # It is for this container; the other keys are for all containers of the network.
            self.what = f"device ID {device_id}"
            self.folder = sysfs.device_on("pci", device_id)
            self.pci = device_id if self.folder else ""
            self.folder = self.folder or sysfs.device_on("auxiliary", device_id)
            if not self.folder:
                raise invalid_config(f"runtime config DeviceID {device_id} not found or unsupported")
        elif device := options["device"]:
            self.what = f"device {device}"
            self.device = device
        elif address := options["hwaddr"]:
            self.what = f"hwaddr {address}"
            self.mac = _hardware_address(address)
            if not self.mac:
                raise conf.refuse("hwaddr", f"is wrong: {address!r} is not a hardware address")
        elif path := options["kernelpath"]:
            self.what = f"kernelpath {path}"
            self.folder = os.path.normpath(path)
            if not self.folder.startswith("/sys/devices/"):
                why = f"is wrong: {path!r} must be absolute and begin with /sys/devices/"
                raise conf.refuse("kernelpath", why)
        elif pci := options["pciBusID"]:
            self.what = f"pciBusID {pci}"
            self.pci = pci
            self.folder = sysfs.device_on("pci", pci)
            if not self.folder:
                raise conf.refuse("pciBusID", f"is wrong: there is no {pci!r} in /sys/bus/pci/devices")
        else:
            raise invalid_config('specify either "device", "hwaddr", "kernelpath" or "pciBusID"')
        self.is_dpdk = bool(self.pci) and sysfs.driver_of(self.folder) in _DPDK_DRIVERS
        self.ipam: str = options["ipam"].string("type")
        if not self.ipam:
            Result().check_fits(call.version)
        self.dns = DNS.given(options["dns"])


def _hardware_address(text: str) -> str:
    """Return the address as Link.mac has it: 6, 8 or (InfiniBand) 20 bytes.  Empty if it is malformed."""
    try:
        address = bytes.fromhex(text.replace(":", "").replace("-", "").replace(".", ""))
    except ValueError:
        return ""
    return address.hex(":") if len(address) in (6, 8, 20) else ""


# ADD


def add(call: Call) -> Result:
    conf = Conf(call)
    if conf.is_dpdk:
        return _add_dpdk(call, conf)
    container_link.refuse_taken(call)
    if earlier := moved_device.find(call):
        earlier.restore(call)  # from a container of this ID that ended without a DEL
    device = _find_device(call.host, conf)
    own = MovedDevice.capture(call, device)
    layer3 = LinkSnapshot(call.host, device)
    with Undo() as undo:
        # Before ipam.add(), which may fail after it leased some addresses; and undone last, as in DEL.
        undo.push(ipam.delete, call)
        undo.push(_take_back, call, own, layer3)
        own.store()
        _move_in(call, device)
        link = call.sandbox.link(call.ifname)
        result = ipam.add(call) if conf.ipam else Result()
        _complete(result, conf, Interface(link.name, link.mac, sandbox=call.netns))
        if call.request.policy:
            call.request.policy.admit("", link.mac, [ip.net for ip in result.ips])
        if conf.ipam:
            interface.configure(call, link, result)
        return result


def _add_dpdk(call: Call, conf: Conf) -> Result:
    """Return a result only: a program drives the device, so the kernel has no interface to move."""
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
    error_type: type[CniError] = CniError
    for one in moved_device.load_all():
        if (
            one.name == conf.device
            or (conf.mac and one.attributes.get("mac") == conf.mac)
            or (conf.folder and one.path.startswith(os.path.realpath(conf.folder)))
        ):
            hint = f"container {one.container_id} has {one.name} as {one.ifname}"
            error_type = ResourceTakenError
    raise error_type(
        INTERNAL, f"failed to find host device: {conf.what} is not an interface of the host", hint
    )


def _move_in(call: Call, device: Link) -> None:
    try:
        # In one request, so that no process sees it half-way.
        # With policies, it stays down until these are in force.
        up = not call.request.policy
        call.host.set_link(device, netns=call.sandbox_ns.fd, name=call.ifname, alias=device.name, up=up)
    except NetlinkError as error:
        what = f"move {device.name} into {call.netns} as {call.ifname}"
        raise CniError(INTERNAL, f"{what}: {error.strerror}") from None


def _take_back(call: Call, own: MovedDevice, layer3: LinkSnapshot) -> None:
    """Undo the move, with addresses and routes.  A DEL, hours later, does not restore these old values."""
    link = own.move_back(call)
    if not link:
        raise CniError(INTERNAL, f"{own.name} is neither in {call.netns} nor on the host")
    own.forget()
    layer3.restore(call.host, link)


# DEL


def delete(call: Call) -> None:
    """Move the device to the host, then release its address."""

    def release() -> None:
        _bring_home(call)
        ipam.delete(call)

    try_each(lambda: ipam.delete_through_link(call), release)


def _bring_home(call: Call) -> None:
    if own := moved_device.find(call):
        own.restore(call)
    elif (sandbox := call.sandbox_if_alive()) and (foreign := _taken_by_reference(call, sandbox)):
        foreign.move_back(call)


def _taken_by_reference(call: Call, sandbox: Rtnl) -> "MovedDevice | None":
    """Return the device that the reference plugin moved.  Only its name is known, from its alias."""
    try:
        result = call.prev_result or Result()
    except CniError:
        result = Result()  # the device must come back even if prevResult is damaged
    macs = {one.mac.lower() for one in result.interfaces if one.sandbox and one.mac}
    device = call.conf.string("device")
    own = {one.name for one in moved_device.load_all() if one.container_id == call.container_id}
    links = [link for link in sandbox.links() if link.alias not in own and _is_ifname(link.alias)]
    link = (
        moved_device.single(link for link in links if link.name == call.ifname)
        or moved_device.single(link for link in links if link.alias == device)
        or moved_device.single(link for link in links if link.mac in macs)
    )
    return MovedDevice.for_call(call, link.alias, link.kind) if link else None


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
    """Move back the devices that attachments to this network took, except those of valid attachments."""
    keep = call.valid_attachments()
    gone = [
        one
        for one in moved_device.load_all()
        if keep is not None and one.network == call.network and (one.container_id, one.ifname) not in keep
    ]

    def collector(one: MovedDevice) -> "Callable[[], None]":
        return lambda: one.restore(call)

    try_each(*map(collector, gone), lambda: ipam.gc(call))


def status(call: Call) -> None:
    Conf(call)
    ipam.status(call)
