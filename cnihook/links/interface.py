# SPDX-License-Identifier: Apache-2.0
"""The container's interface: set its addresses and routes, and compare them with the result."""

import errno

from cnihook.fast.address import Address, IPNet
from cnihook.links import ready, settings
from cnihook.linux import sysctl
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.rtnl import RT_SCOPE_LINK, RT_TABLE_MAIN, Link
from cnihook.protocol.call import Call
from cnihook.types.errors import INTERNAL, CniError
from cnihook.types.result import IP, Interface, Result, Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def own_ips(call: Call, result: Result) -> "list[IP]":
    """Return the result's addresses that belong to this call's interface."""
    own = []
    for ip in result.ips:
        if ip.interface is None or ip.interface < 0:
            continue
        if ip.interface >= len(result.interfaces) or result.interfaces[ip.interface].name != call.ifname:
            raise CniError(INTERNAL, f"{ip.net}: invalid interface index {ip.interface}")
        own.append(ip)
    return own


def configure(call: Call, link: Link, result: Result) -> None:
    """Give the interface its addresses and routes, raise it, and wait until it carries traffic."""
    ips = own_ips(call, result)
    set_addresses(call, link, ips)
    set_routes(call, link, ips, result.routes)
    wait(call, link, ips)


def wait(call: Call, link: Link, ips: "list[IP]") -> None:
    """Wait until the interface and its addresses carry traffic."""
    ready.wait_for_link(call.sandbox, link)
    ready.wait_for_addresses(call.sandbox, link, [ip.net for ip in ips])


def set_addresses(call: Call, link: Link, ips: "list[IP]", *, ifa_flags: int = 0) -> None:
    """Do the first part of configure(), for a plugin with routes of its own or another link to wait for."""
    sandbox = call.sandbox
    if any(ip.net.address.version == 6 for ip in ips):
        with call.sandbox_ns.entered():
            # Docker and others start containers with IPv6 disabled.  The addresses must survive `link set
            # down`.
            settings.prefer("net/ipv6/conf/lo/disable_ipv6", 0)
            sysctl.write_if_present(f"net/ipv6/conf/{link.name}/disable_ipv6", 0)
            settings.prefer(f"net/ipv6/conf/{link.name}/keep_addr_on_down", 1)
    for ip in ips:
        sandbox.add_address(link, ip.net, ifa_flags=ifa_flags)
    sandbox.set_link(link, up=True)


def set_routes(call: Call, link: Link, ips: "list[IP]", routes: "list[Route]") -> None:
    """Do the second part of configure()."""
    gateways: dict[int, Address] = {}
    for ip in ips:
        if ip.gateway:
            gateways.setdefault(ip.gateway.version, ip.gateway)
    keys = set()
    for route in routes:
        on_link = route.scope == RT_SCOPE_LINK  # such a route has no gateway
        via = route.gw or (None if on_link else gateways.get(route.dst.address.version))
        table = RT_TABLE_MAIN if route.table is None else route.table
        # The kernel rejects the same route twice.  It occurs twice if one key says what another implies,
        # such as a default route of ipam and isDefaultGateway.
        key = (route.dst.network(), via, table, route.priority)
        if key in keys:
            continue
        keys.add(key)
        add_route(
            call,
            link,
            route.dst,
            via=via,
            priority=route.priority,
            table=table,
            scope=route.scope,
            mtu=route.mtu,
            advmss=route.advmss,
        )


def add_route(
    call: Call, link: Link, dst: IPNet, *, priority: int = 0, table: int = RT_TABLE_MAIN, **others: "Any"
) -> None:
    """Set a route of the container, with a higher metric than another link's to the same destination.

    The kernel would put an IPv4 route before the other one, and make an IPv6 route its second next hop.
    Then some of the flows would leave with the address of the wrong network.  So the network that is
    attached first keeps its route, and that of a later one has a higher metric.  Next hops over one link
    stay together.
    """
    sandbox = call.sandbox
    try:
        sandbox.add_route(link, dst, priority=priority, table=table, exclusive=True, **others)
        return
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
    from cnihook.linux import route_lookup  # few containers have two networks with the same destination

    destination = dst.network() if dst.prefix else None
    rivals = [
        route
        for route in route_lookup.routes(sandbox, dst.address.version)
        if (route.dst, route.table) == (destination, table)
    ]
    own = {route.priority for route in rivals if route.index == link.index}
    if own:
        priority = priority if priority in own else min(own)
    elif rivals:
        priority = max(route.priority for route in rivals) + 1
    sandbox.add_route(link, dst, priority=priority, table=table, **others)


def find_in_result(call: Call, result: Result) -> Interface:
    """Return the container's interface in the result.  Raises CniError if it is not there."""
    for interface in result.interfaces:
        if interface.sandbox and interface.name == call.ifname:
            if interface.sandbox != call.netns:
                paths = f"{interface.sandbox} doesn't match configured netns: {call.netns}"
                raise CniError(INTERNAL, f"Sandbox in prevResult {paths}")
            return interface
    raise CniError(INTERNAL, f"prevResult names no interface {call.ifname} in {call.netns}")


def check(call: Call, kind: "str | None") -> Link:
    """Raise CniError if the container's interface differs from prevResult: MAC address, addresses, routes.

    `kind`: the type that it must have; None accepts any.
    """
    result = call.required_prev_result()
    expected = find_in_result(call, result)
    sandbox = call.sandbox
    link = sandbox.find_link(call.ifname)
    where = f"{call.ifname} of container {call.container_id}"
    if not link:
        raise CniError(INTERNAL, f"{where} does not exist")
    if kind is not None and link.kind != kind:
        raise CniError(INTERNAL, f"{where} is of type {link.kind or 'unknown'}, not {kind}")
    if expected.mac and expected.mac.lower() != link.mac:
        raise CniError(INTERNAL, f"{where} has MAC {link.mac}, not {expected.mac}")

    present = {address.net for address in sandbox.addresses(link)}
    for ip in own_ips(call, result):
        if ip.net not in present:
            raise CniError(INTERNAL, f"{where} does not have address {ip.net}")

    from cnihook.linux import routes  # for CHECK only: it lists each of several next hops

    everything = routes.listed(sandbox)
    for route in result.routes:
        destination = None if route.dst.prefix == 0 else route.dst.network()
        # A route without a table may be in any: later plugins of the chain move routes, as sbr and vrf do.
        if not any(
            (found.dst, found.version) == (destination, route.dst.address.version)
            and route.table in (None, found.table)
            and (not route.gw or found.gateway == route.gw)
            for found in everything
        ):
            raise CniError(INTERNAL, f"{where}: the route to {route.dst} is missing")
    return link
