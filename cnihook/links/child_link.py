# SPDX-License-Identifier: Apache-2.0
"""
A container's interface on top of a link of the host, its master: what macvlan, ipvlan and vlan share.

Its alias is its owner (`ip link` shows it).  So a DEL whose path now leads to another container's namespace
removes nothing there.
"""

import errno

from cnihook import ipam
from cnihook.fast.undo import Undo, try_each
from cnihook.links import container_link, interface, neighbours, settings
from cnihook.linux import devconf, parent_links
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.rtnl import RT_TABLE_MAIN, RTN_UNICAST, Link, Rtnl
from cnihook.protocol.call import Call
from cnihook.types.errors import INTERNAL, PLUGIN_NOT_AVAILABLE, CniError, ResourceTakenError, invalid_config
from cnihook.types.fields import IN_PLACE, Field, read
from cnihook.types.result import DNS, Interface, Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.types.fields import Fields

_MAX = (1 << 31) - 1


# The keys of all three plugins, except `ipam` and `dns`.
MASTER = Field("master", str, doc="the parent link (default: that of the default route)")
FIELDS = (
    Field("linkInContainer", bool, doc="the parent link is in the container, not on the host"),
    Field("mtu", int, 0, high=_MAX, change=IN_PLACE, doc="MTU; 0: that of the parent link"),
)


class Conf:
    """The keys that all three plugins have, checked.  `fields`: those of the plugin."""

    def __init__(self, call: Call, fields: "Fields") -> None:
        self.options = read(call.conf, fields)
        self.master: str = self.options["master"]
        self.in_container: bool = self.options["linkInContainer"]
        self.mtu: int = self.options["mtu"]
        self.ipam: str = self.options["ipam"].string("type")
        self.dns = DNS.given(self.options["dns"])


def _home(call: Call, conf: Conf) -> Rtnl:
    """Return the namespace of the master."""
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
            'if it is an interface of the container, set "linkInContainer": true',
        )
    raise CniError(INTERNAL, f"no default route interface found {where}", 'name one with "master"')


def _default_route_link(rtnl: Rtnl) -> "Link | None":
    from cnihook.linux import route_lookup  # most networks name their parent link

    for version in (4, 6):
        ways = [
            route
            for route in route_lookup.routes(rtnl, version)
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
    chained: "Result | None" = None,
) -> Result:
    """Make the link and set it up: with the addresses of `chained`, else of IPAM, else on layer 2 only.

    `data`: from linux.parent_links, the properties of this kind of link.
    """
    if conf.mtu > master.mtu:
        raise invalid_config(
            f"invalid MTU {conf.mtu}, must be [0, master MTU({master.mtu})]", f"the master is {master.name}"
        )
    for present in call.sandbox.links():
        if call.ifname == present.name or call.owner == present.alias:
            own = "it is this attachment's; run DEL before another ADD"
            another = "another network of the container has this interface name"
            raise CniError(
                INTERNAL,
                f"{present.name} already exists in {call.netns}",
                own if call.owner == present.alias else another,
            )
    if mac and master.kind == "bridge":
        neighbours.refuse_taken_mac(_home(call, conf), master, mac)
    with Undo() as undo:
        if not chained:
            # There is no such interface, so no process uses an address that is kept for it, and the rollback
            # may release it.  As in DEL, it does that after the link is gone.
            undo.push(ipam.delete, call)
        undo.push(container_link.delete, call, kind, _other_name(call))
        link = _create(call, conf, master, kind, data, mac)
        call.sandbox.set_link(link, name=call.ifname, alias=call.owner)
        link.name = call.ifname
        # A notice corrects neighbours that know the address as that of an earlier container.
        devconf.notify_by_arp(call.sandbox, link)
        with call.sandbox_ns.entered():
            settings.prefer(f"net/ipv6/conf/{link.name}/ndisc_notify", 1)
        # The link exists, because an IPAM plugin may send a request through it.  It is down, because the
        # kernel sends the notice for addresses that are set when the link goes up.
        result = chained or (ipam.add(call) if conf.ipam else Result())
        result.interfaces = [Interface(link.name, link.mac, sandbox=call.netns)]
        for ip in result.ips:
            ip.interface = 0
        if call.request.policy and not chained:
            call.request.policy.admit("", link.mac, [ip.net for ip in result.ips])
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
    """Make the link in the container, down.  Return it.

    It gets its final name, unless the master's namespace has a link of that name (`eth0` is often in both).
    Then it gets another name, and the caller renames it.  That is not done always, because it takes 11 ms on
    Linux 6.1 (an RCU grace period), and 0.2 ms on 6.18.
    """

    def create(name: str) -> None:
        rtnl, netns = _home(call, conf), call.sandbox_ns.fd
        parent_links.add(rtnl, kind, name, master, netns, data, mtu=conf.mtu, mac=mac)

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
        # The link of a dead container can have the VLAN, or prevent links of another kind on the master.
        error_type = ResourceTakenError if error.errno in (errno.EEXIST, errno.EBUSY) else CniError
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
        container_link.delete(call, kind, _other_name(call))
        ipam.delete(call)

    try_each(lambda: ipam.delete_through_link(call), release)


def check(call: Call, conf: Conf, kind: str) -> Link:
    """Return the link if it is as prevResult and these keys say; the caller checks what its kind adds."""
    ipam.check(call)
    link = interface.check(call, kind)
    if conf.master:
        master = find_master(call, conf)
        if link.peer_index != master.index:
            raise CniError(INTERNAL, f"the master of {_where(call)} is not {conf.master}")
    # Another plugin of the chain may have changed it.  Then the result has the new value.
    mtu = interface.find_in_result(call, call.required_prev_result()).mtu or conf.mtu
    expect(call, "mtu", link.mtu, mtu or link.mtu)
    return link


def update(call: Call, before: Call, conf: Conf) -> "Result | None":
    from cnihook.links import in_place  # few containers are changed while they run

    return in_place.update(call, before, lambda mtu: in_place.set_child(call, find_master(call, conf), mtu))


def expect(call: Call, what: str, found: "str | int", wanted: "str | int") -> None:
    if found != wanted:
        raise CniError(INTERNAL, f"{_where(call)} has {what} {found}, not {wanted}")


def _where(call: Call) -> str:
    return f"{call.ifname} of container {call.container_id}"


def status(call: Call, conf: Conf) -> None:
    """Raise CniError with code 50 if the named master is missing.  One in a container cannot be checked."""
    if conf.master and not conf.in_container:
        try:
            find_master(call, conf)
        except CniError as error:
            raise CniError(PLUGIN_NOT_AVAILABLE, error.msg, error.details) from None
    ipam.status(call)
