# SPDX-License-Identifier: Apache-2.0
"""
How the plugins of a network get what a container requests.

A request is passed as a capability argument if a plugin of the network has the capability (CONVENTIONS.md).
Otherwise it is passed in CNI_ARGS, which the reference's IPAM and interface plugins have always supported.
Routes are added to the configuration.  If no plugin of the chain takes a request, that is an error: the
container would otherwise start without the port that was requested.
"""

import errno

from cnihook.fast.address import Address
from cnihook.protocol import invoke
from cnihook.request.request import NetworkRequest, PortRequest
from cnihook.runtime.networks import Network, ipam_type
from cnihook.types import Value
from cnihook.types.errors import INVALID_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_GUESSES = 100  # ports to try that the kernel chooses: it does not consider published ports


class ResolvedNetwork(Value):
    """A network, with what its plugins get of one container's request.

    The plugins get `ports` only after choose_ports() has run, unless every host port is fixed.  `sticky` is
    the name for which the container's addresses are kept.
    """

    __slots__ = ("capability_args", "cni_args", "ifname", "mdns", "network", "policy", "ports", "sticky")

    def __init__(self, network: Network, ifname: str = "") -> None:
        self.network = network
        self.ifname = ifname
        self.capability_args: dict[str, Any] = {}
        self.cni_args: dict[str, str] = {}
        self.ports: list[PortRequest] = []
        self.policy: dict[str, Any] | None = None  # what its record has for policies
        self.mdns: dict[str, list[str]] = {}  # what its record has for multicast DNS
        self.sticky = ""

    @property
    def chooses_ports(self) -> bool:
        return not all(port.is_fixed for port in self.ports)

    def choose_ports(self) -> None:
        """Choose the host ports that were left open.  Raises CniError if none is free.

        Another container may choose the same port until the plugins have run.
        """
        if self.ports:
            self.capability_args["portMappings"] = choose_host_ports(self.ports)


def resolve(
    chosen: "list[tuple[Network, NetworkRequest]]", common: NetworkRequest
) -> "list[ResolvedNetwork]":
    """Return each network with what its plugins get.  Raises CniError if no plugin takes a request."""
    served = [_resolve_own(network, requested) for network, requested in chosen]
    real = [one for one in served if not one.network.is_loopback]
    if common.ips or common.mac:
        what = f"address {common.ips[0]}" if common.ips else f"MAC address {common.mac}"
        if len(real) != 1:
            raise CniError(
                INVALID_CONFIG,
                f"{what}: the container is on {len(real)} networks",
                "name the network: NETWORK:ip=ADDRESS,mac=ADDRESS",
            )
        _give_addresses(real[0], common.ips, common.mac)
    _give_first(real, common)
    if common.aliases:
        for one in real:
            if "aliases" in one.network.capabilities:
                one.capability_args["aliases"] = common.aliases
    requests = [requested for _network, requested in chosen]
    if any(requested.routes or requested.no_default_route for requested in (common, *requests)):
        from cnihook.request import routes  # few containers request any

        changed = routes.with_requested([one.network for one in served], requests, common)
        for one, network in zip(served, changed, strict=True):
            one.network = network
    for one in served:
        if not one.chooses_ports:
            one.choose_ports()
    return served


def _resolve_own(network: Network, requested: NetworkRequest) -> ResolvedNetwork:
    served = ResolvedNetwork(network, requested.ifname)
    served.cni_args = dict(requested.cni_args)
    if requested.ips or requested.mac:
        _give_addresses(served, requested.ips, requested.mac)
    _give_first([served], requested)
    if requested.aliases and "aliases" in network.capabilities:
        served.capability_args["aliases"] = requested.aliases
    return served


def _give_first(real: "list[ResolvedNetwork]", requested: NetworkRequest) -> None:
    """Pass ports and limits to the first network that takes them: a port can be published only once."""
    if requested.ports:
        first_with(real, "portMappings", "a port to publish").ports += requested.ports
    for capability, value, what in (
        ("bandwidth", requested.bandwidth, "a limit on bandwidth"),
        ("emulate", requested.emulation, "a network to emulate"),
        ("quota", requested.quota, "a quota"),
    ):
        if value:
            first_with(real, capability, what).capability_args[capability] = value


def first_with(real: "list[ResolvedNetwork]", capability: str, what: str) -> ResolvedNetwork:
    for one in real:
        if capability in one.network.capabilities:
            return one
    if not real:
        raise CniError(INVALID_CONFIG, f"{what}: the container is on no network")
    raise _no_plugin_takes(real[0].network, capability, what)


