# SPDX-License-Identifier: Apache-2.0
"""The subnets that are in use on this host, and the choice of one that is free."""

import os
from collections.abc import Iterable, Iterator

from cnihook.cli.networks import engines
from cnihook.doctor.addresses import subnets_of
from cnihook.doctor.finding import Host, plugins_of
from cnihook.fast.address import Address, IPNet
from cnihook.linux import route_lookup, rules
from cnihook.linux.rtnl import RT_TABLE_MAIN, RTN_LOCAL, RTN_UNICAST, Rtnl
from cnihook.runtime.networks import DEFAULT_FOLDER
from cnihook.runtime.settings import Settings
from cnihook.types.errors import INVALID_CONFIG, CniError

# Others choose elsewhere: docker from 172.17.0.0/16 on, podman from 10.88.0.0/16 on, nerdctl from
# 10.4.0.0/24 on, and Kubernetes usually 10.42, 10.43, 10.96 and 10.244.
_POOLS = ("10.22.0.0/15", "10.24.0.0/13", "10.160.0.0/11", "192.168.192.0/18")
_PREFIX = {4: 24, 6: 64}
_TABLES = (RT_TABLE_MAIN, 253, 255)  # main, default, local: the kernel's own rules look there
_TRIES = 16


class Use:
    """A subnet that is in use, and by what."""

    __slots__ = ("net", "what")

    def __init__(self, net: IPNet, what: str) -> None:
        self.net = net.network()
        self.what = what


def in_use(settings: Settings, rtnl: Rtnl, parent: str = "") -> "list[Use]":
    """Return the subnets in use: by the host's addresses and routes, by networks of CNI, by those of podman.

    `parent`: the link whose own subnets do not count, because the containers are to be on its network.
    """
    folders = dict.fromkeys((settings.conf_dir, DEFAULT_FOLDER))
    uses = [*_of_addresses(rtnl, parent), *_of_routes(rtnl, parent)]
    for folder in folders:
        uses += _of_networks(Settings(folder, settings.plugin_dirs))
    uses += (Use(net, f"{name} of podman") for name, net in engines.podman_subnets())
    return uses


def _of_addresses(rtnl: Rtnl, parent: str) -> "Iterator[Use]":
    links = {link.index: link for link in rtnl.links()}
    for address in rtnl.addresses():
        link = links.get(address.index)
        own = address.net.address
        if link and link.name != parent and not (own.is_loopback or own.is_link_local):
            yield Use(address.net, f"address {address.net} of {link.name}")


def _of_routes(rtnl: Rtnl, parent: str) -> "Iterator[Use]":
    """Yield the destinations of the routes in each table that a rule of the host names.

    Two halves of all addresses are a VPN's default route.  A table without a rule, such as that of a VRF,
    has no effect on what the host sends to a container.
    """
    links = {link.index: link.name for link in rtnl.links()}
    tables = {*_TABLES, *(rule.table for rule in rules.listed(rtnl))}
    for route in route_lookup.routes(rtnl):
        dst = route.dst
        if (
            not dst
            or dst.prefix < 2
            or route.kind not in (RTN_UNICAST, RTN_LOCAL)
            or route.table not in tables
        ):
            continue
        link = links.get(route.index, "")
        if dst.address.is_loopback or dst.address.is_link_local or (parent and link == parent):
            continue
        on = f" on {link}" if link else ""
        yield Use(dst, f"the host's route to {dst}{on}")


def _of_networks(settings: Settings) -> "Iterator[Use]":
    for network in Host(settings).networks:
        for plugin in plugins_of(network):
            for net in subnets_of(plugin):
                yield Use(net, f"network {network.name}, {network.source}")


def refuse_overlap(wanted: IPNet, uses: "Iterable[Use]") -> None:
    for use in uses:
        if use.net.overlaps(wanted):
            raise CniError(
                INVALID_CONFIG,
                f"subnet {wanted} overlaps {use.what}",
                "choose another --subnet, or leave it out to get a free one",
            )


def free(version: int, uses: "Iterable[Use]") -> IPNet:
    """Return a subnet that overlaps none of `uses`.  Raises CniError if there is none."""
    own = [use.net for use in uses if use.net.address.version == version]
    if version == 6:
        # RFC 4193: a random prefix, so that networks of several hosts can be joined later.
        for _ in range(_TRIES):
            prefix = IPNet(Address(b"\xfd" + os.urandom(5) + bytes(10)), _PREFIX[6])
            if not any(net.overlaps(prefix) for net in own):
                return prefix
    else:
        own += engines.docker_pools()
        intervals = [(_number(net.first()), _number(net.last())) for net in own]
        for pool in map(IPNet.parse, _POOLS):
            start = _free_in(_number(pool.first()), _number(pool.last()), intervals)
            if start is not None:
                return IPNet(Address(start.to_bytes(4, "big")), _PREFIX[4])
    raise CniError(
        INVALID_CONFIG,
        f"all subnets of {', '.join(_POOLS) if version == 4 else 'fd00::/8'} are in use",
        "choose one with --subnet",
    )


def _free_in(start: int, end: int, intervals: "list[tuple[int, int]]") -> "int | None":
    """Return the first free place between two addresses; each step leaves a subnet in use behind."""
    size = 1 << 32 - _PREFIX[4]
    while start + size - 1 <= end:
        last = max((high for low, high in intervals if low < start + size and high >= start), default=None)
        if last is None:
            return start
        start = (last // size + 1) * size
    return None


def _number(address: Address) -> int:
    return int.from_bytes(address, "big")


def parse(text: str) -> IPNet:
    """Return a subnet in CIDR notation.  Raises CniError, also for one with host bits."""
    try:
        net = IPNet.parse(text)
    except ValueError as error:
        raise CniError(INVALID_CONFIG, f"subnet {error}", "an example is 10.22.0.0/24") from None
    if net.first() != net.address:
        raise CniError(INVALID_CONFIG, f"subnet {net} has host bits", f"write {net.network()}")
    if net.prefix > net.address.bits - 2:
        raise CniError(INVALID_CONFIG, f"subnet {net} is too small: it has no address for a container")
    return net
