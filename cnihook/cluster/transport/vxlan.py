# SPDX-License-Identifier: Apache-2.0
"""
VXLAN: packets between containers of two hosts, in UDP between the hosts.

There is one device per network and host.  It does not know the other hosts: each route has the address of
the other host, as its encapsulation.  So there is no forwarding table, and no entry for a container:

    nexthop 2147500046 via 10.60.7.0 dev vx-wide onlink encap ip id 117 src 172.16.0.1 dst 172.16.0.3
    neighbour 10.60.7.0 lladdr 5a:41:07:fe:11:29 dev vx-wide permanent
    route 10.60.7.0/24 nhid 2147500046

The MAC address is that of the other host's device.  One address for all devices does not work: a device
drops a frame that comes from its own address.  Nothing looks for neighbours, and broadcasts stay on a host.

The kernel gives such a device an MTU of 1500.  Then large packets leave as two fragments, at a tenth of the
throughput.  So the device has the MTU of the network.
"""

import _struct as struct
import errno
from _blake2 import blake2s

from cnihook.cluster import guard
from cnihook.cluster.kernel import PROTOCOL, Changes, Plan, TransportError
from cnihook.cluster.state import StateError, machine_id
from cnihook.cluster.transport import device
from cnihook.cluster.transport.base import Transport
from cnihook.fast.address import Address, mac_bytes
from cnihook.linux import nexthops
from cnihook.linux.netlink import NetlinkError, attr, attributes, u8
from cnihook.linux.nexthops import Nexthop, Tunnel
from cnihook.linux.rtnl import Link, Rtnl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from cnihook.cluster.model import Block

# <linux/if_link.h>
_LEARNING, _PORT, _COLLECT_METADATA = 7, 15, 25
_KIND = "vxlan"


class Vxlan(Transport):
    """A network whose packets are in UDP, from device to device."""

    # Ethernet, VXLAN and UDP headers, and that of IPv4 or IPv6.
    overhead = (50, 70)
    prefix = "vx"

    def credentials(self) -> "dict[str, Any]":
        return {"mac": self._mac()}

    def _mac(self) -> str:
        """Return a MAC address that is the same after each restart, and different on each machine."""
        try:
            text = f"{machine_id()} {self.network}"
        except StateError as error:
            raise TransportError(str(error)) from None
        digest = bytearray(blake2s(text.encode(), digest_size=6).digest())
        digest[0] = digest[0] & 0xFC | 0x02  # an address of one machine, assigned by a program
        return digest.hex(":")

    def program(self, own: "Block | None", others: "Iterable[Block]", *, may_delete: bool) -> Changes:
        blocks = list(others)
        members = {Address.parse(block.member.address) for block in blocks}
        # First, because a host may send as soon as it has a route.
        guard.close_port(self.device, self.settings.port, members, may_delete=may_delete)
        guard.accept_forwarded(self.network, self.device, self.subnets)
        return super().program(own, blocks, may_delete=may_delete)

    def prepare(self, rtnl: Rtnl, plan: Plan, own: "Block | None") -> None:
        mac = own.member.mac if own and own.member.mac else self._mac()
        link = device.find(rtnl, self.device, _KIND)
        if link and not self._is_right(link):
            rtnl.delete_link(link)  # neither can be changed
            link = None
        try:
            if not link:
                data = (u8(_LEARNING, 0), self._port(), u8(_COLLECT_METADATA, 1))
                mtu = self.settings.mtu
                link = device.add(rtnl, self.device, _KIND, mtu=mtu, mac=mac_bytes(mac), data=data)
            device.configure(
                rtnl, link, alias=f"cnihook cluster {self.network}", mtu=self.settings.mtu, mac=mac
            )
        except NetlinkError as error:
            raise self._explained(rtnl, error) from None
        if own:
            device.set_addresses(rtnl, link, [net.address.host_net() for net in self.blocks(own)])
        plan.device = link.index

    def _port(self) -> bytes:
        return attr(_PORT, struct.pack(">H", self.settings.port))

    def _is_right(self, link: Link) -> bool:
        data = attributes(link.info_data)
        return _port_of(link) == self.settings.port and data.get(_COLLECT_METADATA, b"\0")[0] == 1

    def _explained(self, rtnl: Rtnl, error: NetlinkError) -> OSError:
        if error.errno not in (errno.EEXIST, errno.EADDRINUSE):
            return error
        why = self._user_of_port(rtnl) or f"UDP port {self.settings.port}: another program has it"
        return OSError(error.errno, why, self.device)

    def _user_of_port(self, rtnl: Rtnl) -> str:
        """Name another VXLAN device that has the port, of which only one can be on a host."""
        for link in rtnl.links():
            if link.kind == _KIND and link.name != self.device and _port_of(link) == self.settings.port:
                return f"UDP port {self.settings.port}: vxlan device {link.name} has it"
        return ""

    def plan_block(self, plan: Plan, block: "Block") -> None:
        member = block.member
        peer = Address.parse(member.address)
        source = self.own_address or Address(bytes(len(peer)))
        if source.version != peer.version:
            raise TransportError(
                f"{member.name}: {peer} is of another IP version than {source} of this host"
            )
        if not member.mac:
            raise TransportError(f"{member.name}: its entry in the store has no MAC address")
        for net in self.blocks(block):
            hop = Nexthop(
                self.hop_id(block, net.address.version),
                net.address.version,
                plan.device,
                net.address,
                Tunnel(self.settings.vni, source, peer),
            )
            self.add_route(plan, net, hop)
            plan.neighbours[net.address] = mac_bytes(member.mac)

    def check(self) -> "list[str]":
        rtnl = Rtnl()
        try:
            problems = device.check(rtnl, self.device, _KIND, self.settings.mtu)
            if problems and (user := self._user_of_port(rtnl)):
                problems.append(user)
            if not guard.is_closed(self.device, self.settings.port):
                problems.append(f"UDP port {self.settings.port}: is not closed to hosts of no network")
            hops = nexthops.listed(rtnl, PROTOCOL).values()
            peers = {hop.tunnel.destination for hop in hops if hop.id in self.ids and hop.tunnel}
            return problems + self.mtu_problems(rtnl, peers)
        finally:
            rtnl.close()

    def remove(self) -> None:
        super().remove()
        rtnl = Rtnl()
        try:
            device.remove(rtnl, self.device, _KIND)
        finally:
            rtnl.close()
        guard.open_port(self.device)
        guard.stop_forwarding(self.network)


def _port_of(link: Link) -> int:
    return int.from_bytes(attributes(link.info_data).get(_PORT, b""), "big")