def _no_plugin_takes(network: Network, capability: str, what: str) -> CniError:
    takes: dict[str, list[str]] = {"chained": [], "ipam": []}
    for plugin_type in invoke.built_in_types():
        traits = invoke.traits(plugin_type)
        if traits.kind in takes and any(field.name == capability for field in traits.capabilities):
            takes[traits.kind].append(plugin_type)
    key = f'"capabilities": {{"{capability}": true}}'
    able = [plugin["type"] for plugin in network.plugins if plugin["type"] in takes["chained"]]
    if able:
        hint = f"add {key} to its plugin {able[0]}"
    elif takes["chained"]:
        hint = _with_plugin(network, f'{{"type": "{takes["chained"][0]}", {key}}}')
    else:
        hint = f"add {key} to a plugin with the IPAM plugin {' or '.join(takes['ipam'])}"
    problem = f"network {network.name} ({network.source}): none of its plugins takes {what}"
    return CniError(INVALID_CONFIG, problem, hint)


def _with_plugin(network: Network, plugin: str) -> str:
    if "plugins" in network.raw:
        return f"add {plugin} to its plugins"
    rest = f'{{"type": "{network.plugins[0]["type"]}", ...}}, {plugin}'
    return (
        "it is a single plugin; replace it by a list, a file that ends in .conflist:"
        f' {{"cniVersion": "1.0.0", "name": "{network.name}", "plugins": [{rest}]}}'
    )


def _give_addresses(served: ResolvedNetwork, ips: "list[str]", mac: str) -> None:
    network = served.network
    capabilities = network.capabilities
    cni_args = dict(served.cni_args)
    if ips:
        if "ips" in capabilities:
            served.capability_args["ips"] = ips
        elif any("ips" in invoke.traits(ipam_type(plugin)).takes for plugin in network.plugins):
            cni_args["IP"] = ",".join(ips)
        else:
            raise _no_plugin_takes(network, "ips", "a requested address")
    if mac:
        if "mac" in capabilities:
            served.capability_args["mac"] = mac
        elif any("mac" in invoke.traits(plugin["type"]).takes for plugin in network.plugins):
            cni_args["MAC"] = mac
        else:
            raise _no_plugin_takes(network, "mac", "a MAC address")
    if cni_args:
        served.cni_args = {"IgnoreUnknown": "1", **cni_args}  # a key for one plugin is unknown to another


# Host ports


def choose_host_ports(ports: "list[PortRequest]") -> "list[dict[str, Any]]":
    """Return the capability portMappings for these ports, with host ports that are free now."""
    chosen = {(port.protocol, port.first) for port in ports if port.is_fixed}
    mappings = []
    for port in ports:
        number = port.first if port.is_fixed else free_host_port(port, chosen)
        chosen.add((port.protocol, number))
        mappings.append(port.mapping(number))
    return mappings


def free_host_port(port: PortRequest, taken: "set[tuple[str, int]]") -> int:
    """Return a free host port for `port` that is not in `taken`, as (protocol, number).  Raises CniError."""
    numbers = range(port.first, port.last + 1) if port.last else [0] * _GUESSES
    for number in numbers:
        bound = _bindable(number, port.protocol, port.host_ip)
        if (port.protocol, bound) in taken:
            continue
        if bound and not _is_published(bound, port.protocol, port.host_ip):
            return bound
    raise CniError(
        INVALID_CONFIG, f"no free port from {port.first} to {port.last}/{port.protocol} on the host"
    )


def _bindable(number: int, protocol: str, host_ip: str) -> int:
    """Return the port, or for 0 one that the kernel chooses; return 0 if it is in use."""
    import _socket

    kind = _socket.SOCK_DGRAM if protocol == "udp" else _socket.SOCK_STREAM
    # A socket on :: needs the port in IPv4 as well, so it conflicts with a process that listens in either.
    for address in (host_ip,) if host_ip else ("::", "0.0.0.0"):
        family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
        try:
            probe = _socket.socket(family, kind | _socket.SOCK_CLOEXEC, 0)
        except OSError:
            continue  # a host without IPv6
        try:
            if address == "::":
                probe.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0)
            probe.bind((address, number))
            port: int = probe.getsockname()[1]
            return port
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL or host_ip:
                return 0
        finally:
            probe.close()
    return 0


def _is_published(number: int, protocol: str, host_ip: str) -> bool:
    """Return True if another container has published the port: then no process of the host has it."""
    from cnihook.nftables import ports
    from cnihook.nftables.port import Port

    address = Address.parse(host_ip) if host_ip else None
    versions = (address.version,) if address else (4, 6)
    try:
        return any(ports.is_published(Port(v, protocol, number, address)) for v in versions)
    except OSError:
        return False  # portmap needs the same permission, so it will not publish the port
