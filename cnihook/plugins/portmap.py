# SPDX-License-Identifier: Apache-2.0
"""
portmap: ports of the host that lead to a container (the capability portMappings).

It follows the plugins that made the interface and gave it its addresses.  A port is published for the first
address of each IP version.  It can be reached from outside, from the host, also through 127.0.0.1, and from
the container's own subnet, including the container (`snat`).

A port that a process of the host listens on is rejected.  With "takeOverPorts": true the container gets it,
and the log names the process.
"""

from cnihook.fast.address import Address, IPNet
from cnihook.fast.errors_text import message_with_notes
from cnihook.links import flows, veth
from cnihook.log import notice
from cnihook.nftables import port_chains, ports, table
from cnihook.nftables.port import PROTOCOLS, Port
from cnihook.sdk import Call, CniError, Field, NetConf, Result, Traits, Undo, invalid_config, read
from cnihook.types.errors import INTERNAL, PLUGIN_NOT_AVAILABLE
from cnihook.types.fields import NEW_ONLY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cnihook.linux.conntrack import Flow
    from cnihook.nftables.port_maps import Element
    from cnihook.nftables.ports import Target

_BACKENDS = ("iptables", "nftables")
_CONDITIONS = {4: "conditionsV4", 6: "conditionsV6"}


def _check_host_port(number: int) -> None:
    if not 1 <= number <= 65535:
        raise ValueError(f"Invalid host port number: {number}", "ports are 1 to 65535")


def _check_container_port(number: int) -> None:
    if not 1 <= number <= 65535:
        raise ValueError(f"Invalid container port number: {number}", "ports are 1 to 65535")


def _check_backend(name: str) -> None:
    if name not in _BACKENDS:
        raise ValueError(f"unrecognized backend {name!r}")


_MAPPING = (
    Field("hostPort", int, 0, low=1, high=65535, check=_check_host_port, required=True,
          doc="the port of the host"),
    Field("containerPort", int, 0, low=1, high=65535, check=_check_container_port, required=True,
          doc="the port of the container"),
    Field("protocol", str, required=True, doc="tcp, udp or sctp"),
    Field("hostIP", Address, doc="the address of the host (default: all)"),
)  # fmt: skip
FIELDS = (
    Field("markMasqBit", int, 13, high=31, change=NEW_ONLY, doc="accepted for the reference; has no effect"),
    Field("externalSetMarkChain", str, change=NEW_ONLY, doc="accepted for the reference; has no effect"),
    Field("snat", bool, True, doc="the container's own subnet and the host reach published ports, too"),
    Field("masqAll", bool, doc="the container sees the host's address as the source of all connections"),
    Field("takeOverPorts", bool, doc="publish a port although a process of the host listens on it"),
    Field("conditionsV4", list, of=str, program="nft",
          doc="matches of nft, or -s, -d and -i of iptables, that IPv4 packets must satisfy"),
    Field("conditionsV6", list, of=str, program="nft", doc="the same for IPv6"),
    Field("backend", str, choices=_BACKENDS, check=_check_backend, change=NEW_ONLY,
          doc="whose conditions these are; nftables is used"),
)  # fmt: skip
TRAITS = Traits(
    "chained",
    needs=("nftables",),
    capabilities=(Field("portMappings", list, of=dict, fields=_MAPPING, doc="ports to publish"),),
    releases_by_owner=True,
)


class Mapping:
    """One entry of portMappings.  Without an address of the host, the port is published on all of them."""

    def __init__(self, conf: NetConf) -> None:
        options = read(conf, _MAPPING)
        self.host_port: int = options["hostPort"]
        self.container_port: int = options["containerPort"]
        self.protocol: str = options["protocol"].lower()
        if self.protocol not in PROTOCOLS:
            names = ", ".join(PROTOCOLS)
            raise conf.refuse("protocol", f"must be one of {names}, not {self.protocol!r}")
        self.address: Address | None = options["hostIP"]
        if self.address and self.address.version == 6 and self.address.is_loopback:
            why = "the kernel drops an answer to ::1 that comes from a container"
            raise conf.refuse("hostIP", f"cannot be ::1: {why}", "use 127.0.0.1")
        self.any_address_of = 0  # 0.0.0.0 and :: are all addresses of their own IP version
        if self.address and self.address.is_unspecified:
            self.any_address_of = self.address.version
            self.address = None

    def version_matches(self, version: int) -> bool:
        own = self.address.version if self.address else self.any_address_of
        return own in (0, version)


