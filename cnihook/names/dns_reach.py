# SPDX-License-Identifier: Apache-2.0
"""The routes to name servers, as the kernel has them: an executable plugin need not list its routes."""

from collections.abc import Iterable

from cnihook.fast.address import Address
from cnihook.linux import route_lookup
from cnihook.linux.netns import NetNS


def addresses(servers: "Iterable[str]") -> "list[Address]":
    """Return the addresses of the servers that resolv.conf names by a valid one."""
    valid = []
    for server in servers:
        try:
            valid.append(Address.parse(server.partition("%")[0]))
        except ValueError:
            continue
    return valid


def has_route(servers: "Iterable[str]", namespace: NetNS) -> bool:
    """Return True if the namespace has a route to one of the servers that are not on the loopback."""
    return any(
        not each.is_loopback and route_lookup.link_towards(namespace.rtnl, each)
        for each in addresses(servers)
    )
