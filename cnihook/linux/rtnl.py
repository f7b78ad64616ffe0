# SPDX-License-Identifier: Apache-2.0
"""
Links, addresses and routes: what `ip` does, as requests to rtnetlink.

One Rtnl is one socket in one namespace.  Requests that few networks need are in linux.bridge_ports and
linux.route_lookup.  <linux/rtnetlink.h>, <linux/if_link.h>, <linux/if_addr.h> and <linux/if_bridge.h> give
the names and numbers.
"""

import _struct as struct
import errno
from _socket import AF_INET6, AF_UNSPEC

from cnihook.fast.address import Address, IPNet, mac_bytes
from cnihook.linux.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    Netlink,
    NetlinkError,
    attr,
    attributes,
    nested,
    read_text,
    read_u32,
    text,
    u8,
    u32,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# <linux/rtnetlink.h>
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_TABLE = 1, 4, 5, 6, 7, 8, 15
RTAX_MTU, RTAX_ADVMSS = 2, 8
RT_TABLE_MAIN, RTPROT_BOOT, RTPROT_RA, RTN_UNICAST, RTN_LOCAL = 254, 3, 9, 1, 2
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
# <linux/if.h>
IFF_UP, IFF_PROMISC, IFF_ALLMULTI, IFF_LOWER_UP = 0x1, 0x100, 0x200, 0x10000
# <linux/if_link.h>
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_OPERSTATE = 1, 3, 4, 5, 10, 16
IFLA_LINKINFO, IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD = 18, 20, 26, 27, 28
IFLA_TXQLEN, IFLA_LINK_NETNSID = 13, 37
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_DATA = 1, 2, 5
IFLA_BR_FORWARD_DELAY, IFLA_BR_STP_STATE, IFLA_BR_VLAN_FILTERING = 1, 5, 7
IFLA_BRPORT_STATE, IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED = 1, 4, 33  # mode is what `bridge` calls hairpin
VETH_INFO_PEER = 1
IFLA_INET6_CONF = 2
IF_OPER_UNKNOWN, IF_OPER_UP = 0, 6
# <linux/ipv6.h>: places of settings in IFLA_INET6_CONF, four bytes each
DEVCONF_FORWARDING, DEVCONF_ACCEPT_RA = 0, 3
# <linux/if_bridge.h>
AF_BRIDGE, BR_STATE_FORWARDING = 7, 3
# <linux/if_addr.h>
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
IFA_F_NODAD, IFA_F_DADFAILED, IFA_F_TENTATIVE, IFA_F_PERMANENT = 0x02, 0x08, 0x40, 0x80
IFA_F_NOPREFIXROUTE = 0x200

_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change mask
_IFADDR = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags

_IPV6_MIN_MTU = 1280  # <linux/ipv6.h>; below it a link has no IPv6 at all


