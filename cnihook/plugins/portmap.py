# SPDX-License-Identifier: Apache-2.0
"""
portmap: ports of the host that lead to a container (the capability portMappings).

It follows the plugins that made the interface and gave it its addresses.  A port is published for the first
address of each IP version.  Its target is not only reached from outside, but from the host, also by
127.0.0.1, and from the container's own subnet, itself included (`snat`).

A port that a process of the host listens on is refused.  With "takeOverPorts": true the container gets it,
and the log names the process.
"""

from cnihook.lean.address import Address, IPNet
from cnihook.lean.words import describe
from cnihook.log import notice
from cnihook.sdk import (
    Call,
    CniError,
    NetConf,
    Result,
    Undo,
    flows,
    invalid_config,
    port_chains,
    ports,
    table,
    veth,
)
from cnihook.sdk.port import PROTOCOLS, Port
from cnihook.spec.errors import INTERNAL, PLUGIN_NOT_AVAILABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cnihook.linux.conntrack import Flow
    from cnihook.sdk.port_maps import Element
    from cnihook.sdk.ports import Target

_BACKENDS = ("iptables", "nftables")
_CONDITIONS = {4: "conditionsV4", 6: "conditionsV6"}


class Mapping:
    """One of portMappings.  Without an address of the host, the port is that of all of them."""

    def __init__(self, conf: NetConf) -> None:
        self.host_port = _port(conf, "hostPort", "host")
        self.container_port = _port(conf, "containerPort", "container")
        self.protocol = conf.string("protocol").lower()
        if self.protocol not in PROTOCOLS:
            known = ", ".join(PROTOCOLS)
            raise conf.refuse("protocol", f"must be one of {known}, not {self.protocol!r}")
        self.address = conf.address("hostIP")
        if self.address and self.address.version == 6 and self.address.is_loopback:
            why = "the kernel lets no answer to ::1 come back from a container"
            raise conf.refuse("hostIP", f"cannot be ::1: {why}", "127.0.0.1 can be published on")
        self.any_address_of = 0  # 0.0.0.0 and :: are all addresses of their own IP version
        if self.address and self.address.is_unspecified:
            self.any_address_of = self.address.version
            self.address = None

    def version_matches(self, version: int) -> bool:
        wanted = self.address.version if self.address else self.any_address_of
        return wanted in (0, version)


def _port(conf: NetConf, key: str, whose: str) -> int:
    number = conf.integer(key, default=0, low=-(1 << 63), high=1 << 63)
    if not 1 <= number <= 65535:
        raise conf.refuse(key, f"is wrong: Invalid {whose} port number: {number}", "ports are 1 to 65535")
    return number


class Conf:
    """Every key, checked before anything is changed."""

    def __init__(self, call: Call) -> None:
        conf = call.conf
        # The kernel remembers of each connection that it was translated.  So the marks that the reference
        # puts on packets are needed no more, nor a chain of iptables that somebody else has for that.
        conf.integer("markMasqBit", default=13, low=0, high=31)
        if conf.string("externalSetMarkChain") and conf.has("markMasqBit"):
            raise invalid_config("Cannot specify externalSetMarkChain and markMasqBit")
        self.snat = conf.boolean("snat", default=True)
        everybody = conf.boolean("masqAll")
        self.masquerade = (
            port_chains.NONE if not self.snat else port_chains.ANY if everybody else port_chains.SUBNET
        )
        self.takes_over = conf.boolean("takeOverPorts")
        self.conditions = self._conditions(conf)
        _check_backend(conf)
        self.mappings = [Mapping(item) for item in call.runtime_config.objects("portMappings")]

    @staticmethod
    def _conditions(conf: NetConf) -> "dict[int, str]":
        given = {version: key for version, key in _CONDITIONS.items() if conf.has(key)}
        if not given:
            return {}
        from cnihook.sdk import conditions

        return {version: conditions.read(conf, key, version) for version, key in given.items()}

    def ports(self, nets: "list[IPNet]") -> "dict[Port, Target]":
        """What is published, and where it leads.  CniError where that contradicts itself."""
        found: dict[Port, Target] = {}
        for net in nets:
            version = net.address.version
            for mapping in filter(lambda mapping: mapping.version_matches(version), self.mappings):
                port = Port(version, mapping.protocol, mapping.host_port, mapping.address)
                target = net.address, mapping.container_port
                if found.setdefault(port, target) != target:
                    raise _contradiction(port)
        # What is published on all addresses is so on each.
        for port in [port for port in found if port.address]:
            everywhere = Port(port.version, port.protocol, port.number)
            if everywhere in found:
                if found.pop(port) != found[everywhere]:
                    raise _contradiction(port)
        return found


