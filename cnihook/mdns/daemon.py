# SPDX-License-Identifier: Apache-2.0
"""
The process that sends messages of multicast DNS on, for all containers with a listing.

It is in the group on the interface of each listing, and on its uplinks: those that it names, or all that
have a default route and are not the end of a tunnel.  A message that arrives on the interface of a container
must have an address of one of its listings as its source.  Requests, each as JSON:

    {"do": "load", "name": "front-c1-eth0"}   read this listing again, or notice that there is none
    {"do": "status"}                          return the uplinks, and what is wrong, by interface

No message can be sent in a circle.  The kernel does not return what this process sends, and what comes from
an address of the host is ignored.  A message that has been on an interface in the last second is neither
received nor sent there: another reflector of the LAN has sent it.
"""

import asyncio
import time
from _blake2 import blake2s
from collections import OrderedDict

from cnihook.fast.address import Address
from cnihook.fast.errors_text import message_with_notes
from cnihook.keeper import server
from cnihook.keeper.server import LINGER, RequestError
from cnihook.linux import link_events, route_lookup
from cnihook.linux.netns import NetNS
from cnihook.linux.rtnl import RT_TABLE_MAIN, RTN_UNICAST, Link, Rtnl
from cnihook.log import warn
from cnihook.mdns import listing, message
from cnihook.mdns.listing import Listing
from cnihook.mdns.membership import PORT, Membership, Packet, is_from_link
from cnihook.mdns.message import MessageError
from cnihook.mdns.one_shot import OneShots

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    import socket
    from typing import Any

_PAUSE = 0.1  # seconds without a look at an interface that has too many messages; the kernel drops some
_DELAY = 1.0  # seconds from a change of links to a look at them: the start of a container makes many
_AT_ONCE = 32  # messages of one interface, before another one has its turn
# Seconds in which the same message is taken for an echo.  A sender repeats a question or an answer after a
# second (RFC 6762, 5.2 and 6), and its clock may differ from that of this host.
_ECHO = 0.9
_MOST_SEEN = 1 << 16
_IFF_POINTOPOINT, _IFF_MULTICAST = 0x10, 0x1000  # <linux/if.h>


