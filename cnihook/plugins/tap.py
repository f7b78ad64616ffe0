# SPDX-License-Identifier: Apache-2.0
"""
tap: an interface whose other end is a program in the container, such as a virtual machine's monitor.

It exists before that program starts and after it ends.  `owner` and `group` are the user and the group whose
programs may attach; without them, every program that can open /dev/net/tun may.  `bridge` names a bridge
that is in the container already.
"""

from cnihook import ipam
from cnihook.fast.address import mac_bytes
from cnihook.links import container_link, interface
from cnihook.linux import devconf, selinux, tuntap
from cnihook.linux.rtnl import IFA_F_NODAD, Link
from cnihook.sdk import DNS, Call, CniError, Field, Interface, Result, Traits, Undo, invalid_config, read
from cnihook.types.errors import INTERNAL

KIND = "tun"  # the kernel's name for both, tun and tap
_MAX_MTU = 65535
_MAX_ID = (1 << 32) - 2  # the highest number of 32 bits is not an ID
_MAC = Field("mac", str, doc="MAC address of the interface")

FIELDS = (
    Field("multiQueue", bool, doc="one queue per program that attaches, not one in all"),
    Field("mtu", int, 0, high=_MAX_MTU, doc="MTU; 0: the kernel's choice"),
    Field("owner", int, high=_MAX_ID, doc="number of the user whose programs may attach"),
    Field("group", int, high=_MAX_ID, doc="number of the group whose programs may attach"),
    Field("bridge", str, doc="a bridge in the container that gets the interface as a port"),
    *ipam.FIELDS,
    _MAC,
    Field("selinuxContext", str, doc="SELinux context of the interface"),
)
TRAITS = Traits(
    "interface", needs=("tun",), takes=("mac",), capabilities=(_MAC,), args=(_MAC,), releases_by_owner=True
)


class Conf:
    """Every key, checked before anything is changed."""

    def __init__(self, call: Call) -> None:
        conf = call.conf
        options = read(conf, FIELDS)
        self.multi_queue: bool = options["multiQueue"]
        self.mtu: int = options["mtu"]
        self.owner: int | None = options["owner"]
        self.group: int | None = options["group"]
        self.bridge: str = options["bridge"]
        self.ipam: str = options["ipam"].string("type")
        if not self.ipam:
            Result().check_fits(call.version)
        self.dns = DNS.given(options["dns"])
        self.mac: str = (
            call.runtime_config.string("mac")
            or call.cni_args.string("mac")
            or call.arg("MAC")
            or options["mac"]
        )
        if self.mac:
            try:
                mac_bytes(self.mac)
            except ValueError as error:
                raise invalid_config(str(error)) from None
        self.selinux_context: str = options["selinuxContext"]
        if self.selinux_context and not selinux.is_enabled():
            why = "is set, and SELinux is not enabled on this host"
            raise conf.refuse("selinuxContext", why, "remove the key")


def add(call: Call) -> Result:
    conf = Conf(call)
    container_link.refuse_taken(call)
    bridge = _bridge(call, conf)
    sandbox = call.sandbox
    with Undo() as undo:
        _create(call, conf)
        # Before ipam.add(), which may fail after it leased some addresses; and undone last, as in DEL.
        undo.push(ipam.delete, call)
        undo.push(container_link.delete, call, KIND)
        link = sandbox.link(call.ifname)
        sandbox.set_link(
            link,
            alias=call.owner,
            mtu=conf.mtu or None,
            mac=conf.mac or None,
            master=bridge.index if bridge else None,
            up=not call.request.policy,
        )
        result = ipam.add(call) if conf.ipam else Result()
        result.interfaces = [Interface(link.name, conf.mac.lower() or link.mac, sandbox=call.netns)]
        for ip in result.ips:
            ip.interface = 0
        if call.request.policy:
            call.request.policy.admit("", result.interfaces[0].mac, [ip.net for ip in result.ips])
        if conf.ipam:
            devconf.notify_by_arp(sandbox, link)
            # No program is at the other end yet, so none has the same address, or could report it.
            interface.set_addresses(call, link, result.ips, ifa_flags=IFA_F_NODAD)
            interface.set_routes(call, link, result.ips, result.routes)
            interface.wait(call, link, result.ips)
        if conf.dns is not None:
            result.dns = conf.dns
        return result


def _bridge(call: Call, conf: Conf) -> "Link | None":
    if not conf.bridge:
        return None
    bridge = call.sandbox.find_link(conf.bridge)
    if not bridge:
        raise CniError(
            INTERNAL,
            f"failed to find bridge interface {conf.bridge} in {call.netns}",
            "a plugin before this one must make the bridge in the container",
        )
    if bridge.kind != "bridge":
        raise CniError(INTERNAL, f"link {conf.bridge} in {call.netns} is not a bridge")
    return bridge


def _create(call: Call, conf: Conf) -> None:
    try:
        with call.sandbox_ns.entered():
            if conf.selinux_context:
                tuntap.add_tap_in_context(
                    conf.selinux_context,
                    call.ifname,
                    multi_queue=conf.multi_queue,
                    owner=conf.owner,
                    group=conf.group,
                )
            else:
                tuntap.add_tap(call.ifname, multi_queue=conf.multi_queue, owner=conf.owner, group=conf.group)
    except FileNotFoundError as error:
        hint = "`modprobe tun` makes it" if error.filename == tuntap.DEVICE else "install iproute2"
        raise CniError(INTERNAL, f"create tap {call.ifname}: there is no {error.filename}", hint) from None


def delete(call: Call) -> None:
    """Remove the link, then release its address."""
    container_link.delete(call, KIND)
    ipam.delete(call)


def check(call: Call) -> None:
    conf = Conf(call)
    if conf.ipam:
        ipam.check(call)
    link = interface.check(call, KIND)
    where = f"{call.ifname} of container {call.container_id}"
    if not link.is_up:
        raise CniError(INTERNAL, f"{where} is down")
    if conf.mtu and link.mtu != conf.mtu:
        raise CniError(INTERNAL, f"{where} has MTU {link.mtu}, not {conf.mtu}")
    bridge = _bridge(call, conf)
    if bridge and link.master != bridge.index:
        raise CniError(INTERNAL, f"{where} is not a port of bridge {conf.bridge}")


def gc(call: Call) -> None:
    ipam.gc(call)


def status(call: Call) -> None:
    Conf(call)
    ipam.status(call)
