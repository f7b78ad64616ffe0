# SPDX-License-Identifier: Apache-2.0
"""Checks of router advertisements: links that must obey them and do not, and links of containers that do."""

import os
from collections.abc import Iterator
from functools import partial

from cnihook.doctor.finding import Finding, Host, has_version, plugins_of
from cnihook.links import router, veth
from cnihook.links.router import accept_ra
from cnihook.linux import route_lookup, sysctl, sysfs
from cnihook.linux.rtnl import Link


def check(host: Host) -> Iterator[Finding]:
    links = {link.index: link for link in host.rtnl.links()}
    leading = _to_containers(host, links)
    forwards = _read(router.FORWARDING[6]) == "1"
    for link in links.values():
        if link.accept_ra == 0:
            continue
        if link.index in leading:
            yield from _obeyed_from_containers(host, link, links)
        elif forwards and link.accept_ra == 1:
            yield from _ignored(host, link, links)
    if not forwards:
        yield from _soon_ignored(host)


def _to_containers(host: Host, links: "dict[int, Link]") -> "set[int]":
    """Return the links by which containers reach the host: bridges, gateways of VLANs, links of ptp."""
    masters = {link.master for link in links.values() if veth.is_own(link)}
    bridges = {one.bridge for network in host.networks for one in plugins_of(network) if one.bridge}
    return {
        link.index
        for link in links.values()
        if (link.name in bridges and link.index in masters)
        or link.name.rpartition(".")[0] in bridges
        or (veth.is_own(link) and not _is_port(link, links))
    }


def _obeyed_from_containers(host: Host, link: Link, links: "dict[int, Link]") -> Iterator[Finding]:
    if link.accept_ra == 1 and link.forwards_ipv6:
        return  # the kernel ignores them
    setting = sysctl.dotted(accept_ra(link))
    what = f"{setting} is {link.accept_ra}"
    why = "a container on it can give the host an address and a default route by a router advertisement"
    bridge = link if link.kind == "bridge" else links.get(link.peer_index, link)
    if bridge.kind == "bridge" and router.has_uplink(host.rtnl, link, bridge):
        remedy = (
            f"move the containers to a bridge without an uplink; or static IPv6 routes on {link.name}, "
            f"and: sysctl -w {setting}=0"
        )
        yield Finding("advertisements-obeyed", f"{what}, because {link.name} has an uplink", why, remedy)
        return
    fix = partial(sysctl.write, accept_ra(link), 0)
    yield Finding("advertisements-obeyed", what, why, f"sysctl -w {setting}=0", fix=fix)


def _ignored(host: Host, link: Link, links: "dict[int, Link]") -> Iterator[Finding]:
    """Find a link that another program brought up, or set to 1, after forwarding was enabled."""
    setting = sysctl.dotted(accept_ra(link))
    if router.learned(host.rtnl, link):
        yield Finding(
            "advertisements-ignored",
            f"the host has IPv6 addresses or routes from router advertisements on {link.name}, and ignores "
            f"further ones: IPv6 forwarding is on and {setting} is 1",
            "when their lifetimes end, the host loses them and its IPv6 connections",
            f"sysctl -w {setting}=2, and the same in /etc/sysctl.d",
            fix=partial(sysctl.write, accept_ra(link), 2),
        )
    elif _is_card(link, links) and link.is_up and not _has_default_route(host):
        yield Finding(
            "advertisements-ignored",
            f"{link.name} ignores router advertisements: IPv6 forwarding is on and {setting} is 1",
            "the host has no IPv6 default route; if a router here announces one, the host does not get it",
            f"sysctl -w {setting}=2, and the same in /etc/sysctl.d",
            note=True,
        )


def _soon_ignored(host: Host) -> Iterator[Finding]:
    """Report a setting that the first IPv6 container will change; it is a fault if it cannot be changed."""
    names = [
        network.name
        for network in host.networks
        if has_version(network, 6) and any(plugin.routes for plugin in plugins_of(network))
    ]
    for link in router.obeying(host.rtnl) if names else ():
        if not router.learned(host.rtnl, link):
            continue
        setting = sysctl.dotted(accept_ra(link))
        can_change = os.access(f"/proc/sys/{accept_ra(link)}", os.W_OK)
        yield Finding(
            "advertisements-needed",
            f"the host has its IPv6 routes from router advertisements on {link.name}, "
            f"and the first container on {', '.join(names)} enables IPv6 forwarding",
            f"{setting} is set to 2 with it, so the routes stay"
            if can_change
            else f"{setting} cannot be set to 2, so no container gets this network",
            f"sysctl -w {setting}=2, and the same in /etc/sysctl.d",
            note=can_change,
        )


def _has_default_route(host: Host) -> bool:
    return any(route.dst is None for route in route_lookup.routes(host.rtnl, 6))


def _is_card(link: Link, links: "dict[int, Link]") -> bool:
    return not _is_port(link, links) and bool(sysfs.device_of(link.name))


def _is_port(link: Link, links: "dict[int, Link]") -> bool:
    master = links.get(link.master)
    return master is not None and master.kind != "vrf"


def _read(name: str) -> str:
    try:
        return sysctl.read(name)
    except OSError:
        return ""
