# SPDX-License-Identifier: Apache-2.0
"""
bridge: containers on one Ethernet switch, the bridge, and the host as their router if that is configured.

Each container has a veth pair.  The bridge is made for the first container.  If cnihook made it, it is
removed with the last one, so nothing is left behind.  Links that cnihook made are recognized by their link
group, whose upper half is protocol.call.GROUP.  The alias of a container's port is its owner.
"""

from cnihook import ipam
from cnihook.fast.address import mac_bytes
from cnihook.links import flows, host_bridge, interface, ready, router, settings, veth
from cnihook.linux import devconf
from cnihook.linux.rtnl import Link, Rtnl
from cnihook.nftables import masquerade, spoofcheck
from cnihook.protocol import locks
from cnihook.sdk import (
    DNS,
    Call,
    CniError,
    Field,
    Interface,
    IPNet,
    NetConf,
    Result,
    Route,
    Traits,
    Undo,
    invalid_config,
    read,
    try_each,
)
from cnihook.types.errors import INTERNAL
from cnihook.types.fields import DEFAULT_VLAN, IN_PLACE, MAX_VLAN, check_link_name, check_vlan

_MAC = Field("mac", str, doc="MAC address of the container's interface")
_BRIDGE = Field(
    "bridge", str, "cni0", check=check_link_name, doc="name of the bridge; it is made if it does not exist"
)
_TRUNK = (
    Field("id", int, low=1, high=MAX_VLAN, doc="one VLAN"),
    Field("minID", int, low=1, high=MAX_VLAN, doc="the first VLAN of a range"),
    Field("maxID", int, low=1, high=MAX_VLAN, doc="the last VLAN of the range"),
)
FIELDS = (
    _BRIDGE,
    Field("isDefaultGateway", bool,
          doc="like `isGateway`, and the containers' default route leads to the bridge"),
    Field("isGateway", bool, doc="the bridge gets the gateway's address, and the host routes"),
    Field("forceAddress", bool, doc="replace another address of the bridge by the gateway's"),
    *masquerade.FIELDS,
    Field("mtu", int, 0, high=65535, change=IN_PLACE, doc="MTU of bridge and links; 0: the kernel's choice"),
    Field("hairpinMode", bool, doc="the bridge may return a frame to the container that sent it"),
    Field("promiscMode", bool, doc="the bridge is promiscuous; `hairpinMode` must be false"),
    Field("vlan", int, 0, high=MAX_VLAN, check=check_vlan,
          doc="the VLAN of the containers, untagged for them; 0: none"),
    Field("vlanTrunk", list, of=dict, fields=_TRUNK, doc="VLANs that a container gets with their tags"),
    Field("preserveDefaultVlan", bool, doc="containers with a `vlan` are also members of VLAN 1"),
    Field("macspoofchk", bool, needs="nftables",
          doc="drop what a container sends from another MAC address than its own"),
    Field("enabledad", bool, doc="look for duplicates of IPv6 addresses"),
    Field("portIsolation", bool, doc="the bridge forwards nothing between isolated containers"),
    Field("disableContainerInterface", bool,
          doc="leave the container's interface down; there must be no IPAM plugin"),
    *ipam.FIELDS,
)  # fmt: skip
TRAITS = Traits(
    "interface", makes=("bridge", "veth"), takes=("mac",), link=_BRIDGE, capabilities=(_MAC,), args=(_MAC,),
    gateway=("isGateway", "isDefaultGateway"), releases_by_owner=True,
)  # fmt: skip