def _contradiction(port: Port) -> CniError:
    return invalid_config(f"host port {port} is to lead to two ports of the container")


def _check_backend(conf: NetConf) -> None:
    """The backend makes no difference here, but it has to fit what it would be given."""
    backend = conf.string("backend")
    if not backend:
        return
    if backend not in _BACKENDS:
        raise conf.refuse("backend", f"is wrong: unrecognized backend {backend!r}")
    from cnihook.sdk import conditions

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
        raise CniError(INTERNAL, "must be called as chained plugin", "put it behind the one that has `ipam`")
    nets = _container_nets(call, result)
    wanted = conf.ports(nets)
    if not wanted:
        return result
    nets = [net for net in nets if any(port.version == net.address.version for port in wanted)]

    _respect_listeners(call, conf, wanted)
    with Undo() as undo:
        undo.push(ports.delete, call, wanted, conf.conditions)
        ports.add(
            call,
            wanted,
            nets,
            conditions=conf.conditions,
            masquerade=conf.masquerade,
        )
    _forget_flows_to(call, wanted)
    return result


def _container_nets(call: Call, result: Result) -> "list[IPNet]":
    """The first address of each IP version that is the container's, IPv4 first."""
    found: dict[int, IPNet] = {}
    for ip in result.ips:
        known = ip.interface is not None and 0 <= ip.interface < len(result.interfaces)
        interface = result.interfaces[ip.interface or 0] if known else None
        if interface and not (interface.name == call.ifname and interface.sandbox):
            continue
        found.setdefault(ip.net.address.version, ip.net)
    return [found[version] for version in sorted(found)]


def _respect_listeners(call: Call, conf: Conf, wanted: "dict[Port, Target]") -> None:
    """Refuse a port that a process of the host listens on.

    A repair restores what was published before that process came, so it reports it and goes on.
    """
    from cnihook.sdk import host_ports  # where no port is published, it is not needed

    if not (conf.takes_over or call.request.is_repair):
        host_ports.refuse_taken(call, wanted)
        return
    for sentence in host_ports.describe_taken(call, wanted):
        notice(f"portmap: {sentence}")


# Flows of UDP


def _forget_flows_to(call: Call, wanted: "dict[Port, Target]") -> None:
    """Those from before, which would go on to the host, or to a container that is gone."""
    own: set[Address] = set()

    def is_meant(flow: "Flow") -> bool:
        if Port(flow.version, "udp", flow.port, flow.destination) in wanted:
            return True
        if Port(flow.version, "udp", flow.port) not in wanted:
            return False
        # On every address of the host, that is; what passes through it to the same port is somebody else's.
        own.update(address.net.address for address in ([] if own else call.host.addresses()))
        return flow.destination in own or flow.destination.is_loopback

    _forget_flows(wanted, is_meant)


def _forget_flows_of(call: Call, gone: "list[Element]") -> None:
    """Delete the flows that came by these ports, since another container or the host has them next."""
    targets = {(element.port.number, *element.target) for element in gone}
    flows.forget_later(
        call,
        {address for _port, address, _number in targets},
        lambda flow: (flow.port, flow.answerer, flow.answerer_port) in targets,
    )


def _forget_flows(published: "Iterable[Port]", is_meant: "Callable[[Flow], bool]") -> None:
    """Raises OSError: a flow that stays keeps its client from the container."""
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
    """Needs neither namespace nor result nor mappings.  What ADD was sent says where to look, no more."""
    wanted: dict[Port, Target] = {}
    conditions: dict[int, str] = {}
    try:
        conf = Conf(call)
        if call.prev_result:
            wanted = conf.ports(_container_nets(call, call.prev_result))
            conditions = conf.conditions
    except CniError:
        pass  # edited since, or damaged: no reason to keep what is ours
    gone = ports.delete(call, wanted, conditions)
    if not call.request.is_repair:
        _forget_flows_of(call, gone)
    if not gone and call.runtime_config.list("portMappings") and veth.is_foreign(call):
        from cnihook.sdk import reference  # few attachments are the reference's

        reference.remove_ports(call)
        flows.forget_later(call, flows.addresses(call), lambda flow: flow.destination != flow.answerer)


def check(call: Call) -> None:
    conf = Conf(call)
    nets = _container_nets(call, call.required_prev_result())
    wanted = conf.ports(nets)
    if wanted:
        nets = [net for net in nets if any(port.version == net.address.version for port in wanted)]
        ports.check(call, wanted, nets, conditions=conf.conditions)


def repair(call: Call) -> None:
    """An ADD takes what is left of an earlier one for its own."""
    add(call)


def gc(call: Call) -> None:
    """Unpublish what attachments to this network left behind that are not on the keep-list."""
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
            f"nftables cannot be used: {describe(error)}",
            "ports are published with it",
        ) from None
