# SPDX-License-Identifier: Apache-2.0
"""The use of host-local's ranges, counted in its files, for the commands that show it."""

from collections.abc import Iterator

from cnihook.fast.address import Address, IPNet
from cnihook.ipam import leases
from cnihook.runtime.networks import Network
from cnihook.types.config import NetConf
from cnihook.types.errors import CniError

_DATA_DIR = "/var/lib/cni/networks"


class Range:
    """Addresses that can be leased: all from `first` to `last`, except the gateway."""

    def __init__(self, subnet: IPNet, first: Address, last: Address, gateway: Address) -> None:
        self.subnet = subnet
        self.first = first
        self.last = last
        inside = first <= gateway <= last
        self.size = int.from_bytes(last, "big") - int.from_bytes(first, "big") + 1 - inside
        self.leased = 0

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def of_network(network: Network) -> "list[Range]":
    """Return the ranges.  Empty if another plugin assigns addresses, or the configuration is invalid."""
    ranges: list[Range] = []
    for plugin in network.plugins:
        try:
            ipam = NetConf(plugin).object("ipam")
            if ipam.string("type") != "host-local":
                continue
            own = list(_ranges(ipam))
            folder = f"{ipam.string('dataDir') or _DATA_DIR}/{network.name}"
        except (CniError, ValueError, OverflowError):
            continue
        for address in leases.addresses(folder):
            for one in own:
                one.leased += len(address) == len(one.first) and one.first <= address <= one.last
        ranges += own
    return ranges


def _ranges(ipam: NetConf) -> "Iterator[Range]":
    sets = ipam.raw.get("ranges")
    listed = (
        [each for one in sets if isinstance(one, list) for each in one] if isinstance(sets, list) else []
    )
    for conf in [ipam, *(NetConf(each) for each in listed if isinstance(each, dict))]:
        subnet = conf.network("subnet")
        if not subnet:
            continue
        last = subnet.last() + (-1 if subnet.address.version == 4 else 0)
        yield Range(
            subnet,
            conf.address("rangeStart") or subnet.first() + 1,
            conf.address("rangeEnd") or last,
            conf.address("gateway") or subnet.first() + 1,
        )