class Conf:
    """Every key, checked before anything is changed."""

    def __init__(self, call: Call) -> None:
        options = read(call.conf, FIELDS)
        self.bridge: str = options["bridge"]
        self.default_gateway: bool = options["isDefaultGateway"]
        self.gateway: bool = options["isGateway"] or self.default_gateway
        self.force_address: bool = options["forceAddress"]
        self.masquerade: bool = options["ipMasq"]
        self.masquerade_subnets = masquerade.read_subnets(options)
        self.mtu: int = options["mtu"]
        self.hairpin: bool = options["hairpinMode"]
        self.promiscuous: bool = options["promiscMode"]
        self.vlan: int = options["vlan"]
        self.trunk = _trunk(options["vlanTrunk"])
        self.preserve_default_vlan: bool = options["preserveDefaultVlan"]
        self.spoof_check: bool = options["macspoofchk"]
        self.dad: bool = options["enabledad"]
        self.isolated: bool = options["portIsolation"]
        self.interface_down: bool = options["disableContainerInterface"]
        self.ipam: str = options["ipam"].string("type")
        self.dns = DNS.given(options["dns"])
        if self.hairpin and self.promiscuous:
            raise invalid_config("cannot set hairpin mode and promiscuous mode at the same time")
        if self.ipam and self.interface_down:
            raise invalid_config("cannot use IPAM when DisableContainerInterface flag is set")
        self.mac = call.runtime_config.string("mac") or call.cni_args.string("mac") or call.arg("MAC")
        if self.mac:
            try:
                mac_bytes(self.mac)
            except ValueError as error:
                raise invalid_config(str(error)) from None

    @property
    def filters_vlans(self) -> bool:
        return bool(self.vlan or self.trunk)

    @property
    def is_guarded(self) -> bool:
        """True if the port is set before it is up, because a running container may raise its own end."""
        return self.isolated or self.spoof_check or self.filters_vlans

    def ensure_bridge(self, call: Call) -> Link:
        return host_bridge.ensure(
            call.host,
            self.bridge,
            call.network,
            mtu=self.mtu,
            filters_vlans=self.filters_vlans,
            promiscuous=self.promiscuous,
        )

    def ensure_gateway(self, call: Call, bridge: Link, addresses: "list[IPNet]") -> Link:
        """Set the addresses on the bridge, or on the host's interface in the VLAN; return that link."""
        gateway = bridge
        if self.vlan:
            from cnihook.links import bridge_vlans

            preserve = self.preserve_default_vlan
            gateway = bridge_vlans.ensure_gateway(
                call, self.bridge, bridge, self.vlan, preserve_default=preserve
            )
        host_bridge.ensure_addresses(call.host, bridge, gateway, addresses, force=self.force_address)
        return gateway


def _trunk(items: "list[NetConf]") -> "list[tuple[int, int]]":
    """Return the ranges of VLANs (first, last) of vlanTrunk."""
    if not items:
        return []
    from cnihook.links import bridge_vlans  # few networks have VLANs

    return [part for item in items for part in bridge_vlans.ranges(item)]


# ADD


def add(call: Call) -> Result:
    conf = Conf(call)
    policy = call.request.policy
    with Undo() as undo:
        undo.push(host_bridge.remove_unused, call.host, conf.bridge)
        # Until the port exists, no other process may find the bridge unused and remove it.
        with locks.bridge(conf.bridge, call.owner):
            bridge = conf.ensure_bridge(call)
            if conf.mac:
                from cnihook.links import neighbours  # few containers request an address

                vlans = [conf.vlan or DEFAULT_VLAN] if bridge.vlan_filtering else []
                neighbours.refuse_taken_mac(call.host, bridge, conf.mac, vlans=vlans)
            outer, inner = veth.add(
                call, mtu=conf.mtu, mac=conf.mac, master=bridge.index, up=not (conf.is_guarded or policy)
            )
            undo.push(call.host.delete_link, outer)
        _set_port(call.host, conf, outer)
        result = Result()
        if conf.spoof_check:
            undo.push(spoofcheck.delete, call)
            spoofcheck.add(call, outer.name, inner.mac)
        if conf.is_guarded and not policy:
            call.host.set_link(outer, up=True)

        if conf.ipam:
            result = ipam.add(call)
            undo.push(ipam.delete, call)
        if policy:
            policy.admit(outer.name, inner.mac, [ip.net for ip in result.ips])
            undo.push(veth.set_down, call)
            call.host.set_link(outer, up=True)
        if conf.ipam:
            if conf.ipam == "static" and not conf.filters_vlans:  # it keeps no leases
                from cnihook.links import neighbours

                own = {ip.net.address for ip in result.ips}
                neighbours.refuse_taken_addresses(call.host, bridge, outer, own)
        result.interfaces = [
            Interface(bridge.name, bridge.mac),
            Interface(outer.name, outer.mac),
            Interface(inner.name, inner.mac, sandbox=call.netns),
        ]
        for ip in result.ips:
            ip.interface = 2
            if conf.gateway and not ip.gateway:
                ip.gateway = ip.net.first() + 1
        gateway = bridge
        if conf.ipam:
            _set_addresses(call, conf, inner, result)
            if conf.gateway:
                gateway = _set_gateway(call, conf, bridge, result)
        elif not conf.interface_down:
            call.sandbox.set_link(inner, up=True)
        if conf.masquerade and result.ips:
            undo.push(masquerade.delete, call, [ip.net.address for ip in result.ips])
            masquerade.add(call, masquerade.widened(result.ips, conf.masquerade_subnets))
        if not conf.interface_down:
            addresses = _gateway_addresses(result) if conf.gateway else []
            host_bridge.wait_for_path(call.host, outer, bridge, gateway, addresses)
            interface.wait(call, inner, result.ips)
        if conf.dns is not None:
            result.dns = conf.dns
        return result


