# SPDX-License-Identifier: Apache-2.0
"""The use of ranges of addresses, counted in the files of their leases, for the commands that show it."""

from cnihook.doctor.finding import plugins_of
from cnihook.ipam import leases
from cnihook.runtime.networks import Network


class Usage:
    """A range of addresses that can be leased, its size without the gateway, and how many are leased."""

    def __init__(self, subnet: str, name: str, size: int, leased: int) -> None:
        self.subnet = subnet
        self.name = name
        self.size = size
        self.leased = leased


def of_network(network: Network) -> "list[Usage]":
    """Return the ranges.  Empty if no plugin leases addresses, or the configuration is invalid."""
    usages = []
    for plugin in plugins_of(network):
        conf = plugin.with_leases()
        if not conf:
            continue
        addresses = leases.addresses(conf.folder)
        for part in (part for one in conf.sets for part in one.ranges):
            leased = sum(address in part for address in addresses)
            usages.append(Usage(str(part.subnet), str(part), part.size(), leased))
    return usages
