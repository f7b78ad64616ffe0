# SPDX-License-Identifier: Apache-2.0
"""
The host as the router of containers: forwarding, and the links on which it obeys other routers.

A host may have its own IPv6 addresses and default route from router advertisements.  The kernel obeys these
on a link with accept_ra=1 until forwarding is on; on one with accept_ra=2 always.  So before forwarding is
enabled, the links that obey get accept_ra=2: none of them loses or gains anything.  Links that lead to
containers get 0, because a container may send advertisements.

conf/default/accept_ra stays as it is.  With 2 in it, each later link of any program would obey, such as the
host's ends of another engine's containers.  `cnihook doctor` reports a later uplink that does not.
"""

from cnihook.fast.errors_text import message
from cnihook.links import settings, veth
from cnihook.linux import devconf, sysctl
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.rtnl import IFA_F_PERMANENT, RTPROT_RA, Link, Rtnl
from cnihook.types.errors import INTERNAL, CniError
from cnihook.types.result import IP

FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


def accept_ra(link: Link) -> str:
    """Return the name of the setting."""
    return f"net/ipv6/conf/{link.name}/accept_ra"


def forward(host: Rtnl, ips: "list[IP]") -> None:
    """Enable forwarding on the host for the IP versions of these addresses."""
    for version in sorted({ip.net.address.version for ip in ips}):
        try:
            enable(host, version)
        except OSError as error:
            hint = "without it the host does not route for containers; set it on the host first"
            raise CniError(INTERNAL, message(error), hint) from error


def enable(host: Rtnl, version: int) -> None:
    """Enable forwarding.  Raises CniError if the host would lose routes by it, OSError if a write fails."""
    try:
        if devconf.forwards(host, version):
            return
    except NetlinkError:
        if version == 6:  # a kernel without IPv6
            return
    for link in obeying(host) if version == 6 else ():
        try:
            sysctl.write(accept_ra(link), 2)
        except OSError as error:
            raise CniError(
                INTERNAL,
                f"enable IPv6 forwarding: {message(error)}",
                f"without it {link.name} would ignore router advertisements, and the host would lose the "
                f"routes that it has from them; on the host: `sysctl -w {sysctl.dotted(accept_ra(link))}=2 "
                f"{sysctl.dotted(FORWARDING[version])}=1`",
            ) from error
    sysctl.write(FORWARDING[version], 1)


def obeying(host: Rtnl) -> "list[Link]":
    """Return the links on which router advertisements count only until forwarding is on.

    A port of a bridge or bond gets none: the bridge or bond receives them.  A port of a VRF does get them.
    Of the links that cnihook made, only a bridge can lead to a router.
    """
    links = {link.index: link for link in host.links()}
    return [
        link
        for link in links.values()
        if link.accept_ra == 1
        and not link.forwards_ipv6
        and (link.master not in links or links[link.master].kind == "vrf")
        and link.name != "lo"
        and not (veth.is_own(link) and not (link.kind == "bridge" and has_uplink(host, link, link)))
    ]


def ignore_advertisements(host: Rtnl, link: Link, bridge: "Link | None" = None) -> None:
    """Make the host ignore router advertisements that arrive on a link to containers.

    `link` may be `bridge`, or be on top of it.  If the host needs those of an outer router, the link keeps
    its setting, and `cnihook doctor` reports it.
    """
    if link.accept_ra and not (bridge and has_uplink(host, link, bridge)):
        settings.prefer(accept_ra(link), 0)


def has_uplink(host: Rtnl, link: Link, bridge: Link) -> bool:
    """Return True if a port of the bridge leads to a router that the host may depend on.

    That is a port that cannot be a container's, such as a network card or a VLAN.  It is also a port of
    another program, if `link` has a default route, or if the host has learned anything from advertisements
    there.  Without such a port, the host learned it from a container.
    """
    has_others = False
    for port in host.each_port(bridge):
        if not veth.is_own(port):
            if port.kind not in ("veth", "tun"):
                return True
            has_others = True
    if not has_others:
        return False
    from cnihook.linux import route_lookup  # few bridges have ports of other programs

    routes = route_lookup.routes(host)
    return any(route.dst is None and route.index == link.index for route in routes) or learned(host, link)


def learned(host: Rtnl, link: Link) -> bool:
    """Return True if the host has IPv6 routes or addresses from router advertisements on the link."""
    from cnihook.linux import route_lookup  # as above

    routes = route_lookup.routes(host, 6)
    if any(route.index == link.index and route.protocol == RTPROT_RA for route in routes):
        return True
    return any(
        one.net.address.version == 6 and not (one.flags & IFA_F_PERMANENT or one.net.address.is_link_local)
        for one in host.addresses(link)
    )
