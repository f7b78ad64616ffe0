# SPDX-License-Identifier: Apache-2.0
"""
WireGuard: packets between containers of two hosts, encrypted, in UDP between the hosts.

One device per network and host, with a peer for each other host.  The kernel chooses the peer by the block:

    peer PUBLIC-KEY endpoint 172.16.0.3:51820 allowed-ips 10.60.7.0/24
    route 10.60.7.0/24 dev wg-wide, by a nexthop object that all blocks share

A peer without traffic costs memory only: nothing is sent until a packet is for its block, and no keepalive.

The private key is made once, and stays in the file wireguard.key of the network's folder.  The public key is
in the store.  The kernel computes it: Python's standard library cannot.  pyroute2 speaks to the kernel; the
program wg is not used.
"""

import base64
import binascii
import errno
import os
from contextlib import contextmanager
from dataclasses import dataclass

from cnihook.cluster import guard
from cnihook.cluster.kernel import Changes, Plan, TransportError
from cnihook.cluster.transport import device
from cnihook.cluster.transport.base import Transport
from cnihook.fast import statefile
from cnihook.fast.address import Address
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.nexthops import Nexthop
from cnihook.linux.rtnl import Link, Rtnl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from cnihook.cluster.model import Block, Settings

_KIND = "wireguard"
_KEY_FILE = "wireguard.key"
_KEY_LENGTH = 32  # bytes


@dataclass(frozen=True)
class _Peer:
    """Another host.  `nets`: the blocks that it may send from, and that packets to it are for."""

    endpoint: "tuple[str, int] | None"
    nets: "frozenset[str]"


class WireGuard(Transport):
    """A network whose packets are encrypted, from device to device."""

    overhead = (60, 80)  # bytes: WireGuard has 32, UDP 8
    prefix = "wg"

    def __init__(self, settings: "Settings", network: str, folder: str) -> None:
        super().__init__(settings, network, folder)
        self._peers: dict[str, _Peer] = {}

    def credentials(self) -> "dict[str, Any]":
        rtnl = Rtnl()
        try:
            self._ensure_device(rtnl)
        finally:
            rtnl.close()
        with _socket() as kernel:
            public, _port = self._configured(kernel)
        return {"wg": public, "port": self.settings.port}

    def _ensure_device(self, rtnl: Rtnl) -> Link:
        link = device.find(rtnl, self.device, _KIND)
        if not link:
            try:
                link = device.add(rtnl, self.device, _KIND, mtu=self.settings.mtu)
            except NetlinkError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                raise TransportError(
                    "the kernel has no WireGuard: the module wireguard is missing"
                ) from None
        return link

    def _configured(self, kernel: "Any") -> "tuple[str, int]":
        """Give the device its key and port, unless it has them; return the public key and the port."""
        private = self._private_key()
        state = _Device(kernel, self.device)
        if (state.private, state.port) != (private, self.settings.port):
            kernel.set(self.device, private_key=private, listen_port=self.settings.port)
            state = _Device(kernel, self.device)
        return state.public, state.port

    def _private_key(self) -> str:
        """Return the key in the file, which is made once.  Raises TransportError if it is damaged."""
        path = f"{self.folder}/{_KEY_FILE}"
        text = statefile.content(path)
        if text is None:
            key = bytearray(os.urandom(_KEY_LENGTH))
            # As all keys of X25519: RFC 7748, section 5.  The kernel would report another key otherwise.
            key[0] &= 248
            key[31] = key[31] & 127 | 64
            text = base64.b64encode(key) + b"\n"
            statefile.replace(path, text, durable=True)
        try:
            if len(base64.b64decode(text.strip(), validate=True)) == _KEY_LENGTH:
                return text.decode().strip()
        except (binascii.Error, ValueError):
            pass
        raise TransportError(f"{path}: is not a key of WireGuard; remove it, and this host gets another key")

    def program(self, own: "Block | None", others: "Iterable[Block]", *, may_delete: bool) -> Changes:
        guard.accept_forwarded(self.network, self.device, self.subnets)
        return super().program(own, others, may_delete=may_delete)

    def prepare(self, rtnl: Rtnl, plan: Plan, own: "Block | None") -> None:
        link = self._ensure_device(rtnl)
        with _socket() as kernel:
            self._configured(kernel)
        try:
            device.configure(rtnl, link, alias=f"cnihook cluster {self.network}", mtu=self.settings.mtu)
        except NetlinkError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise TransportError(f"UDP port {self.settings.port}: another program has it") from None
        if own:
            device.set_addresses(rtnl, link, [net.address.host_net() for net in self.blocks(own)])
        plan.device = link.index
        self._peers = {}

    def plan_block(self, plan: Plan, block: "Block") -> None:
        member = block.member
        if not member.wg:
            raise TransportError(f"{member.name}: its entry in the store has no key of WireGuard")
        nets = self.blocks(block)
        endpoint = (str(Address.parse(member.address)), member.port or self.settings.port)
        others = self._peers[member.wg].nets if member.wg in self._peers else frozenset()
        self._peers[member.wg] = _Peer(endpoint, others | frozenset(map(str, nets)))
        for net in nets:
            version = net.address.version
            # The last ID of each IP version: no block has it.
            hop = Nexthop(self.ids.stop - 2 + (version == 6), version, plan.device)
            self.add_route(plan, net, hop)

    def change(self, rtnl: Rtnl, plan: Plan, *, may_delete: bool) -> Changes:
        added = replaced = deleted = 0
        with _socket() as kernel:
            present = _Device(kernel, self.device).peers
            for key, peer in self._peers.items():
                if present.get(key) != peer:
                    self._set_peer(kernel, key, peer)
                    added += key not in present
                    replaced += key in present
            changes = super().change(rtnl, plan, may_delete=may_delete)
            for key in present.keys() - self._peers.keys() if may_delete else ():
                kernel.set(self.device, peer={"public_key": key, "remove": True})
                deleted += 1
        return Changes(changes.added + added, changes.replaced + replaced, changes.deleted + deleted)

    def _set_peer(self, kernel: "Any", key: str, peer: _Peer) -> None:
        options: dict[str, object] = {"public_key": key, "allowed_ips": sorted(peer.nets)}
        if peer.endpoint:
            options["endpoint_addr"], options["endpoint_port"] = peer.endpoint
        kernel.set(self.device, peer=options | {"replace_allowed_ips": True})

    def check(self) -> "list[str]":
        rtnl = Rtnl()
        try:
            problems = device.check(rtnl, self.device, _KIND, self.settings.mtu)
            link = rtnl.find_link(self.device)
            if not link or link.kind != _KIND:
                return problems
            with _socket() as kernel:
                state = _Device(kernel, self.device)
            if state.port != self.settings.port:
                problems.append(
                    f"{self.device}: UDP port {state.port}, the network has {self.settings.port}"
                )
            peers = {Address.parse(peer.endpoint[0]) for peer in state.peers.values() if peer.endpoint}
            return problems + self.mtu_problems(rtnl, peers)
        finally:
            rtnl.close()

    def remove(self) -> None:
        """Remove all but the key: a host that joins again has the same one."""
        super().remove()
        rtnl = Rtnl()
        try:
            device.remove(rtnl, self.device, _KIND)
        finally:
            rtnl.close()
        guard.stop_forwarding(self.network)


