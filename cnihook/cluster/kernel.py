# SPDX-License-Identifier: Apache-2.0
"""
One pass over the kernel: compare what should be there of a network with what is there, and change that.

    nexthop 3221225486 via 10.60.7.0 dev vx-wide encap ip id 117 src 172.16.0.1 dst 172.16.0.3
    neighbour 10.60.7.0 lladdr 5a:41:... dev vx-wide
    route 10.60.7.0/24 nhid 3221225486 proto 117

Each pass begins with a list of the whole.  So it does not matter which events were lost, what another
program flushed, or where an earlier pass ended.  It adds and replaces first, and deletes last.  A pass over
what is right sends only the three requests for lists.

What is of this network: routes with protocol 117 to its subnets, nexthop objects with protocol 117 in its
range of IDs, and the neighbours on its own device.  Nothing else is changed.
"""

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cnihook.fast.address import Address, IPNet
from cnihook.linux import nexthops
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.nexthops import Nexthop, Route
from cnihook.linux.rtnl import Rtnl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.cluster.model import IPNetwork

PROTOCOL = 117
_REPORTED = 3  # problems of one pass that its error names


class TransportError(Exception):
    """The kernel is not as the network needs it; the text is one line."""


@dataclass(frozen=True)
class Changes:
    """The number of messages of a pass, by their kind."""

    added: int = 0
    replaced: int = 0
    deleted: int = 0

    def __bool__(self) -> bool:
        return bool(self.added or self.replaced or self.deleted)


@dataclass
class Plan:
    """The state that the kernel should have.

    ids: the range of IDs of the network's nexthop objects
    subnets: the destinations of its routes are in them
    device: the index of its own device; 0 if it has none
    neighbours: MAC addresses on that device, by IP address
    """

    ids: range
    subnets: "list[IPNet]"
    device: int = 0
    hops: "dict[int, Nexthop]" = field(default_factory=dict)
    routes: "dict[IPNet, Route]" = field(default_factory=dict)
    neighbours: "dict[Address, bytes]" = field(default_factory=dict)


def program(rtnl: Rtnl, plan: Plan, *, may_delete: bool) -> Changes:
    """Make the kernel as planned; without `may_delete`, what is there and not planned stays.

    Raises TransportError after all that could be done, if the kernel refused something.
    """
    run = _Pass(rtnl, plan)
    run.put()
    if may_delete:
        run.delete()
    if run.problems:
        more = len(run.problems) - _REPORTED
        text = "; ".join(run.problems[:_REPORTED])
        raise TransportError(f"{text}; and {more} more" if more > 0 else text)
    return Changes(run.added, run.replaced, run.deleted)


class _Pass:
    def __init__(self, rtnl: Rtnl, plan: Plan) -> None:
        self.rtnl = rtnl
        self.plan = plan
        self.added = self.replaced = self.deleted = 0
        self.problems: list[str] = []
        hops = nexthops.listed(rtnl, PROTOCOL)
        self.hops = {number: hop for number, hop in hops.items() if number in plan.ids}
        self.routes: list[Route] = []
        versions = sorted({net.address.version for net in plan.subnets})
        for route in (route for version in versions for route in nexthops.routes(rtnl, PROTOCOL, version)):
            if any(route.dst.address in net and route.dst.prefix >= net.prefix for net in plan.subnets):
                self.routes.append(route)
            elif route.nexthop in plan.ids:
                raise TransportError(
                    f"route {route.dst} of another network uses nexthop {route.nexthop} of this one: "
                    "their names lead to the same IDs; give one of the networks another name"
                )
        self.neighbours = nexthops.neighbours(rtnl, plan.device) if plan.device else {}

    def put(self) -> None:
        """Add and replace: a nexthop before the routes that use it."""
        failed = set()
        for number, hop in self.plan.hops.items():
            old = self.hops.get(number)
            if old == hop:
                continue
            if self._do(nexthops.put, hop, PROTOCOL):
                self._count(old)
            else:
                failed.add(number)
        for address, mac in self.plan.neighbours.items():
            old_mac = self.neighbours.get(address)
            if old_mac != mac and self._do(nexthops.put_neighbour, self.plan.device, address, mac):
                self._count(old_mac)
        present = {(route.dst, route.metric): route for route in self.routes}
        for route in self.plan.routes.values():
            own = present.get((route.dst, route.metric))
            if own != route and route.nexthop not in failed and self._do(_put_route, route, own is not None):
                self._count(own)

    def _count(self, old: object) -> None:
        if old is None:
            self.added += 1
        else:
            self.replaced += 1

    def delete(self) -> None:
        """Delete what is not planned: routes before the nexthop that they use."""
        places = {(route.dst, route.metric) for route in self.plan.routes.values()}
        for route in self.routes:
            if (route.dst, route.metric) not in places:
                self.deleted += self._do(nexthops.delete_route, route, PROTOCOL)
        for number, hop in self.hops.items():
            if number not in self.plan.hops:
                self.deleted += self._do(nexthops.delete, hop)
        for address in self.neighbours.keys() - self.plan.neighbours.keys():
            self.deleted += self._do(nexthops.delete_neighbour, self.plan.device, address)

    def _do(self, step: "Callable[..., None]", *arguments: object) -> bool:
        """Send a message and return True, or keep the problem: the other hosts do not depend on it."""
        try:
            step(self.rtnl, *arguments)
        except (NetlinkError, TransportError) as error:
            self.problems.append(str(error))
            return False
        return True


def _put_route(rtnl: Rtnl, route: Route, is_own: bool) -> None:
    try:
        nexthops.put_route(rtnl, route, PROTOCOL, replace=is_own)
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
        why = "there is a route of another program, or of a bridge"
        raise TransportError(f"route {route.dst}: {why}") from None


def packed(nets: "Iterable[IPNetwork]") -> "list[IPNet]":
    """Return networks of the module ipaddress in the form that the kernel's messages take."""
    return [IPNet(Address(net.network_address.packed), net.prefixlen) for net in nets]
