# SPDX-License-Identifier: Apache-2.0
"""
Plain routes: each block by its host, which must be on a link of this host.  Nothing is encapsulated.

    nexthop 2147500046 via 172.16.0.3 dev eth0 onlink
    route 10.60.7.0/24 nhid 2147500046
"""

from cnihook.cluster import guard
from cnihook.cluster.kernel import PROTOCOL, Changes, Plan, TransportError
from cnihook.cluster.transport import managers
from cnihook.cluster.transport.base import Transport
from cnihook.fast.address import Address, IPNet
from cnihook.linux import nexthops
from cnihook.linux.nexthops import Nexthop
from cnihook.linux.rtnl import Rtnl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnihook.cluster.model import Block, Settings


class Routes(Transport):
    """A network whose hosts are on one link."""

    def __init__(self, settings: "Settings", network: str, folder: str) -> None:
        super().__init__(settings, network, folder)
        self._links: list[tuple[IPNet, int]] = []

    def program(self, own: "Block | None", others: "Iterable[Block]", *, may_delete: bool) -> Changes:
        for subnet in self.subnets:
            guard.accept_forwarded(self.network, subnet, [subnet])
        return super().program(own, others, may_delete=may_delete)

    def prepare(self, rtnl: Rtnl, plan: Plan, own: "Block | None") -> None:
        nets = [(each.net, each.index) for each in rtnl.addresses() if not each.net.address.is_loopback]
        # The link of the own address comes first, and then the smallest subnet.
        self._links = sorted(nets, key=lambda each: (each[0].address != self.own_address, -each[0].prefix))

    def plan_block(self, plan: Plan, block: "Block") -> None:
        member = block.member
        peer = Address.parse(member.address)
        index = next((index for net, index in self._links if peer in net), 0)
        if not index:
            raise TransportError(
                f"{member.name}: {peer} is not on a link of this host, as the transport routes requires"
            )
        for net in self.blocks(block):
            if net.address.version == 6 and peer.version == 4:
                raise TransportError(f"{member.name}: {net} needs an IPv6 address of the host, not {peer}")
            hop = Nexthop(self.hop_id(block, net.address.version), peer.version, index, peer)
            self.add_route(plan, net, hop)

    def check(self) -> "list[str]":
        rtnl = Rtnl()
        try:
            hops = nexthops.listed(rtnl, PROTOCOL).values()
            peers = {hop.gateway for hop in hops if hop.id in self.ids and hop.gateway}
            return self.mtu_problems(rtnl, peers) + managers.problems()
        finally:
            rtnl.close()

    def remove(self) -> None:
        super().remove()
        guard.stop_forwarding(self.network)