def _set_port(host: Rtnl, conf: Conf, port: Link) -> None:
    """Set what few networks have.  The modules are imported for these only."""
    if conf.hairpin or conf.isolated:
        from cnihook.linux import bridge_ports

        bridge_ports.configure(host, port, hairpin=conf.hairpin or None, isolated=conf.isolated or None)
    if conf.filters_vlans:
        from cnihook.links import bridge_vlans

        preserve = conf.preserve_default_vlan
        bridge_vlans.set_port(host, port, conf.vlan, conf.trunk, preserve_default=preserve)


def _set_addresses(call: Call, conf: Conf, inner: Link, result: Result) -> None:
    with call.sandbox_ns.entered():
        if conf.dad:
            settings.prefer(f"net/ipv6/conf/{call.ifname}/enhanced_dad", 1)
        settings.prefer(f"net/ipv6/conf/{call.ifname}/accept_dad", int(conf.dad))
    devconf.notify_by_arp(call.sandbox, inner)
    if conf.default_gateway:
        for version in (4, 6):
            gateway = next((ip.gateway for ip in result.ips if ip.net.address.version == version), None)
            default = IPNet.parse("0.0.0.0/0" if version == 4 else "::/0")
            if gateway and not any(route.dst == default and route.gw for route in result.routes):
                result.routes.append(Route(default, gateway))
    interface.set_addresses(call, inner, result.ips)
    interface.set_routes(call, inner, result.ips, result.routes)


def _set_gateway(call: Call, conf: Conf, bridge: Link, result: Result) -> Link:
    """Make the host the containers' router; return the link that has its addresses."""
    gateway = conf.ensure_gateway(call, bridge, _gateway_addresses(result))
    if gateway is not bridge:
        result.interfaces.append(Interface(gateway.name, gateway.mac))
    router.forward(call.host, [ip for ip in result.ips if ip.gateway])
    return gateway


def _gateway_addresses(result: Result) -> "list[IPNet]":
    return [IPNet(ip.gateway, ip.net.prefix) for ip in result.ips if ip.gateway]


# DEL


def delete(call: Call) -> None:
    """Remove the link, then release its address.

    nftables comes before the link: both wait for an RCU grace period, and in this order they wait for the
    same one.  The link is down already, so nothing leaves it without masquerading.
    """
    bridge = call.conf.string("bridge") or "cni0"
    addresses = flows.addresses(call)

    def release() -> None:
        host_bridge.remove_port(call, bridge)
        try_each(lambda: flows.forget(call, addresses), lambda: ipam.delete(call))

    try_each(
        lambda: ipam.delete_through_link(call),
        lambda: veth.set_down(call),
        lambda: spoofcheck.delete(call) if call.conf.boolean("macspoofchk") else None,
        lambda: masquerade.delete(call, addresses) if call.conf.boolean("ipMasq") else None,
        lambda: _remove_foreign(call),
        release,
    )


def _remove_foreign(call: Call) -> None:
    masquerades, guards = call.conf.boolean("ipMasq"), call.conf.boolean("macspoofchk")
    if (masquerades or guards) and veth.is_foreign(call):
        from cnihook.nftables import reference_rules  # few attachments are the reference's

        try_each(
            lambda: reference_rules.remove_masquerade(call) if masquerades else None,
            lambda: reference_rules.remove_spoofcheck(call) if guards else None,
        )


# CHECK, GC, STATUS


