# SPDX-License-Identifier: Apache-2.0
"""
A container's interface that stands upon one of the host, its master: what macvlan, ipvlan and vlan share.

It bears its owner's words as its alias (`ip link` shows them), so that a DEL whose path leads to another
container's namespace by now takes nothing there.
"""

import errno

from cnihook.linux import stacked
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.rtnl import RT_TABLE_MAIN, RTN_UNICAST, Link, Rtnl
from cnihook.sdk import inside, interface, ipam, neighbours, settings
from cnihook.sdk.call import Call
from cnihook.sdk.undo import Undo, try_each
from cnihook.spec.config import NetConf
from cnihook.spec.errors import INTERNAL, PLUGIN_NOT_AVAILABLE, CniError, ResourceTaken, invalid_config
from cnihook.spec.result import DNS, Interface, Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

_MAX = (1 << 31) - 1


class Conf:
    """The keys that all of them have, checked."""

    def __init__(self, call: Call) -> None:
        conf = call.conf
        self.master = conf.string("master")  # empty: the interface of the default route
        self.in_container = conf.boolean("linkInContainer")
        self.mtu = conf.integer("mtu", default=0, low=0, high=_MAX)  # 0: the master's
        self.ipam = ipam.plugin_type(call)
        self.dns = DNS.given(conf)


def mode_of(conf: NetConf, modes: "Collection[str]", default: str) -> str:
    mode = conf.string("mode") or default
    if mode not in modes:
        raise conf.refuse("mode", f"must be one of {', '.join(modes)}, not {mode!r}")
    return mode


def _home(call: Call, conf: Conf) -> Rtnl:
    """Where the master is."""
    return call.sandbox if conf.in_container else call.host


def find_master(call: Call, conf: Conf) -> Link:
    rtnl = _home(call, conf)
    master = rtnl.find_link(conf.master) if conf.master else _default_route_link(rtnl)
    if master:
        return master
    where = f"in {call.netns}" if conf.in_container else "on the host"
    if conf.master:
        raise CniError(
            INTERNAL,
            f"master {conf.master} does not exist {where}",
            '"linkInContainer": true looks for it in the container, where it is one of those',
        )
    raise CniError(INTERNAL, f"no default route interface found {where}", '"master" names another one')


def _default_route_link(rtnl: Rtnl) -> "Link | None":
    for version in (4, 6):
        ways = [
            route
            for route in rtnl.routes(version)
            # A route with several next hops has no index of its own, and nothing says which one is meant.
            if route.dst is None
            and route.index
            and (route.table, route.kind) == (RT_TABLE_MAIN, RTN_UNICAST)
        ]
        if ways:
            return rtnl.find_link_by_index(min(ways, key=lambda route: route.priority).index)
    return None


# ADD


def add(
    call: Call,
    conf: Conf,
    master: Link,
    kind: str,
    data: "tuple[bytes, ...]",
    *,
    mac: str = "",
    given: "Result | None" = None,
) -> Result:
    """Make the link and set it up: with the addresses of `given`, else IPAM's, else on layer 2 alone.

    `data` is of linux.stacked, and makes the link what it is.
    """
    if conf.mtu > master.mtu:
        raise invalid_config(
            f"invalid MTU {conf.mtu}, must be [0, master MTU({master.mtu})]", f"the master is {master.name}"
        )
    for present in call.sandbox.links():
        if call.ifname == present.name or call.owner == present.alias:
            ours = "it is this attachment's, which takes a DEL before it can be made again"
            another = "another network of the container has this interface name"
            raise CniError(
                INTERNAL,
                f"{present.name} already exists in {call.netns}",
                ours if call.owner == present.alias else another,
            )
    if mac and master.kind == "bridge":
        neighbours.refuse_taken_mac(_home(call, conf), master, mac)
    with Undo() as undo:
        if not given:
            # As there is no such interface, an address that is kept for it is in nobody's use, and undoing
            # may release it; when the link is gone, as in DEL.
            undo.push(ipam.delete, call)
        undo.push(inside.delete, call, kind, _other_name(call))
        link = _create(call, conf, master, kind, data, mac)
        call.sandbox.set_link(link, name=call.ifname, alias=call.owner)
        link.name = call.ifname
        with call.sandbox_ns.entered():
            # Neighbours that know the address as that of an earlier container shall learn better.
            settings.prefer(f"net/ipv4/conf/{link.name}/arp_notify", 1)
            settings.prefer(f"net/ipv6/conf/{link.name}/ndisc_notify", 1)
        # The link is there, for an IPAM plugin that asks through it; and down, as the kernel sends such
        # notice of an address that is there when the link goes up.
        result = given or (ipam.add(call) if conf.ipam else Result())
        result.interfaces = [Interface(link.name, link.mac, sandbox=call.netns)]
        for ip in result.ips:
            ip.interface = 0
        try:
            interface.configure(call, link, result)
        except NetlinkError as error:
            if error.errno != errno.EADDRINUSE:  # the kernel compares the MAC addresses on one master
                raise
            raise neighbours.mac_taken(link.mac, f"{master.name} or a container on it has it") from None
        if conf.dns is not None:
            result.dns = conf.dns
        return result