class _Device:
    """The device as the kernel describes it."""

    def __init__(self, kernel: "Any", name: str) -> None:
        self.private = self.public = ""
        self.port = 0
        self.peers: dict[str, _Peer] = {}
        for message in kernel.info(name):  # several, if there are many peers
            self.private = _text(message.get_attr("WGDEVICE_A_PRIVATE_KEY")) or self.private
            self.public = _text(message.get_attr("WGDEVICE_A_PUBLIC_KEY")) or self.public
            self.port = message.get_attr("WGDEVICE_A_LISTEN_PORT") or self.port
            for peer in message.get_attr("WGDEVICE_A_PEERS") or ():
                self._add(peer)

    def _add(self, peer: "Any") -> None:
        """Add a peer, or the rest of one whose blocks did not fit into a message."""
        key = _text(peer.get_attr("WGPEER_A_PUBLIC_KEY"))
        place = peer.get_attr("WGPEER_A_ENDPOINT")
        endpoint = (str(Address.parse(place["addr"])), place["port"]) if place else None
        nets = frozenset(each["addr"] for each in peer.get_attr("WGPEER_A_ALLOWEDIPS") or ())
        first = self.peers.get(key)
        self.peers[key] = _Peer(first.endpoint, first.nets | nets) if first else _Peer(endpoint, nets)


def _text(data: "bytes | None") -> str:
    return data.decode() if data else ""


@contextmanager
def _socket() -> "Iterator[Any]":
    """Open pyroute2's socket for WireGuard; its errors become TransportError."""
    from pyroute2 import WireGuard as Socket  # takes 0.15 s
    from pyroute2.netlink.exceptions import NetlinkError as Refusal

    try:
        with Socket() as kernel:
            yield kernel
    except Refusal as error:
        raise TransportError(f"configure WireGuard: {error.args[-1]}") from None
