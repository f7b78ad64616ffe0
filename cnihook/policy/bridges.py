# SPDX-License-Identifier: Apache-2.0
"""
Bridges that have a container with a policy: the host answers for all addresses on them.

    net/ipv4/conf/BRIDGE/proxy_arp_pvlan, net/ipv6/conf/BRIDGE/proxy_ndp   on
    net/ipv4/neigh/BRIDGE/proxy_delay and that of IPv6                     0: an answer at once
    net/ipv4/conf/BRIDGE/send_redirects, net/ipv4/conf/all/send_redirects  off
    a proxy entry for each IPv6 address; IPv4 needs none

When that begins or ends, the containers on the bridge forget the MAC addresses of their neighbours.  Without
that, a connection would stop for up to 30 seconds.
"""

import os

from cnihook.fast import statefile
from cnihook.links import veth
from cnihook.linux import nft, nft_objects, proxy, sysctl
from cnihook.linux.netns import NetNS
from cnihook.policy import guard
from cnihook.policy.desired import Desired, changes
from cnihook.policy.guard import BRIDGE_FAMILY, BRIDGE_TABLE
from cnihook.types.errors import INVALID_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cnihook.linux.rtnl import Link, Rtnl
    from cnihook.policy.desired import Elements
    from cnihook.policy.endpoint import Endpoint

_ON = {
    "net/ipv4/conf/{}/proxy_arp_pvlan": 1,
    "net/ipv4/neigh/{}/proxy_delay": 0,
    "net/ipv4/conf/{}/send_redirects": 0,
    # One of the two is enough for redirects.  The kernel counts them against its limit of ICMP errors, so a
    # denied connection would get no error.
    "net/ipv4/conf/all/send_redirects": 0,
    "net/ipv6/conf/{}/proxy_ndp": 1,
    "net/ipv6/neigh/{}/proxy_delay": 0,
}
_OFF = {"net/ipv4/conf/{}/proxy_arp_pvlan": 0, "net/ipv6/conf/{}/proxy_ndp": 0}