class Daemon(server.Daemon):
    def __init__(self, listener: "socket.socket", *, linger: float = LINGER) -> None:
        super().__init__(listener, linger=linger)
        self._listings: dict[str, Listing] = {}
        self._memberships: dict[tuple[int, int], Membership] = {}  # by index and IP version
        self._ways: dict[int, set[int]] = {}  # from an interface to those on which its messages are sent
        self._senders: dict[int, set[Address]] = {}  # of interfaces of containers
        self._uplinks: set[str] = set()
        self._problems: dict[str, str] = {}  # by interface
        self._seen: OrderedDict[tuple[int, int, bytes], float] = OrderedDict()  # the oldest first
        self._one_shots = OneShots()
        self._is_waiting = False

    async def begin(self) -> None:
        loop = asyncio.get_running_loop()
        watched = link_events.watch()
        loop.add_reader(watched, self._notice, watched)
        for name in listing.names():
            try:
                self._read(name)
            except RequestError as error:
                warn(f"multicast DNS: {error}")
        self._arrange()

    @property
    def is_busy(self) -> bool:
        return bool(self._listings)

    async def do(self, request: "dict[str, Any]") -> "dict[str, Any]":
        what = request["do"]
        if what == "load":
            self._load(str(request["name"]))
        elif what != "status":
            raise ValueError(f"{what!r} is unknown")
        elif self._problems:
            self._arrange()  # another program may have released the port
        return {"uplinks": sorted(self._uplinks), "problems": self._problems}

    def _load(self, name: str) -> None:
        problem: RequestError | None = None
        try:
            self._read(name)
        except RequestError as error:
            problem = error
        self._arrange()
        self.changed.set()
        if problem:
            raise problem
        one = self._listings.get(name)
        for interface in (one.interface, *one.uplinks) if one else ():
            if interface in self._problems:
                raise RequestError(f"listen on {interface} port {PORT}: {self._problems[interface]}")

    def _read(self, name: str) -> None:
        self._listings.pop(name, None)
        try:
            one = Listing.read(name)
        except (OSError, ValueError) as error:
            raise RequestError(f"the request cannot be used: {message_with_notes(error)}") from None
        if one:
            self._listings[name] = one

    # Interfaces

    def _notice(self, watched: "_socket.socket") -> None:
        link_events.drain(watched)
        if not self._is_waiting:
            self._is_waiting = True
            asyncio.get_running_loop().call_later(_DELAY, self._look_again)

    def _look_again(self) -> None:
        self._is_waiting = False
        try:
            self._arrange()
        except OSError as error:
            warn(f"multicast DNS: {message_with_notes(error)}")

    def _arrange(self) -> None:
        """Listen where the listings need it, as the links are now."""
        self._problems = {}
        self._ways, self._senders = {}, {}
        links: dict[int, Link] = {}
        host = NetNS.current()
        try:
            on_route = _on_default_route(host.rtnl) if self._listings else []
            containers = {one.interface for one in self._listings.values()}
            for one in self._listings.values():
                inside = self._find(host.rtnl, one.interface)
                outside = [self._find(host.rtnl, name) for name in one.uplinks] if one.uplinks else on_route
                uplinks = [link for link in outside if link and link.name not in containers]
                if inside:
                    links |= {link.index: link for link in (inside, *uplinks)}
                    self._senders.setdefault(inside.index, set()).update(one.addresses)
                    for link in uplinks:
                        self._ways.setdefault(inside.index, set()).add(link.index)
                        self._ways.setdefault(link.index, set()).add(inside.index)
            self._uplinks = {link.name for link in links.values() if link.index not in self._senders}
            self._join(host.rtnl, links)
        finally:
            host.close()

    def _find(self, rtnl: Rtnl, name: str) -> "Link | None":
        link = rtnl.find_link(name)
        if not link:
            self._problems[name] = "there is no such interface"
        return link

    def _join(self, rtnl: Rtnl, links: "dict[int, Link]") -> None:
        """Be in the group on these links, and on no others, for each IP version that a link has."""
        needed = set()
        for link in links.values():
            is_needed = link.is_up and link.index in self._ways
            nets = [each.net for each in rtnl.addresses(link)] if is_needed else []
            for version in (4, 6):
                own = [net for net in nets if net.address.version == version]
                if not own:
                    continue
                key = (link.index, version)
                if key not in self._memberships:
                    try:
                        self._open(key, Membership(link, version, own))
                    except OSError as error:
                        self._problems[link.name] = error.strerror or str(error)
                        continue
                self._memberships[key].nets = own
                needed.add(key)
        for key in self._memberships.keys() - needed:
            one = self._memberships.pop(key)
            asyncio.get_running_loop().remove_reader(one.socket)
            one.close()

    def _open(self, key: "tuple[int, int]", one: Membership) -> None:
        self._memberships[key] = one
        asyncio.get_running_loop().add_reader(one.socket, self._receive, one)

    # Messages

    def _receive(self, one: Membership) -> None:
        for _number in range(_AT_ONCE):
            try:
                packet = one.receive()
            except OSError:
                return  # no more, or the interface is gone
            now = time.monotonic()
            if not one.limit.take(now):
                loop = asyncio.get_running_loop()
                loop.remove_reader(one.socket)
                loop.call_later(_PAUSE, self._resume, one)
                return
            if not packet or not is_from_link(packet, one.nets):
                continue
            senders = self._senders.get(one.index)
            if senders is None or packet.source in senders:
                try:
                    self._send_on(one, packet, message.forwarded(packet.data), now)
                except MessageError:
                    continue

    def _resume(self, one: Membership) -> None:
        if self._memberships.get((one.index, one.version)) is one:
            asyncio.get_running_loop().add_reader(one.socket, self._receive, one)

    def _send_on(self, one: Membership, packet: Packet, data: bytes, now: float) -> None:
        digest = blake2s(data).digest()
        if not self._is_new(one, digest, now):
            return
        others = [self._memberships.get((index, one.version)) for index in self._ways.get(one.index, ())]
        ways = [other for other in others if other and self._is_new(other, digest, now)]
        if packet.port != PORT:
            if not message.is_answer(data):  # an answer from another port is ignored (RFC 6762, 6)
                self._one_shots.ask(one, packet, data, ways)
            return
        for other in ways:
            other.send(data)

    def _is_new(self, one: Membership, digest: bytes, now: float) -> bool:
        """Return True, and note that the message is on this interface, unless it has been there just now."""
        seen = self._seen
        while seen and (len(seen) > _MOST_SEEN or now - next(iter(seen.values())) >= _ECHO):
            seen.popitem(last=False)
        key = (one.index, one.version, digest)
        if key in seen:
            return False
        seen[key] = now
        return True


def _on_default_route(rtnl: Rtnl) -> "list[Link]":
    """Return the links that have a default route, except for the ends of tunnels."""
    indexes = {
        route.index
        for route in route_lookup.routes(rtnl)
        if route.dst is None and route.kind == RTN_UNICAST and route.table == RT_TABLE_MAIN
    }
    links = [rtnl.find_link_by_index(index) for index in sorted(indexes - {0})]
    return [
        link for link in links if link and link.flags & (_IFF_POINTOPOINT | _IFF_MULTICAST) == _IFF_MULTICAST
    ]
