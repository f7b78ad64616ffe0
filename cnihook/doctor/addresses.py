# SPDX-License-Identifier: Apache-2.0
"""Subnets that are somebody else's, too; ranges that come to their end; leases that nobody has."""

import os
from collections.abc import Iterator
from itertools import combinations

from cnihook.doctor.finding import Finding, Host, Plugin, plugins_of
from cnihook.doctor.traffic import own_links
from cnihook.lean.address import Address, IPNet
from cnihook.linux.rtnl import RT_TABLE_MAIN, RTN_UNICAST
from cnihook.runtime import cache
from cnihook.runtime.networks import Network
from cnihook.sdk import invoke, leases
from cnihook.spec import version as versions
from cnihook.spec.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NEARLY_FULL = 0.9
_SHOWN = 5


def _host_local(plugin: Plugin) -> "Any":
    """Its IPAM part, read by the plugin that it is for; None for another, or one that is malformed."""
    if plugin.ipam != "host-local":
        return None
    try:
        return invoke.load("host-local").Conf(plugin.call())
    except CniError:
        return None


def _subnets(plugin: Plugin) -> set[IPNet]:
    conf = _host_local(plugin)
    if conf:
        return {part.subnet for one in conf.sets for part in one.ranges}
    if plugin.ipam == "static":
        try:
            return {ip.net.network() for ip in invoke.load("static").Conf(plugin.call()).ips}
        except CniError:
            pass
    return set()


def check_overlaps(host: Host) -> Iterator[Finding]:
    """Of networks that the host routes for: on another link, a subnet of its surroundings may be meant."""
    routed = [
        (network, plugin, subnets)
        for network in host.networks
        for plugin in plugins_of(network)[:1]
        if plugin.routes and (subnets := _subnets(plugin))
    ]
    links = {link.index: link for link in host.rtnl.links()}
    for network, plugin, subnets in routed:
        own = own_links(host, plugin)
        for route in host.rtnl.routes():
            link = links.get(route.index)
            if not (route.dst and link) or (route.kind, route.table) != (RTN_UNICAST, RT_TABLE_MAIN):
                continue
            is_to_a_container = link.kind == "veth" and route.dst.prefix == route.dst.address.bits
            is_half = route.dst.prefix == 1  # of all addresses: a VPN has two instead of a default route
            if link.index in own or is_to_a_container or is_half or route.dst.address.is_link_local:
                continue
            for subnet in sorted(subnets, key=str):
                if subnet.overlaps(route.dst):
                    via = f" via {route.gateway}" if route.gateway else ""
                    yield Finding(
                        "subnet-overlap",
                        f"{subnet} of network {network.name} overlaps the host's route to"
                        f" {route.dst}{via} on {link.name}",
                        "who has an address in both is reached on one of them only",
                        f"give network {network.name} another subnet in {network.source}",
                    )
    for (one, _, first), (other, _, second) in combinations(routed, 2):
        both = [(a, b) for a in sorted(first, key=str) for b in sorted(second, key=str) if a.overlaps(b)]
        if both:
            yield Finding(
                "subnet-overlap",
                f"{both[0][0]} of network {one.name} overlaps {both[0][1]} of network {other.name}",
                "two containers may get the same address, and the host finds one of them only",
                f"give one of them another subnet, in {one.source} or {other.source}",
            )


def check_ranges(host: Host) -> Iterator[Finding]:
    for network in host.networks:
        for plugin in plugins_of(network):
            conf = _host_local(plugin)
            if not conf:
                continue
            leased = leases.addresses(conf.folder)
            for one in conf.sets:
                size = sum(part.size() for part in one.ranges)
                taken = sum(one.range_of(address) is not None for address in leased)
                if taken >= _NEARLY_FULL * size:
                    yield Finding(
                        "range-full",
                        f"network {network.name}: {taken} of the {size} addresses of {one} are leased",
                        "who comes when all are will be refused",
                        f"cnihook gc {network.name}; then a larger range in {network.source}",
                    )


def _leases(folder: str) -> "list[tuple[Address, bytes]]":
    """(address, owner) of every lease, without the plugin's lock, which would have to be made."""
    found = []
    for address in leases.addresses(folder):
        try:
            content = leases.read(f"{folder}/{address}")
        except OSError:
            continue  # check_lease_files() names it
        if content is not None:
            found.append((address, content))
    return sorted(found, key=lambda lease: bytes(lease[0]))


def _folders(host: Host) -> "dict[str, Network | None]":
    """The folders with leases, each with its network if that is configured."""
    folders: dict[str, Network | None] = {}
    for network in host.networks:
        for plugin in plugins_of(network):
            if conf := _host_local(plugin):
                folders[conf.folder] = network
    default = invoke.load("host-local").DATA_DIR
    for name in os.listdir(default) if os.path.isdir(default) else ():
        folders.setdefault(f"{default}/{name}", None)
    return folders


def check_leases(host: Host) -> Iterator[Finding]:
    """Leases whose owner is on no record, neither of cnihook nor of libcni."""
    for folder, configured in sorted(_folders(host).items()):
        present = _leases(folder)
        # After the leases, for these are made after their record, and read again, as they go before it.
        owners = set()
        for network_name, container_id, ifname in cache.identities_on_file():
            if network_name == os.path.basename(folder):
                owners |= {leases.owner(container_id, ifname), container_id.encode()}
        stray = [lease for lease in present if lease[1] not in owners]
        stray = [lease for lease in stray if lease in _leases(folder)]
        if not stray:
            continue
        addresses = [str(address) for address, _owner in stray]
        shown = " ".join(addresses[:_SHOWN]) + (" ..." if len(addresses) > _SHOWN else "")
        first = stray[0][1].decode(errors="backslashreplace").replace("\r\n", " ") or "no container"
        name = os.path.basename(folder)
        yield Finding(
            "lease-without-owner",
            f"network {name}: {len(addresses)} {'lease' if len(addresses) == 1 else 'leases'} of"
            f" containers that are on no record: {shown} (the first is of {first})",
            "these addresses are given to nobody else; unless another runtime keeps them, they are lost",
            f"cnihook gc {name}"
            if configured and versions.at_least(configured.version or versions.OLDEST, versions.SINCE["GC"])
            else f"rm {' '.join(f'{folder}/{address}' for address in addresses[:_SHOWN])}",
        )


def check_lease_files(host: Host) -> Iterator[Finding]:
    """Files at the place of an address that are not leases, or cannot be read."""
    for folder in sorted(_folders(host)):
        for address in sorted(leases.addresses(folder), key=bytes):
            path = f"{folder}/{address}"
            try:
                if leases.read(path) is not None or not os.path.lexists(path):
                    continue
                problem = "is not a regular file"
            except OSError as error:
                problem = f"cannot be read: {error.strerror}"
            yield Finding(
                "lease-damaged",
                f"network {os.path.basename(folder)}: {path} {problem}",
                "no container can lease the address, and a DEL that needs the file fails",
                f"rm -r {path}, once no container has the address",
            )
