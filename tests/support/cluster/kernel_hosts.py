# SPDX-License-Identifier: Apache-2.0
"""Hosts of a cluster as network namespaces on one switch, each with a bridge and one container on it."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from cnihook.cluster import transport
from cnihook.cluster.kernel import Changes
from cnihook.cluster.model import Block, Member, Settings
from cnihook.cluster.transport import Transport
from cnihook.linux.netlink import reopen_netfilter
from tests.support.host.host import Container, Host

T = TypeVar("T")
NETWORK = "wide"
SWITCH = "link add sw type bridge forward_delay 0\nlink set sw up\n"
FORWARDS = """\
echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
"""


def inside(space: Container, function: Callable[[], T]) -> T:
    """Call a function in a namespace, also with the process's socket for nftables."""

    def run() -> T:
        reopen_netfilter()
        try:
            return function()
        finally:
            reopen_netfilter()

    return space.inside(run)


class ClusterHost:
    """Host number N: block N of the network, 172.16.0.N and 2001:db8:16::N between the hosts."""

    def __init__(self, host: Host, settings: Settings, number: int, folder: Path, *, underlay: int) -> None:
        self.number = number
        self.settings = settings
        self.space = host.container(f"h{number}")
        self.container = host.container(f"p{number}")
        own_folder = folder / f"h{number}"
        own_folder.mkdir()
        self.transport: Transport = transport.of(settings, NETWORK, str(own_folder))
        self.address = f"172.16.0.{number}" if underlay == 4 else f"2001:db8:16::{number:x}"
        self.blocks = settings.block(number)
        self.addresses = [str(net.network_address + 2) for net in self.blocks]
        port = f"port{number}"
        self.space.run("sh", "-c", FORWARDS)
        # The ends have different indexes; see Host.outside().
        host.run("ip", "-batch", "-", input=f"""\
link add {port} index {1000 + number} type veth peer name eth0 index {2000 + number} netns h{number}
link set {port} up master sw
""")  # fmt: skip
        self.space.run("ip", "-batch", "-", input=f"""\
address add 172.16.0.{number}/24 dev eth0
address add 2001:db8:16::{number:x}/64 dev eth0 nodad
link set eth0 up
link add wide0 mtu {settings.mtu} type bridge forward_delay 0
{self._gateways()}link set wide0 up
link add c0 index {3000 + number} type veth peer name eth0 index {4000 + number} netns p{number}
link set c0 up mtu {settings.mtu} master wide0
""")  # fmt: skip
        self.container.run("ip", "-batch", "-", input=f"""\
link set eth0 up mtu {settings.mtu}
{self._container_addresses()}""")  # fmt: skip

    def _gateways(self) -> str:
        lines = (f"address add {net.network_address + 1}/{net.prefixlen} dev wide0" for net in self.blocks)
        return "".join(f"{line}{' nodad' if ':' in line else ''}\n" for line in lines)

    def _container_addresses(self) -> str:
        return "".join(
            f"address add {net.network_address + 2}/{net.prefixlen} dev eth0 "
            f"{'nodad' if net.version == 6 else ''}\n"
            f"route add default via {net.network_address + 1}\n"
            for net in self.blocks
        )

    @property
    def block(self) -> Block:
        credentials = inside(self.space, self.transport.credentials)
        if "mac" in credentials:
            # All of these hosts are on one machine.
            credentials["mac"] = f"02:00:00:00:00:{self.number:02x}"
        return Block(self.number, member(self.number, self.address, **credentials))

    def program(self, own: "Block | None", others: Iterable[Block], *, may_delete: bool = True) -> Changes:
        return inside(self.space, lambda: self.transport.program(own, others, may_delete=may_delete))


def member(number: int, address: str, **credentials: Any) -> Member:
    return Member(host=f"{number:032x}", name=f"h{number}", claim="c1", address=address, **credentials)


def join(hosts: list[ClusterHost]) -> list[Changes]:
    """Program each host with the blocks of all."""
    blocks = [one.block for one in hosts]
    return [
        one.program(own, [each for each in blocks if each != own])
        for one, own in zip(hosts, blocks, strict=True)
    ]