def _create(call: Call, conf: Conf, master: Link, kind: str, data: "tuple[bytes, ...]", mac: str) -> Link:
    """The link in the container, down, under its name there if the master's namespace has none of that name.

    Else under another, to be renamed: `eth0` may well be in both.  Not always so, since that takes 11 ms on
    Linux 6.1, an RCU grace period, and 0.2 on 6.18.
    """

    def create(name: str) -> None:
        rtnl, netns = _home(call, conf), call.sandbox_ns.fd
        stacked.add(rtnl, kind, name, master, netns, data, mtu=conf.mtu, mac=mac)

    name = call.ifname
    try:
        try:
            create(name)
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
            name = _other_name(call)
            create(name)
    except NetlinkError as error:
        # A dead container's link can have the VLAN, or keep the master from links of another kind.
        error_type = ResourceTaken if error.errno in (errno.EEXIST, errno.EBUSY) else CniError
        raise error_type(INTERNAL, str(error), _hint(error.errno, kind, master)) from None
    return call.sandbox.link(name)


def _other_name(call: Call) -> str:
    from _blake2 import blake2s

    return f"cni{blake2s(call.owner.encode(), digest_size=6).hexdigest()}"


def _hint(code: "int | None", kind: str, master: Link) -> str:
    if code == errno.EBUSY:
        return f"{master.name} is in use: it is a bridge's port, or carries links of another kind"
    if code == errno.EEXIST and kind == "vlan":
        return f"{master.name} has each VLAN once: another container has this one, or the host itself"
    if code == errno.EOPNOTSUPP:
        return f"this kernel has no {kind}; `modprobe rtnl-link-{kind}` loads it, if it is installed"
    return ""


# DEL, CHECK, STATUS


def delete(call: Call, kind: str) -> None:
    """Remove the link, then release its address.  The master and a result may be missing."""

    def release() -> None:
        inside.delete(call, kind, _other_name(call))
        ipam.delete(call)

    try_each(lambda: ipam.delete_through_link(call), release)


def check(call: Call, conf: Conf, kind: str) -> Link:
    """The link, if it is as prevResult and these keys say; what is of its kind alone is the caller's."""
    ipam.check(call)
    link = interface.check(call, kind)
    if conf.master:
        master = find_master(call, conf)
        if link.peer_index != master.index:
            raise CniError(INTERNAL, f"{_where(call)} does not stand upon {conf.master}")
    # Another plugin of the chain may have changed it, and says so.
    mtu = interface.find_in_result(call, call.required_prev_result()).mtu or conf.mtu
    expect(call, "mtu", link.mtu, mtu or link.mtu)
    return link


def expect(call: Call, what: str, found: "str | int", wanted: "str | int") -> None:
    if found != wanted:
        raise CniError(INTERNAL, f"{_where(call)} has {what} {found}, not {wanted}")


def _where(call: Call) -> str:
    return f"{call.ifname} of container {call.container_id}"


def status(call: Call, conf: Conf) -> None:
    """Code 50 without the master that is named; one in a container cannot be known before."""
    if conf.master and not conf.in_container:
        try:
            find_master(call, conf)
        except CniError as error:
            raise CniError(PLUGIN_NOT_AVAILABLE, error.msg, error.details) from None
    ipam.status(call)
