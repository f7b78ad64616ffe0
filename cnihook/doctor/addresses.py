# SPDX-License-Identifier: Apache-2.0
"""Checks of subnets that overlap, of ranges that are almost full, and of leases without an owner."""

import os
from collections.abc import Iterator
from itertools import combinations

from cnihook.doctor.finding import Finding, Host, Plugin, plugins_of
from cnihook.doctor.reachability import own_links
from cnihook.fast.address import Address, IPNet
from cnihook.ipam import leases, sticky
from cnihook.linux import route_lookup
from cnihook.linux.rtnl import RT_TABLE_MAIN, RTN_UNICAST
from cnihook.protocol import invoke
from cnihook.runtime import records
from cnihook.runtime.networks import Network
from cnihook.types import versions
from cnihook.types.errors import CniError

_NEARLY_FULL = 0.9
_SHOWN = 5


def subnets_of(plugin: Plugin) -> set[IPNet]:
    """Return the subnets that a plugin's IPAM plugin leases from; none for one that is not built in."""
    if not (plugin.ipam and invoke.is_built_in(plugin.ipam)):
        return set()
    subnets = getattr(invoke.load(plugin.ipam), "subnets", None)
    try:
        return subnets(plugin.call()) if subnets else set()
    except CniError:
        return set()


def check_overlaps(host: Host) -> Iterator[Finding]:
    """Find subnets that overlap a route of the host or another subnet.

    Only networks that the host routes are checked: any other network may share the subnet of its parent link
    on purpose.
    """
    routed = [
        (network, plugin, subnets)
        for network in host.networks
        for plugin in plugins_of(network)[:1]
        if plugin.routes and (subnets := subnets_of(plugin))
    ]
    links = {link.index: link for link in host.rtnl.links()}
    for network, plugin, subnets in routed:
        own = own_links(host, plugin)
        for route in route_lookup.routes(host.rtnl):
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
                        "an address in both of them is reached in only one",
                        f"give network {network.name} another subnet in {network.source}",
                    )
    for (one, _, first), (other, _, second) in combinations(routed, 2):
        both = [(a, b) for a in sorted(first, key=str) for b in sorted(second, key=str) if a.overlaps(b)]
        if both:
            yield Finding(
                "subnet-overlap",
                f"{both[0][0]} of network {one.name} overlaps {both[0][1]} of network {other.name}",
                "two containers may get the same address, and the host reaches only one of them",
                f"give one of them another subnet, in {one.source} or {other.source}",
            )


def check_ranges(host: Host) -> Iterator[Finding]:
    for network in host.networks:
        for plugin in plugins_of(network):
            conf = plugin.with_leases()
            if not conf:
                continue
            leased = leases.addresses(conf.folder)
            for one in conf.sets:
                size = sum(part.size() for part in one.ranges)
                used = sum(one.range_of(address) is not None for address in leased)
                if used >= _NEARLY_FULL * size:
                    yield Finding(
                        "range-full",
                        f"network {network.name}: {used} of the {size} addresses of {one} are leased",
                        "when all are leased, no further container can start",
                        f"cnihook gc {network.name}; then a larger range in {network.source}",
                    )


def _leases(folder: str) -> "list[tuple[Address, bytes]]":
    """Return (address, owner) of every lease.

    The plugin's lock is not taken, because that would create the lock's file.
    """
    owners = []
    for address in leases.addresses(folder):
        try:
            content = leases.read(f"{folder}/{address}")
        except OSError:
            continue  # check_lease_files() reports it
        if content is not None:
            owners.append((address, content))
    return sorted(owners, key=lambda lease: bytes(lease[0]))


def _folders(host: Host) -> "dict[str, Network | None]":
    """Return the folders with leases, each with its network if that is configured."""
    folders: dict[str, Network | None] = {}
    for network in host.networks:
        for plugin in plugins_of(network):
            if conf := plugin.with_leases():
                folders[conf.folder] = network
    for name in os.listdir(leases.FOLDER) if os.path.isdir(leases.FOLDER) else ():
        folders.setdefault(f"{leases.FOLDER}/{name}", None)
    return folders


def check_leases(host: Host) -> Iterator[Finding]:
    """Find leases whose owner is not on record, either of cnihook or of libcni."""
    for folder, configured in sorted(_folders(host).items()):
        present = _leases(folder)
        # The records are read after the leases: a lease is made after its record.  It is removed before its
        # record, so the leases are then read again.
        owners = sticky.owners()
        for network_name, container_id, ifname in records.identities_on_file():
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
            f" containers that are not on record: {shown} (the first is of {first})",
            "no other container can get these addresses; they are lost unless another runtime uses them",
            f"cnihook gc {name}"
            if configured and versions.at_least(configured.version or versions.OLDEST, versions.SINCE["GC"])
            else f"rm {' '.join(f'{folder}/{address}' for address in addresses[:_SHOWN])}",
        )


def check_lease_files(host: Host) -> Iterator[Finding]:
    """Find files with the name of an address that are not leases, or cannot be read."""
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
