# SPDX-License-Identifier: Apache-2.0
"""
ptp: a separate link between the host and each container, and the host as the router between them.

Each container has a veth pair, and there is no bridge.  The container must not look for neighbours on this
link, because it has none there.  So its address is set without the route to its subnet, and two other routes
lead there through the host:

    in the container    GATEWAY dev IFNAME, SUBNET via GATEWAY
    on the host         ADDRESS dev VETH, which has the gateway's address only
"""

import errno

from cnihook import ipam
from cnihook.links import flows, interface, ready, router, veth
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.rtnl import IFA_F_NODAD, IFA_F_NOPREFIXROUTE, Link
from cnihook.nftables import masquerade
from cnihook.sdk import (
    DNS,
    IP,
    Address,
    Call,
    CniError,
    Field,
    Interface,
    IPNet,
    Result,
    Traits,
    Undo,
    invalid_config,
    read,
    try_each,
)
from cnihook.types.errors import INTERNAL, ResourceTakenError
from cnihook.types.fields import IN_PLACE

FIELDS = (
    *masquerade.FIELDS,
    Field("mtu", int, 0, high=65535, change=IN_PLACE, doc="MTU; 0: the kernel's choice"),
    *ipam.REQUIRED_FIELDS,
)
TRAITS = Traits("interface", makes=("veth",), gateway=True)


class Conf:
    """Every key, checked before anything is changed."""

    def __init__(self, call: Call) -> None:
        options = read(call.conf, FIELDS)
        self.masquerade: bool = options["ipMasq"]
        self.masquerade_subnets = masquerade.read_subnets(options)
        self.mtu: int = options["mtu"]
        if not options["ipam"].string("type"):
            raise invalid_config(
                "no plugin name provided: ipam.type is empty or absent",
                "ptp routes addresses, so it needs at least one",
            )
        self.dns = DNS.given(options["dns"])


def add(call: Call) -> Result:
    conf = Conf(call)
    with Undo() as undo:
        # The link comes first, because some IPAM plugins request an address through it.  There was no such
        # link before, so no process uses an address that is kept for it, and the rollback may release it.
        policy = call.request.policy
        outer, inner = veth.add(call, mtu=conf.mtu, up=not policy)
        # Before ipam.add(), which may fail after it leased some addresses; and undone last, as in DEL.
        undo.push(ipam.delete, call)
        undo.push(call.host.delete_link, outer)
        result = ipam.add(call)
        if policy:
            policy.admit(outer.name, inner.mac, [ip.net for ip in result.ips])
            undo.push(veth.set_down, call)
            call.host.set_link(outer, up=True)
        result.interfaces = [
            Interface(outer.name, outer.mac),
            Interface(inner.name, inner.mac, sandbox=call.netns),
        ]
        for ip in result.ips:
            ip.interface = 1
            ip.gateway = ip.gateway or _usual_gateway(ip.net)
        router.forward(call.host, result.ips)
        _set_container_end(call, inner, result)
        _set_host_end(call, outer, result.ips)
        if conf.masquerade:
            undo.push(masquerade.delete, call, [ip.net.address for ip in result.ips])
            masquerade.add(call, masquerade.widened(result.ips, conf.masquerade_subnets))
        interface.wait(call, inner, result.ips)
        ready.wait_for_link(call.host, outer)
        gateways = [ip.gateway.host_net() for ip in result.ips if ip.gateway]
        ready.wait_for_addresses(call.host, outer, gateways)
        if conf.dns is not None:
            result.dns = conf.dns
        return result


def _usual_gateway(net: IPNet) -> Address:
    """Return the first address of the subnet, for an address that came without a gateway."""
    if net.prefix > net.address.bits - 2 or net.address == net.first() + 1:
        raise CniError(
            INTERNAL,
            f"the IPAM plugin has no gateway for {net}",
            "ptp sets the gateway's address on the host's end; name a gateway in ipam",
        )
    return net.first() + 1


def _container_routes(ips: "list[IP]") -> "dict[tuple[IPNet, Address | None], Address]":
    """Return the source address by destination and gateway, each route once even if addresses share it."""
    routes: dict[tuple[IPNet, Address | None], Address] = {}
    for ip in ips:
        if ip.gateway:
            routes.setdefault((ip.gateway.host_net(), None), ip.net.address)
            if ip.net.prefix < ip.net.address.bits:
                routes.setdefault((ip.net.network(), ip.gateway), ip.net.address)
    return routes