class Conf:
    """Every key, checked before anything is changed."""

    def __init__(self, call: Call) -> None:
        conf = call.conf
        # The kernel remembers which connections it translated.  So the marks that the reference puts on
        # packets are not needed, nor is a chain of iptables in which another program sets them.
        options = read(conf, FIELDS)
        if options["externalSetMarkChain"] and conf.has("markMasqBit"):
            raise invalid_config("Cannot specify externalSetMarkChain and markMasqBit")
        self.snat: bool = options["snat"]
        all_sources = options["masqAll"]
        self.masquerade = (
            port_chains.NONE if not self.snat else port_chains.ANY if all_sources else port_chains.SUBNET
        )
        self.takes_over: bool = options["takeOverPorts"]
        self.conditions = self._conditions(conf)
        _check_fit(conf, options["backend"])
        self.mappings = [Mapping(item) for item in call.runtime_config.objects("portMappings")]

    @staticmethod
    def _conditions(conf: NetConf) -> "dict[int, str]":
        keys = {version: key for version, key in _CONDITIONS.items() if conf.has(key)}
        if not keys:
            return {}
        from cnihook.nftables import conditions

        return {version: conditions.read(conf, key, version) for version, key in keys.items()}

    def ports(self, nets: "list[IPNet]") -> "dict[Port, Target]":
        """Return the ports to publish, with their targets.  Raises CniError for a contradiction."""
        targets: dict[Port, Target] = {}
        for net in nets:
            version = net.address.version
            for mapping in filter(lambda mapping: mapping.version_matches(version), self.mappings):
                port = Port(version, mapping.protocol, mapping.host_port, mapping.address)
                target = net.address, mapping.container_port
                if targets.setdefault(port, target) != target:
                    raise _contradiction(port)
        # A port that is published on all addresses is published on each.
        for port in [port for port in targets if port.address]:
            everywhere = Port(port.version, port.protocol, port.number)
            if everywhere in targets:
                if targets.pop(port) != targets[everywhere]:
                    raise _contradiction(port)
        return targets


def _contradiction(port: Port) -> CniError:
    return invalid_config(f"host port {port} is mapped to two ports of the container")


def _check_fit(conf: NetConf, backend: str) -> None:
    """Raise CniError if the options do not fit the backend, which has no other effect here."""
    if not backend:
        return
    from cnihook.nftables import conditions

    other = _BACKENDS[1 - _BACKENDS.index(backend)]
    wrong = [
        key
        for key in _CONDITIONS.values()
        if conf.strings(key) and conditions.are_iptables(conf, key) != (backend == "iptables")
    ]
    if backend == "nftables" and conf.string("externalSetMarkChain"):
        wrong.append("externalSetMarkChain")
    if wrong:
        options = f"{other}-specific options {wrong}"
        raise invalid_config(f"{backend} backend was requested but configuration contains {options}")


# ADD


def add(call: Call) -> Result:
    conf = Conf(call)
    result = call.prev_result
    if result is None:
        raise CniError(
            INTERNAL, "must be called as chained plugin", "put it after the plugin that has `ipam`"
        )
    nets = _container_nets(call, result)
    targets = conf.ports(nets)
    if not targets:
        return result
    nets = [net for net in nets if any(port.version == net.address.version for port in targets)]

    _respect_listeners(call, conf, targets)
    with Undo() as undo:
        undo.push(ports.delete, call, targets, conf.conditions)
        ports.add(
            call,
            targets,
            nets,
            conditions=conf.conditions,
            masquerade=conf.masquerade,
        )
        _forget_flows_to(call, targets)
    return result


def _container_nets(call: Call, result: Result) -> "list[IPNet]":
    """Return the container's first address of each IP version, IPv4 first."""
    nets: dict[int, IPNet] = {}
    for ip in result.ips:
        is_valid = ip.interface is not None and 0 <= ip.interface < len(result.interfaces)
        interface = result.interfaces[ip.interface or 0] if is_valid else None
        if interface and not (interface.name == call.ifname and interface.sandbox):
            continue
        nets.setdefault(ip.net.address.version, ip.net)
    return [nets[version] for version in sorted(nets)]


def _respect_listeners(call: Call, conf: Conf, wanted: "dict[Port, Target]") -> None:
    """Raise CniError for a port that a process of the host listens on.

    A repair restores what was published before that process started, so it reports the process and
    continues.
    """
    from cnihook.nftables import host_ports  # not needed if no port is published

    if not (conf.takes_over or call.request.is_repair):
        host_ports.refuse_taken(call, wanted)
        return
    for sentence in host_ports.describe_taken(call, wanted):
        notice(f"portmap: {sentence}")


