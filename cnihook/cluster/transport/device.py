# SPDX-License-Identifier: Apache-2.0
"""The device of a network on this host: made if it is missing, and set as the network needs it."""

from cnihook.cluster.kernel import TransportError
from cnihook.cluster.transport import managers
from cnihook.fast.address import IPNet
from cnihook.links import settings
from cnihook.linux import sysctl
from cnihook.linux.netlink import attr, u32
from cnihook.linux.rtnl import (
    IFA_F_NODAD,
    IFA_F_NOPREFIXROUTE,
    IFLA_ADDRESS,
    IFLA_GROUP,
    IFLA_MTU,
    Link,
    Rtnl,
)
from cnihook.protocol.call import GROUP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection


def find(rtnl: Rtnl, name: str, kind: str) -> "Link | None":
    """Return the device, None if it is missing.  Raises TransportError for a link of another program."""
    link = rtnl.find_link(name)
    if link and not _is_own(link, kind):
        raise TransportError(f"link {name} was not made by cnihook, and the network needs the name")
    return link


def add(
    rtnl: Rtnl, name: str, kind: str, *, mtu: int, mac: bytes = b"", data: "tuple[bytes, ...]" = ()
) -> Link:
    """Make the device; it is down."""
    attrs = [u32(IFLA_MTU, mtu), u32(IFLA_GROUP, GROUP << 16)]
    if mac:
        attrs.append(attr(IFLA_ADDRESS, mac))
    rtnl.add_link(kind, name, *attrs, data=data)
    return rtnl.link(name)


def configure(rtnl: Rtnl, link: Link, *, alias: str, mtu: int, mac: str = "") -> None:
    """Set what another program may have changed, and raise the device."""
    different_mac = mac if mac and mac != link.mac else None
    if link.alias != alias or link.mtu != mtu or different_mac:
        rtnl.set_link(link, alias=alias, mtu=mtu, mac=different_mac)
    if not link.is_up:
        # Loose: a packet of another host may arrive before the route to its block is set.
        settings.prefer(f"net/ipv4/conf/{link.name}/rp_filter", 2)
        settings.prefer(f"net/ipv6/conf/{link.name}/accept_ra", 0)
        rtnl.set_link(link, up=True)


def set_addresses(rtnl: Rtnl, link: Link, nets: "Collection[IPNet]") -> None:
    """Give the device these addresses, and no others.

    They are the first of the own blocks, which no container has.  So what the host itself sends to a
    container of another host has a source that the other host has a route to.
    """
    if any(net.address.version == 6 for net in nets):
        sysctl.write(f"net/ipv6/conf/{link.name}/disable_ipv6", 0)
    present = {each.net for each in rtnl.addresses(link) if not each.net.address.is_link_local}
    for net in set(nets) - present:
        # Nothing else is on the device, so there is no duplicate to wait for.
        rtnl.add_address(link, net, ifa_flags=IFA_F_NOPREFIXROUTE | IFA_F_NODAD)
    for net in present - set(nets):
        rtnl.delete_address(link, net)


def remove(rtnl: Rtnl, name: str, kind: str) -> None:
    """Delete the device, unless it is gone, or another program has a link of this name."""
    link = rtnl.find_link(name)
    if link and _is_own(link, kind):
        rtnl.delete_link(link)


def _is_own(link: Link, kind: str) -> bool:
    return link.kind == kind and link.group >> 16 == GROUP


def check(rtnl: Rtnl, name: str, kind: str, mtu: int) -> "list[str]":
    """Return what is wrong with the device, one line each."""
    link = rtnl.find_link(name)
    if not link:
        return [f"{name}: the device is missing"]
    if not _is_own(link, kind):
        return [f"{name}: the link was not made by cnihook"]
    problems = [] if link.is_up else [f"{name}: the device is down"]
    if link.mtu != mtu:
        problems.append(f"{name}: MTU {link.mtu}, the network has {mtu}")
    return problems + managers.problems(link)
