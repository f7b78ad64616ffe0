# SPDX-License-Identifier: Apache-2.0
"""
What all transports do: the routes to the blocks of the other hosts, and the route of the own block.

`none` does only that for the own block.  Another program, such as FRR, brings the blocks to each other.
"""

from _blake2 import blake2s

from cnihook.cluster import kernel
from cnihook.cluster.kernel import Changes, Plan, TransportError
from cnihook.cluster.transport.events import watch
from cnihook.fast.address import Address, IPNet
from cnihook.linux import route_lookup
from cnihook.linux.nexthops import Nexthop, Route
from cnihook.linux.rtnl import Link, Rtnl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from cnihook.cluster.model import Block, Settings

# The IDs of nexthop objects: 1, ten bits for the network, twenty for the block, one for the IP version.
_FIRST_ID, _NETWORKS, _BLOCKS = 1 << 31, 10, 20
# The route of the own block is behind that of the bridge, and of any other program.
_LAST_METRIC = 1 << 30
_IPV6_METRIC = 1024  # the kernel's own choice for a route without one
_IFNAMSIZ = 15


class Transport:
    """The transport of one network.  This class is `none`: another program connects the blocks."""

    overhead = (0, 0)  # bytes that it adds to a packet, between IPv4 addresses and between IPv6 addresses
    prefix = ""  # of the name of its device; empty: it has none

    def __init__(self, settings: "Settings", network: str, folder: str) -> None:
        self.settings = settings
        self.network = network
        self.folder = folder  # of this host's files of the network
        self.subnets = kernel.packed(settings.subnets)
        slot = int.from_bytes(blake2s(network.encode(), digest_size=2).digest(), "big") >> 16 - _NETWORKS
        first = _FIRST_ID | slot << _BLOCKS + 1
        self.ids = range(first, first + (1 << _BLOCKS + 1))
        self.device = _device_name(self.prefix, network) if self.prefix else ""
        self.own_address: Address | None = None  # since the first pass with an own block

    def credentials(self) -> "dict[str, Any]":
        """Return what the other hosts need to know of this one: keys of Member."""
        return {}

    def program(self, own: "Block | None", others: "Iterable[Block]", *, may_delete: bool) -> Changes:
        """Make the kernel as these blocks need it.  May be repeated at any time.

        Raises OSError or TransportError.  The caller repeats it then, after a while.
        """
        if own:
            self.own_address = Address.parse(own.member.address)
        rtnl = Rtnl()
        try:
            plan = Plan(self.ids, self.subnets)
            self.prepare(rtnl, plan, own)
            if own:
                for net in self.blocks(own):
                    plan.routes[net] = Route(net, 0, _LAST_METRIC)
            problems = []
            for block in others:
                try:
                    self.plan_block(plan, block)
                except TransportError as error:
                    problems.append(str(error))
            watch(self.network, {plan.device, *(hop.index for hop in plan.hops.values())})
            changes = self.change(rtnl, plan, may_delete=may_delete)
            if problems:
                raise TransportError("; ".join(problems[:3]))
            return changes
        finally:
            rtnl.close()

    def change(self, rtnl: Rtnl, plan: Plan, *, may_delete: bool) -> Changes:
        return kernel.program(rtnl, plan, may_delete=may_delete)

    def prepare(self, rtnl: Rtnl, plan: Plan, own: "Block | None") -> None:
        """Make the device, if the transport has one, and complete the plan by what is the same for all."""

    def plan_block(self, plan: Plan, block: "Block") -> None:
        """Add to the plan what leads to a block.  Raises TransportError if this host cannot reach it."""

    def check(self) -> "list[str]":
        """Return what is wrong now, one line each."""
        return []

    def remove(self) -> None:
        """Remove all that the network has in the kernel of this host."""
        rtnl = Rtnl()
        try:
            kernel.program(rtnl, Plan(self.ids, self.subnets), may_delete=True)
        finally:
            rtnl.close()

    # For the transports

    def blocks(self, block: "Block") -> "list[IPNet]":
        return kernel.packed(self.settings.block(block.index))

    def hop_id(self, block: "Block", version: int) -> int:
        return self.ids.start + (block.index << 1 | (version == 6))

    def add_route(self, plan: Plan, net: IPNet, hop: Nexthop) -> None:
        plan.hops[hop.id] = hop
        plan.routes[net] = Route(net, hop.id, _IPV6_METRIC if net.address.version == 6 else 0)

    def mtu_problems(self, rtnl: Rtnl, peers: "Iterable[Address]") -> "list[str]":
        """Return a line for each link to other hosts whose MTU is too small for the containers' packets."""
        links: dict[int, tuple[Link, int]] = {}
        for peer in peers:
            link = route_lookup.link_towards(rtnl, peer)
            if link:
                links[link.index] = (link, self.overhead[peer.version == 6])
        return [
            f"{link.name}: MTU {link.mtu} is too small: network {self.network} has {self.settings.mtu}, and "
            f"{self.settings.transport} adds {overhead}"
            for link, overhead in links.values()
            if link.mtu < self.settings.mtu + overhead
        ]


def _device_name(prefix: str, network: str) -> str:
    """Return vx-wide for network wide; a network with a longer name has a hash of it."""
    name = f"{prefix}-{network}"
    if len(name) <= _IFNAMSIZ:
        return name
    return f"{prefix}-{blake2s(network.encode(), digest_size=6).hexdigest()}"