class Link:
    """One interface as the kernel describes it."""

    __slots__ = (
        "_families", "_port", "alias", "flags", "group", "index", "info_data", "kind", "mac", "master",
        "mtu", "name", "operstate", "peer_index", "peer_netns", "txqlen",
    )  # fmt: skip

    def __init__(self, body: bytes) -> None:
        _family, _type, self.index, self.flags, _change = _IFINFO.unpack_from(body)
        attrs = attributes(body, _IFINFO.size)
        self.name = read_text(attrs.get(IFLA_IFNAME))
        self.mac = attrs.get(IFLA_ADDRESS, b"").hex(":")
        self.mtu = read_u32(attrs.get(IFLA_MTU))
        self.txqlen = read_u32(attrs.get(IFLA_TXQLEN))
        self.master = read_u32(attrs.get(IFLA_MASTER))  # index of the bridge that it is a port of, or 0
        # The other end of a veth, the parent link of a macvlan; it may be in another namespace.
        self.peer_index = read_u32(attrs.get(IFLA_LINK))
        netns = attrs.get(IFLA_LINK_NETNSID)  # the kernel's number for that namespace; absent: this one
        self.peer_netns: int | None = struct.unpack("=i", netns)[0] if netns else None
        self.alias = read_text(attrs.get(IFLA_IFALIAS))
        self.group = read_u32(attrs.get(IFLA_GROUP))
        self.operstate = attrs.get(IFLA_OPERSTATE, b"\0")[0]
        self._families = attrs.get(IFLA_AF_SPEC, b"")  # packed, because few callers need it
        info = attributes(attrs.get(IFLA_LINKINFO, b""))
        self.kind = read_text(info.get(IFLA_INFO_KIND))
        self.info_data = info.get(IFLA_INFO_DATA, b"")  # packed; each kind has its own attributes
        self._port = info.get(IFLA_INFO_SLAVE_DATA, b"")  # packed, too: the state as a bridge's port

    @property
    def vlan_filtering(self) -> bool:
        data = attributes(self.info_data) if self.kind == "bridge" else {}
        return bool(data.get(IFLA_BR_VLAN_FILTERING, b"\0")[0])

    @property
    def isolated(self) -> bool:
        return bool(attributes(self._port).get(IFLA_BRPORT_ISOLATED, b"\0")[0])

    @property
    def port_state(self) -> int:  # BR_STATE_*, of spanning tree
        return attributes(self._port).get(IFLA_BRPORT_STATE, b"\0")[0]

    @property
    def is_up(self) -> bool:
        return bool(self.flags & IFF_UP)

    @property
    def has_carrier(self) -> bool:
        return bool(self.flags & IFF_LOWER_UP)

    @property
    def promiscuous(self) -> bool:
        return bool(self.flags & IFF_PROMISC)

    @property
    def allmulti(self) -> bool:
        return bool(self.flags & IFF_ALLMULTI)

    @property
    def accept_ra(self) -> int:
        """The IPv6 setting of this name; 0 for a link without IPv6."""
        return self._ipv6_setting(DEVCONF_ACCEPT_RA)

    @property
    def forwards_ipv6(self) -> bool:
        return bool(self._ipv6_setting(DEVCONF_FORWARDING))

    def _ipv6_setting(self, place: int) -> int:
        settings = attributes(attributes(self._families).get(AF_INET6, b"")).get(IFLA_INET6_CONF, b"")
        return int(struct.unpack_from("=i", settings, 4 * place)[0]) if len(settings) >= 4 * place + 4 else 0


class LinkAddress:
    """An address on a link."""

    __slots__ = ("flags", "index", "net", "scope")

    def __init__(self, body: bytes) -> None:
        _family, prefix, flags, self.scope, self.index = _IFADDR.unpack_from(body)
        attrs = attributes(body, _IFADDR.size)
        self.flags = read_u32(attrs.get(IFA_FLAGS)) or flags
        # IFA_LOCAL is the link's own address; on a point-to-point link, IFA_ADDRESS is the other end's.
        # IPv6 has IFA_ADDRESS only.
        self.net = IPNet(Address(attrs.get(IFA_LOCAL) or attrs.get(IFA_ADDRESS, b"")), prefix)