def marked(folder: str) -> "set[str]":
    """Return the bridges whose ports are guarded."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return set()
    return {name.removeprefix("bridge-") for name in names if name.startswith("bridge-")}


def check(desired: Desired) -> None:
    """Raise CniError if a bridge leads to something else than containers of cnihook."""
    host = NetNS.current()
    try:
        for name in desired.bridges:
            if link := host.rtnl.find_link(name):
                _refuse_other_ports(host.rtnl, link)
    finally:
        host.close()


def sync(desired: Desired, before: "set[str]", folder: str) -> None:
    """Guard the ports of the bridges that need it, and no others."""
    host = NetNS.current()
    try:
        rtnl = host.rtnl
        links = {name: rtnl.find_link(name) for name in desired.bridges | before}
        endpoints = [one for one in desired.guarded() if one.bridge]
        for name in desired.bridges:
            if link := links[name]:
                turn_on(rtnl, link)
                for endpoint in endpoints:
                    if endpoint.bridge == name:
                        answer_for(rtnl, link, endpoint)
        # No frame is lost: first only the host answers, then the containers ask again, and at last what goes
        # to a neighbour directly is dropped.
        new = desired.bridges - before
        if new:
            _sync_table(desired, new)
            for name in new:
                _forget_neighbours(links[name], desired.endpoints)
        _sync_table(desired)
        for name in new:
            if links[name]:
                os.close(statefile.create(f"{folder}/bridge-{name}"))
        for name in before - desired.bridges:
            if link := links[name]:
                _turn_off(rtnl, link, [one for one in desired.endpoints if one.bridge == name])
            _forget_neighbours(links[name], desired.endpoints)
            os.unlink(f"{folder}/bridge-{name}")
    finally:
        host.close()


def other_ports(folder: str) -> "list[tuple[str, str]]":
    """Return (bridge, port) of each port of a guarded bridge that is not of a container of cnihook.

    A start does not look for them, because that would take as long as there are ports.
    """
    host = NetNS.current()
    try:
        links = filter(None, map(host.rtnl.find_link, sorted(marked(folder))))
        return [(one.name, port.name) for one in links for port in _other_ports(host.rtnl, one)]
    finally:
        host.close()


def _other_ports(rtnl: "Rtnl", bridge: "Link") -> "list[Link]":
    return [port for port in rtnl.links(bridge.index) if not veth.is_own(port)]


def _refuse_other_ports(rtnl: "Rtnl", bridge: "Link") -> None:
    # The host would answer for the addresses of that network, too.
    for port in _other_ports(rtnl, bridge):
        raise CniError(
            INVALID_CONFIG,
            f"bridge {bridge.name}: a policy cannot be enforced: its port {port.name} is not of a "
            "container of cnihook",
            "use another bridge for containers with policies",
        )


def turn_on(rtnl: "Rtnl", bridge: "Link") -> None:
    for name, value in _ON.items():
        sysctl.write_if_present(name.format(bridge.name), value)


def _turn_off(rtnl: "Rtnl", bridge: "Link", endpoints: "Iterable[Endpoint]") -> None:
    for name, value in _OFF.items():
        sysctl.write_if_present(name.format(bridge.name), value)
    for endpoint in endpoints:
        stop_answering(rtnl, bridge, endpoint)


def answer_for(rtnl: "Rtnl", bridge: "Link", endpoint: "Endpoint") -> None:
    for address in endpoint.addresses:
        if address.version == 6:
            proxy.add_entry(rtnl, bridge, address)


def stop_answering(rtnl: "Rtnl", bridge: "Link", endpoint: "Endpoint") -> None:
    for address in endpoint.addresses:
        if address.version == 6:
            proxy.delete_entry(rtnl, bridge, address)


def _forget_neighbours(bridge: "Link | None", endpoints: "Iterable[Endpoint]") -> None:
    if not bridge:
        return
    for endpoint in endpoints:
        if endpoint.bridge == bridge.name and endpoint.netns and (space := NetNS.find(endpoint.netns)):
            try:
                link = space.rtnl.find_link(endpoint.ifname)
                if link:
                    proxy.forget_neighbours(space.rtnl, link)
            finally:
                space.close()


# The table


def _sync_table(desired: Desired, joining: "Collection[str]" = ()) -> None:
    """Guard the ports; on bridges that are `joining`, only the host answers from now on."""
    elements: Elements = {}
    for endpoint in desired.guarded():
        if endpoint.bridge in joining:
            elements["joining", nft_objects.interface(endpoint.port)] = endpoint.owner, ""
        elif endpoint.bridge:
            elements |= {key: (endpoint.owner, "") for key in guard.bridge_elements(endpoint)}
    if not elements and desired.kept == set():
        remove_table()
        return
    messages = [] if _is_whole() else [*guard.bridge_base()]
    present = {
        (name, key): (owner, "")
        for name in guard.BRIDGE_SETS
        for key, owner in nft.elements(BRIDGE_FAMILY, BRIDGE_TABLE, name)
    }
    messages += changes(BRIDGE_TABLE, elements, present, desired)
    if messages:
        nft.change(BRIDGE_FAMILY, messages, "guard the ports of bridges")


def _is_whole() -> bool:
    return all(
        len(nft.rules(BRIDGE_FAMILY, BRIDGE_TABLE, name)) == len(content)
        for name, content in guard.bridge_chains().items()
    )


def has(endpoint: "Endpoint") -> bool:
    """Return True if a container's port is guarded."""
    return is_ready() and all(
        nft.comment_of(BRIDGE_FAMILY, BRIDGE_TABLE, name, key) == endpoint.owner
        for name, key in guard.bridge_elements(endpoint)
    )


def is_ready() -> bool:
    """Return True if the table has all of its chains, by their use counts."""
    present = nft.chains(BRIDGE_FAMILY, BRIDGE_TABLE)
    return all(present.get(name, -1) >= len(content) for name, content in guard.bridge_chains().items())


def remove_table() -> None:
    if nft.chains(BRIDGE_FAMILY, BRIDGE_TABLE):
        nft.change(BRIDGE_FAMILY, [nft_objects.delete_table(BRIDGE_TABLE)], "remove the guards of bridges")


def remove_all(folder: str, endpoints: "Iterable[Endpoint]" = ()) -> None:
    """Remove all guards.  `endpoints`: the containers that stay, so that they reach each other directly."""
    remove_table()
    host = NetNS.current()
    try:
        for name in marked(folder):
            if bridge := host.rtnl.find_link(name):
                own = [one for one in endpoints if one.bridge == name]
                _turn_off(host.rtnl, bridge, own)
                _forget_neighbours(bridge, own)
    finally:
        host.close()