def _set_container_end(call: Call, inner: Link, result: Result) -> None:
    # Only the host is on the link, so there is no duplicate to wait for.
    ifa_flags = IFA_F_NOPREFIXROUTE | IFA_F_NODAD
    interface.set_addresses(call, inner, result.ips, ifa_flags=ifa_flags)
    for (dst, gateway), source in _container_routes(result.ips).items():
        interface.add_route(call, inner, dst, via=gateway, source=source)
    interface.set_routes(call, inner, result.ips, result.routes)


def _set_host_end(call: Call, outer: Link, ips: "list[IP]") -> None:
    for gateway in {ip.gateway for ip in ips if ip.gateway}:
        call.host.add_address(outer, gateway.host_net(), ifa_flags=IFA_F_NODAD)
    for ip in ips:
        address = ip.net.address
        try:
            call.host.add_route(outer, address.host_net(), exclusive=True)
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
            raise ResourceTakenError(
                INTERNAL,
                f"{address} for {call.ifname} of container {call.container_id} is in use",
                f"`ip route show {address}` shows the link that leads to it",
            ) from None


def delete(call: Call) -> None:
    """Remove the link, then release its address.

    nftables comes before the link: both wait for an RCU grace period, and in this order they wait for the
    same one.  The link is down already, so nothing leaves it without masquerading.
    """
    addresses = flows.addresses(call)

    def release() -> None:
        _delete_pair(call)
        try_each(lambda: flows.forget(call, addresses), lambda: ipam.delete(call))

    try_each(
        lambda: veth.set_down(call),
        lambda: masquerade.delete(call, addresses) if call.conf.boolean("ipMasq") else None,
        lambda: _remove_foreign(call),
        release,
    )


def _remove_foreign(call: Call) -> None:
    if call.conf.boolean("ipMasq") and veth.is_foreign(call):
        from cnihook.nftables import reference_rules  # few attachments are the reference's

        reference_rules.remove_masquerade(call)


def _delete_pair(call: Call) -> None:
    link = veth.find_host_end(call)
    if link:
        call.remove_link(call.host, link)


def check(call: Call) -> None:
    conf = Conf(call)
    ipam.check(call)
    inner = interface.check(call, "veth")
    outer = veth.check_host_end(call, inner)
    if not outer.is_up:
        raise CniError(INTERNAL, f"{outer.name} is down")

    from cnihook.linux import route_lookup  # for CHECK only

    ips = interface.own_ips(call, call.required_prev_result())
    present = {(r.dst, r.gateway) for r in route_lookup.routes(call.sandbox) if r.index == inner.index}
    for dst, gateway in _container_routes(ips):
        if (dst, gateway) not in present:
            where = f"{call.ifname} of container {call.container_id}"
            raise CniError(INTERNAL, f"{where}: the route to {dst} is missing")
    addresses = {address.net for address in call.host.addresses(outer)}
    routes = {route.dst for route in route_lookup.routes(call.host) if route.index == outer.index}
    for ip in ips:
        if ip.gateway and ip.gateway.host_net() not in addresses:
            raise CniError(INTERNAL, f"{outer.name} does not have address {ip.gateway}")
        if ip.net.address.host_net() not in routes:
            raise CniError(INTERNAL, f"{outer.name}: the route to {ip.net.address} is missing")
    if conf.masquerade:
        masquerade.check(call, masquerade.widened(ips, conf.masquerade_subnets))


def repair(call: Call) -> None:
    conf = Conf(call)
    result = call.required_prev_result()
    router.forward(call.host, result.ips)
    if conf.masquerade:
        masquerade.add(call, masquerade.widened(result.ips, conf.masquerade_subnets))


def update(call: Call, before: Call) -> "Result | None":
    from cnihook.links import in_place  # few containers are changed while they run

    return in_place.update(call, before, lambda mtu: in_place.set_pair(call, mtu))


def gc(call: Call) -> None:
    """Remove what attachments to this network left behind, except valid attachments."""
    keep = call.valid_attachments()
    if keep is None:
        return
    owners = {call.owner_of(container_id, ifname) for container_id, ifname in keep}
    try_each(
        lambda: veth.gc(call, owners),
        lambda: flows.forget(call, masquerade.gc(call, owners)),
        lambda: ipam.gc(call),
    )


def status(call: Call) -> None:
    Conf(call)
    ipam.status(call)