def check(call: Call) -> None:
    conf = Conf(call)
    if conf.ipam:
        ipam.check(call)
    host = call.host
    bridge = host.find_link(conf.bridge)
    if not bridge or bridge.kind != "bridge":
        raise CniError(INTERNAL, f"bridge {conf.bridge} does not exist")
    if bridge.promiscuous != conf.promiscuous and conf.promiscuous:
        raise CniError(INTERNAL, f"bridge {conf.bridge} is not in promiscuous mode")
    if not bridge.is_up:
        raise CniError(INTERNAL, f"bridge {conf.bridge} is down")
    inner = interface.check(call, "veth")
    outer = veth.check_host_end(call, inner)
    if outer.master != bridge.index:
        raise CniError(INTERNAL, f"{outer.name} is not a port of bridge {conf.bridge}")
    if not outer.is_up:
        raise CniError(INTERNAL, f"{outer.name} is down")
    if conf.gateway:
        _check_gateway(call, conf, bridge)
    if conf.filters_vlans:
        from cnihook.links import bridge_vlans

        bridge_vlans.check_port(host, outer, conf.vlan, conf.trunk)
    if conf.spoof_check and not spoofcheck.is_set(call):
        raise CniError(INTERNAL, f"{outer.name} is not guarded against false MAC addresses")
    if conf.masquerade and call.prev_result:
        masquerade.check(call, masquerade.widened(call.prev_result.ips, conf.masquerade_subnets))


def _check_gateway(call: Call, conf: Conf, bridge: Link) -> None:
    """Raise CniError if the link for the gateway addresses of the containers lacks one of them."""
    gateway = bridge
    if conf.vlan:
        from cnihook.links import bridge_vlans

        gateway = bridge_vlans.find_gateway(call.host, conf.bridge, conf.vlan)
    present = {address.net for address in call.host.addresses(gateway)}
    for ip in call.required_prev_result().ips:
        if ip.gateway and IPNet(ip.gateway, ip.net.prefix) not in present:
            raise CniError(INTERNAL, f"{gateway.name} does not have address {ip.gateway}, the gateway")


def repair(call: Call) -> None:
    """Restore what is on the host: the bridge's and the port's state, the gateway's addresses, nftables."""
    conf = Conf(call)
    result = call.required_prev_result()
    host = call.host
    port = veth.find_host_end(call)
    inner = call.sandbox.find_link(call.ifname)
    if not (port and inner):
        return  # a new pair is needed
    with locks.bridge(conf.bridge, call.owner):
        is_new = not host.find_link(conf.bridge)
        bridge = conf.ensure_bridge(call)
        recorded = next((each for each in result.interfaces if each.name == bridge.name), None)
        if is_new and recorded and recorded.mac and not recorded.sandbox:
            host.set_link(bridge, mac=recorded.mac)  # containers have it as their gateway's
        if conf.is_guarded and port.master != bridge.index:
            host.set_link(port, up=False)
        host.set_link(port, master=bridge.index)
    _set_port(host, conf, port)
    if conf.spoof_check:
        spoofcheck.add(call, port.name, inner.mac)
    host.set_link(port, up=True)
    gateway, addresses = bridge, _gateway_addresses(result) if conf.gateway else []
    if addresses:
        gateway = conf.ensure_gateway(call, bridge, addresses)
        router.forward(host, [ip for ip in result.ips if ip.gateway])
    if conf.masquerade and result.ips:
        masquerade.add(call, masquerade.widened(result.ips, conf.masquerade_subnets))
    host_bridge.wait_for_path(host, port, bridge, gateway, addresses)
    ready.wait_for_link(call.sandbox, inner)


def update(call: Call, before: Call) -> "Result | None":
    from cnihook.links import in_place  # few containers are changed while they run

    return in_place.update(call, before, lambda mtu: in_place.set_pair(call, mtu))


def gc(call: Call) -> None:
    """Remove what attachments to this network left behind, except valid attachments."""
    keep = call.valid_attachments()
    if keep is None:
        return
    owners = {call.owner_of(container_id, ifname) for container_id, ifname in keep}
    bridge = call.conf.string("bridge") or "cni0"
    try_each(
        lambda: veth.gc(call, owners),
        lambda: spoofcheck.gc(call, owners),
        lambda: flows.forget(call, masquerade.gc(call, owners)),
        lambda: ipam.gc(call),
        lambda: host_bridge.remove_unused(call.host, bridge),
        lambda: host_bridge.remove_renamed(call.host, call.network),
    )


def status(call: Call) -> None:
    ipam.status(call)