class Rtnl(Netlink):
    """Requests about links, addresses and routes of the namespace that it was opened in."""

    # Links

    def find_link(self, name: str) -> "Link | None":
        return self._find(_IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + text(IFLA_IFNAME, name), f"look up {name}")

    def find_link_by_index(self, index: int) -> "Link | None":
        return self._find(_IFINFO.pack(AF_UNSPEC, 0, index, 0, 0), f"look up link {index}")

    def _find(self, body: bytes, what: str) -> "Link | None":
        try:
            return Link(self.request(RTM_GETLINK, 0, body, what)[0])
        except NetlinkError as error:
            # No link can have a name that is too long, or that has a forbidden character.
            if error.errno in (errno.ENODEV, errno.ERANGE, errno.EINVAL):
                return None
            raise

    def link(self, name: str) -> Link:
        """Return the link of this name.  Raises NetlinkError with ENODEV if there is none."""
        link = self.find_link(name)
        if not link:
            raise NetlinkError(errno.ENODEV, f"look up {name}")
        return link

    def links(self, master: int = 0) -> "list[Link]":
        """Return all links, or the ports of one bridge."""
        body = _IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + (u32(IFLA_MASTER, master) if master else b"")
        links = [Link(body) for body in self.request(RTM_GETLINK, NLM_F_DUMP, body, "list links")]
        return [link for link in links if not master or link.master == master]

    def each_port(self, bridge: Link) -> "Iterator[Link]":
        """Yield the ports of a bridge.  If the caller stops at the first, it costs 0.1 ms for any number."""
        body = _IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + u32(IFLA_MASTER, bridge.index)
        links = map(Link, self.stream(RTM_GETLINK, body, f"list the ports of {bridge.name}"))
        return (link for link in links if link.master == bridge.index)

    def add_link(
        self,
        kind: str,
        name: str,
        *attrs: bytes,
        data: "tuple[bytes, ...]" = (),
        up: bool = False,
        what: str = "",
    ) -> None:
        """Create a link.  `data`: packed attributes of its kind.  EEXIST if the name is in use."""
        info = [text(IFLA_INFO_KIND, kind)]
        if data:
            info.append(nested(IFLA_INFO_DATA, *data))
        flags = IFF_UP if up else 0
        body = _IFINFO.pack(AF_UNSPEC, 0, 0, flags, flags) + text(IFLA_IFNAME, name)
        body += b"".join(attrs) + nested(IFLA_LINKINFO, *info)
        self.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, what or f"create {kind} {name}")

    def add_bridge(
        self, name: str, *, mtu: int = 0, vlan_filtering: bool = False, group: int = 0, mac: bytes = b""
    ) -> None:
        """Create a bridge.

        `group` is a number that marks links.  It is set at the moment of creation, unlike an alias.  A
        bridge keeps a MAC that it is created with; otherwise its MAC is the lowest of its ports'.
        """
        data = (u8(IFLA_BR_VLAN_FILTERING, 1),) if vlan_filtering else ()
        attrs = [u32(kind, value) for kind, value in ((IFLA_MTU, mtu), (IFLA_GROUP, group)) if value]
        if mac:
            attrs.append(attr(IFLA_ADDRESS, mac))
        self.add_link("bridge", name, *attrs, data=data)

    def add_veth(
        self,
        name: str,
        peer: str,
        peer_netns: "int | None" = None,
        *,
        mtu: int = 0,
        peer_mac: str = "",
        master: int = 0,
        group: int = 0,
        up: bool = False,
    ) -> None:
        """Create a veth pair: `name` here, its other end `peer` in the namespace that a descriptor holds.

        One message has the effect of four of `ip`: the kernel enslaves, moves and raises while it creates.
        The peer stays down: at that moment it has no other end yet, and the kernel would refuse with
        ENOTCONN.
        """
        both = [u32(IFLA_MTU, mtu)] if mtu else []
        far = [text(IFLA_IFNAME, peer), *both]
        if peer_netns is not None:
            far.append(u32(IFLA_NET_NS_FD, peer_netns))
        if peer_mac:
            far.append(attr(IFLA_ADDRESS, mac_bytes(peer_mac)))
        end = attr(VETH_INFO_PEER, _IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + b"".join(far))
        near = [
            *both,
            *(u32(kind, value) for kind, value in ((IFLA_MASTER, master), (IFLA_GROUP, group)) if value),
        ]
        self.add_link("veth", name, *near, data=(end,), up=up, what=f"create veth {name} with peer {peer}")

    def set_link(
        self,
        link: Link,
        *,
        up: "bool | None" = None,
        promiscuous: "bool | None" = None,
        allmulti: "bool | None" = None,
        mtu: "int | None" = None,
        txqlen: "int | None" = None,
        mac: "str | None" = None,
        master: "int | None" = None,
        alias: "str | None" = None,
        name: str = "",
        netns: "int | None" = None,
        group: "int | None" = None,
    ) -> None:
        """Change what is given.

        `netns` is the descriptor of another namespace to which the link moves, as `name` if that is given,
        too.  There it is down, and has lost its addresses.
        """
        flags = change = 0
        for bit, value in ((IFF_UP, up), (IFF_PROMISC, promiscuous), (IFF_ALLMULTI, allmulti)):
            if value is not None:
                change |= bit
                flags |= bit if value else 0
        numbers = (
            *((IFLA_MTU, mtu), (IFLA_TXQLEN, txqlen), (IFLA_MASTER, master)),
            *((IFLA_NET_NS_FD, netns), (IFLA_GROUP, group)),
        )
        attrs = [u32(kind, value) for kind, value in numbers if value is not None]
        if mac is not None:
            attrs.append(attr(IFLA_ADDRESS, mac_bytes(mac)))
        if alias is not None:
            attrs.append(attr(IFLA_IFALIAS, alias.encode()[:255]))
        if name:
            attrs.append(text(IFLA_IFNAME, name))
        if attrs or change:
            body = _IFINFO.pack(AF_UNSPEC, 0, link.index, flags, change) + b"".join(attrs)
            self.request(RTM_NEWLINK, 0, body, f"configure {link.name}")

    def delete_link(self, link: Link) -> None:
        """Delete a link, unless it is gone already.  For a veth: 15 to 20 ms, an RCU grace period."""
        self._unless_gone(RTM_DELLINK, _IFINFO.pack(AF_UNSPEC, 0, link.index, 0, 0), f"delete {link.name}")

    def delete_link_named(self, name: str) -> None:
        """Delete a link like delete_link(), if only its name is known."""
        body = _IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + text(IFLA_IFNAME, name)
        self._unless_gone(RTM_DELLINK, body, f"delete {name}")

    def delete_links(self, links: "list[Link]", group: int) -> None:
        """Delete several links at once, with one wait: 35 ms for a bridge and its port instead of 60.

        Only a group can be named in one request; no other link may have the number `group`.
        """
        for link in links:
            body = _IFINFO.pack(AF_UNSPEC, 0, link.index, 0, 0) + u32(IFLA_GROUP, group)
            self._unless_gone(RTM_NEWLINK, body, f"group {link.name}")
        self.delete_group(group, " ".join(link.name for link in links))

    def delete_group(self, group: int, names: str) -> None:
        """Delete all links of a group at once, with one wait; `names` are for the error message."""
        body = _IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + u32(IFLA_GROUP, group)
        self._unless_gone(RTM_DELLINK, body, f"delete {names}")

    def _unless_gone(self, kind: int, body: bytes, what: str) -> None:
        """Send a request about a link that may be gone, as a veth is after its other end's namespace."""
        try:
            self.request(kind, 0, body, what)
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise

    # Addresses

    def addresses(self, link: "Link | None" = None) -> "list[LinkAddress]":
        body = _IFADDR.pack(AF_UNSPEC, 0, 0, 0, link.index if link else 0)
        items = [LinkAddress(body) for body in self.request(RTM_GETADDR, NLM_F_DUMP, body, "list addresses")]
        return [address for address in items if not link or address.index == link.index]

    def add_address(self, link: Link, net: IPNet, *, ifa_flags: int = 0) -> None:
        """Add an address.  `ifa_flags`: IFA_F_*.  Raises NetlinkError, EEXIST if the link has it."""
        extra = u32(IFA_FLAGS, ifa_flags) if ifa_flags else b""
        what = f"add {net} to {link.name}"
        try:
            self._address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, link, net, what, extra)
        except NetlinkError as error:
            if error.errno != errno.EINVAL or net.address.version != 6 or link.mtu >= _IPV6_MIN_MTU:
                raise
            why = f"its MTU is {link.mtu}, and IPv6 takes {_IPV6_MIN_MTU} or more"
            raise NetlinkError(errno.EINVAL, what, why) from None

    def delete_address(self, link: Link, net: IPNet) -> None:
        self._address(RTM_DELADDR, 0, link, net, f"delete {net} from {link.name}")

    def _address(self, kind: int, flags: int, link: Link, net: IPNet, what: str, extra: bytes = b"") -> None:
        body = _IFADDR.pack(net.address.family, net.prefix, 0, RT_SCOPE_UNIVERSE, link.index)
        body += attr(IFA_LOCAL, net.address) + attr(IFA_ADDRESS, net.address)
        if net.address.version == 4 and net.prefix < 31:
            body += attr(IFA_BROADCAST, net.last())
        self.request(kind, flags, body + extra, what)

    # Routes

    def add_route(
        self,
        link: Link,
        dst: IPNet,
        *,
        via: "Address | None" = None,
        priority: int = 0,
        table: int = RT_TABLE_MAIN,
        scope: "int | None" = None,
        mtu: int = 0,
        advmss: int = 0,
        source: "Address | None" = None,
        exclusive: bool = False,
    ) -> None:
        """Add a route.  A prefix length of 0 makes it a default route; without a gateway, it is on the link.

        A second next hop for a destination is valid; with `exclusive` it is refused with EEXIST.
        """
        if scope is None:
            scope = RT_SCOPE_UNIVERSE if via or dst.address.version == 6 else RT_SCOPE_LINK
        family, prefix, short = dst.address.family, dst.prefix, table if table < 256 else 0
        body = _ROUTE.pack(family, prefix, 0, 0, short, RTPROT_BOOT, scope, RTN_UNICAST, 0)
        if dst.prefix:
            body += attr(RTA_DST, dst.first())
        if via:
            body += attr(RTA_GATEWAY, via)
        if source:
            body += attr(RTA_PREFSRC, source)
        body += u32(RTA_OIF, link.index) + u32(RTA_TABLE, table)
        if priority:
            body += u32(RTA_PRIORITY, priority)
        metrics = [u32(kind, value) for kind, value in ((RTAX_MTU, mtu), (RTAX_ADVMSS, advmss)) if value]
        if metrics:
            body += nested(RTA_METRICS, *metrics)
        what = f"add route {dst.network()}{f' via {via}' if via else ''} on {link.name}"
        self.request(RTM_NEWROUTE, NLM_F_CREATE | (NLM_F_EXCL if exclusive else 0), body, what)
