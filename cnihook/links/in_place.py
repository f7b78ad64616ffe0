# SPDX-License-Identifier: Apache-2.0
"""
The change of a container's interface while it runs: its MTU, and its routes.

Connections stay.  Those over a route that is removed end, unless another route leads there.
"""

from cnihook.links import interface, veth
from cnihook.linux import routes
from cnihook.linux.rtnl import RT_SCOPE_LINK, RT_TABLE_MAIN, Link
from cnihook.protocol.call import Call
from cnihook.types.config import NetConf
from cnihook.types.errors import INTERNAL, CniError, invalid_config
from cnihook.types.result import Result, Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cnihook.linux.routes import WholeRoute

_LEAST_WITH_IPV6 = 1280  # RFC 8200; the kernel takes IPv6 away from a link below that
_OF_VETH = 1500  # the kernel's choice


def update(call: Call, before: Call, set_mtu: "Callable[[int], None]") -> "Result | None":
    """Change the MTU by `set_mtu` and the routes, where two configurations differ.

    Returns the new result, or None if it is unchanged.
    """
    old, new = (each.conf.integer("mtu", default=0, low=0, high=1 << 31) for each in (before, call))
    if old != new:
        _refuse_low(call, new)
        set_mtu(new)
    return _change_routes(call, before)


def set_pair(call: Call, mtu: int) -> None:
    """Set the MTU of a pair.  At no time does one end send what the other end drops as too long."""
    inner, outer = call.sandbox.link(call.ifname), veth.find_host_end(call)
    if not outer:
        raise CniError(INTERNAL, f"the host's end of {call.ifname} of container {call.container_id} is gone")
    mtu = mtu or _OF_VETH
    # An end accepts what is not longer than its own MTU.
    ends = [(call.host, outer), (call.sandbox, inner)]
    for rtnl, link in ends if mtu > inner.mtu else reversed(ends):
        rtnl.set_link(link, mtu=mtu)


def set_child(call: Call, master: Link, mtu: int) -> None:
    """Set the MTU of a link on top of `master`; 0: that of the master."""
    if mtu > master.mtu:
        raise invalid_config(
            f"invalid MTU {mtu}, must be [0, master MTU({master.mtu})]", f"the master is {master.name}"
        )
    call.sandbox.set_link(call.sandbox.link(call.ifname), mtu=mtu or master.mtu)


def _refuse_low(call: Call, mtu: int) -> None:
    ips = call.required_prev_result().ips
    if 0 < mtu < _LEAST_WITH_IPV6 and any(ip.net.address.version == 6 for ip in ips):
        raise invalid_config(
            f"MTU {mtu} of {call.ifname}: it has an IPv6 address", f"IPv6 takes {_LEAST_WITH_IPV6} at least"
        )


def _change_routes(call: Call, before: Call) -> "Result | None":
    old, new = _routes_of(before), _routes_of(call)
    if old == new:
        return None
    result = call.required_prev_result()
    link = call.sandbox.link(call.ifname)
    added, removed = ([one for one in here if one not in there] for here, there in ((new, old), (old, new)))
    # First those that are added: a route may replace another one to the same destination.
    for route in added:
        if not _find(call, link, result, route):
            _add(call, link, result, route)
    for route in removed:
        for present in _find(call, link, result, route):
            routes.delete(call.sandbox, present)
    result.routes = [route for route in result.routes if route not in removed]
    result.routes += [route for route in new if route not in result.routes]
    return result


def _routes_of(call: Call) -> "list[Route]":
    return [Route.from_json(NetConf(item.raw)) for item in call.conf.object("ipam").objects("routes")]


def _add(call: Call, link: Link, result: Result, route: Route) -> None:
    interface.set_routes(call, link, interface.own_ips(call, result), [route])


def _find(call: Call, link: Link, result: Result, route: Route) -> "list[WholeRoute]":
    """Return the container's routes that an ADD with this route has set."""
    gateway = route.gw
    if gateway is None and route.scope != RT_SCOPE_LINK:
        gateways = [ip.gateway for ip in interface.own_ips(call, result) if ip.gateway]
        gateway = next((one for one in gateways if one.version == route.dst.address.version), None)
    destination = route.dst.network() if route.dst.prefix else None
    table = RT_TABLE_MAIN if route.table is None else route.table
    return [
        one
        for one in routes.listed(call.sandbox)
        if (one.dst, one.version, one.gateway) == (destination, route.dst.address.version, gateway)
        and (one.index, one.table) == (link.index, table)
    ]