# Flows of UDP


def _forget_flows_to(call: Call, wanted: "dict[Port, Target]") -> None:
    """Delete earlier flows, which would still lead to the host, or to a container that is gone."""
    own: set[Address] = set()

    def is_meant(flow: "Flow") -> bool:
        if Port(flow.version, "udp", flow.port, flow.destination) in wanted:
            return True
        if Port(flow.version, "udp", flow.port) not in wanted:
            return False
        # On every address of the host.  A flow through the host to this port of another machine is not
        # meant.
        own.update(address.net.address for address in ([] if own else call.host.addresses()))
        return flow.destination in own or flow.destination.is_loopback

    _forget_flows(wanted, is_meant)


def _forget_flows_of(call: Call, gone: "list[Element]") -> None:
    """Delete the flows that came by these ports, because another container or the host gets these next."""
    targets = {(element.port.number, *element.target) for element in gone}
    flows.forget_later(
        call,
        {address for _port, address, _number in targets},
        lambda flow: (flow.port, flow.answerer, flow.answerer_port) in targets,
    )


def _forget_flows(published: "Iterable[Port]", is_meant: "Callable[[Flow], bool]") -> None:
    """Delete flows of UDP.  Raises OSError if one stays, because its client cannot reach the container."""
    numbers: dict[int, set[int]] = {}
    for port in published:
        if port.protocol == "udp":
            numbers.setdefault(port.version, set()).add(port.number)
    if not (numbers and flows.count()):
        return
    from cnihook.linux import conntrack

    for version, some in numbers.items():
        for flow in conntrack.flows(version, some):
            if is_meant(flow):
                conntrack.delete(flow)


# DEL, CHECK, GC, STATUS


def delete(call: Call) -> None:
    """Unpublish the ports.  Namespace, result and mappings may be missing: they only show where to look."""
    targets: dict[Port, Target] = {}
    conditions: dict[int, str] = {}
    try:
        conf = Conf(call)
        if call.prev_result:
            targets = conf.ports(_container_nets(call, call.prev_result))
            conditions = conf.conditions
    except CniError:
        pass  # edited since, or damaged: the ports are unpublished nevertheless
    gone = ports.delete(call, targets, conditions)
    if not call.request.is_repair:
        _forget_flows_of(call, gone)
    if not gone and call.runtime_config.list("portMappings") and veth.is_foreign(call):
        from cnihook.nftables import reference_rules  # few attachments are the reference's

        reference_rules.remove_ports(call)
        flows.forget_later(call, flows.addresses(call), lambda flow: flow.destination != flow.answerer)


def check(call: Call) -> None:
    conf = Conf(call)
    nets = _container_nets(call, call.required_prev_result())
    targets = conf.ports(nets)
    if targets:
        nets = [net for net in nets if any(port.version == net.address.version for port in targets)]
        ports.check(call, targets, nets, conditions=conf.conditions)


def repair(call: Call) -> None:
    """Run ADD: it takes over what remains of an earlier ADD."""
    add(call)


def update(call: Call, before: Call) -> None:
    """Publish and unpublish only the ports that differ.  Established connections continue."""
    from cnihook.nftables import port_changes  # not needed by ADD and DEL

    conf, old = Conf(call), Conf(before)
    nets = _container_nets(call, call.required_prev_result())
    targets, old_targets = conf.ports(nets), old.ports(nets)
    _respect_listeners(call, conf, {port: targets[port] for port in targets.keys() - old_targets.keys()})
    gone, new = port_changes.change(
        call,
        targets,
        nets,
        before=old_targets,
        conditions=(conf.conditions, old.conditions),
        masquerade=conf.masquerade,
    )
    _forget_flows_to(call, {port: targets[port] for port in new})
    port_changes.forget(call, gone)


def gc(call: Call) -> None:
    """Unpublish what attachments to this network left behind, except valid attachments."""
    keep = call.valid_attachments()
    if keep is None:
        return
    owners = {call.owner_of(container_id, ifname) for container_id, ifname in keep}
    _forget_flows_of(call, ports.gc(call, owners))


def status(_call: Call) -> None:
    try:
        table.chains()
    except OSError as error:
        raise CniError(
            PLUGIN_NOT_AVAILABLE,
            f"nftables cannot be used: {message_with_notes(error)}",
            "portmap publishes ports with it",
        ) from None
