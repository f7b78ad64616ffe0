# SPDX-License-Identifier: Apache-2.0
"""Endpoints: the attachments of this host as policies see them, with names, labels and addresses."""

from cnihook.links import veth
from cnihook.linux import capabilities, fdb
from cnihook.linux.netns import NetNS
from cnihook.policy.document import Selection
from cnihook.protocol import invoke
from cnihook.protocol.call import Call, Invocation
from cnihook.runtime import attachment
from cnihook.runtime.networks import Network
from cnihook.runtime.records import Record
from cnihook.types.config import LenientConf, NetConf
from cnihook.types.errors import INVALID_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cnihook.fast.address import Address, IPNet
    from cnihook.types.result import Result


class Endpoint:
    """One attachment.

    `names`: the container's ID and its names.  `port`: the host's end of its link, `bridge` its bridge, if
    any.  With `is_inside`, the host does not route its packets, and its policies are in force in its own
    namespace.  `reason` is why no policy can be enforced on it; empty if one can.
    """

    __slots__ = (
        "addresses", "bridge", "container_id", "dns", "gateways", "ifname", "is_inside", "labels", "mac",
        "names", "nets", "netns", "network", "owner", "port", "process", "reason", "request",
    )  # fmt: skip

    def __init__(self, record: Record, network: Network, names: "Collection[str]" = ()) -> None:
        wants = record.extra.get("policy")
        wants = wants if isinstance(wants, dict) else {}
        self.container_id = record.container_id
        self.network = network.name
        self.ifname = record.ifname
        self.netns = record.netns
        self.process = record.process
        self.owner = owner_of(record)
        self.names = frozenset((record.container_id, *names, *_names_of_pod(record)))
        self.labels: dict[str, str] = dict(wants.get("labels") or {})
        self.request = wants
        self.dns: list[str] = list(wants.get("dns") or ())
        self.nets: list[IPNet] = []  # the addresses with their prefixes
        self.addresses: list[Address] = []
        self.gateways: list[Address] = []
        self.port = self.mac = ""
        first = LenientConf(network.plugins[0])
        traits = invoke.traits(first.string("type"))
        self.is_inside = traits.on_parent or not traits.is_gateway(first.raw)
        self.bridge = traits.host_link(first.raw) if "bridge" in traits.makes and not self.is_inside else ""
        self.reason = _why_not(first, record.plugin_dirs)

    def set_link(self, port: str, mac: str, nets: "Iterable[IPNet]") -> None:
        self.port = "" if self.is_inside else port
        self.mac = mac
        self.nets = list(nets)
        self.addresses = [net.address for net in self.nets]

    def set_result(self, result: "Result") -> None:
        """Take the link and the addresses from the result of ADD."""
        own = set(veth.names_for(self.owner))
        port = next((one.name for one in result.interfaces if not one.sandbox and one.name in own), "")
        mac = next((one.mac for one in result.interfaces if one.sandbox and one.name == self.ifname), "")
        self.gateways = [ip.gateway for ip in result.ips if ip.gateway]
        is_on_host = not (self.reason or self.is_inside)
        if not port and is_on_host:  # a result before version 0.3.0 has no interfaces
            port, mac = self._link_on_host()
        self.set_link(port, mac.lower(), (ip.net for ip in result.ips))
        if not port and is_on_host:
            self.reason = "cnihook did not make its link"

    @property
    def has_net_admin(self) -> bool:
        """True if the container's process can change the rules in its namespace, or that is not known."""
        own = self.request.get("netAdmin")
        if isinstance(own, bool):
            return own
        pid = self.process.pid if self.process else 0
        return capabilities.may_have(pid, capabilities.NET_ADMIN) if pid else True

    @property
    def servers(self) -> "list[str]":
        """The name servers that the container was started with; none for those of the host."""
        return list(self.request.get("servers") or ())

    def _link_on_host(self) -> "tuple[str, str]":
        """Return the host's end of the link and the MAC address of the other one; empty if it is gone."""
        host = NetNS.current()
        try:
            for name in veth.names_for(self.owner):
                link = host.rtnl.find_link(name)
                if link and link.kind == "veth" and link.alias == self.owner:
                    inner = fdb.other_end(host.rtnl, link)
                    return (name, inner.mac) if inner else ("", "")
        finally:
            host.close()
        return "", ""

    def refuse(self, reason: str = "", hint: str = "") -> CniError:
        return CniError(
            INVALID_CONFIG,
            f"container {self.container_id} on network {self.network}: a policy cannot be enforced: "
            f"{reason or self.reason}",
            hint
            or "policies need a network of bridge, ptp, macvlan, ipvlan, vlan, host-device, tap or dummy",
        )

    def matches(self, selector: str) -> bool:
        """Return True if container:PATTERN, label:KEY[=VALUE] or network:NAME selects this endpoint."""
        kind, _, value = selector.partition(":")
        if kind == "network":
            return self.network == value
        if kind == "label":
            key, equals, label = value.partition("=")
            return key in self.labels and (not equals or self.labels[key] == label)
        return any(_is_like(name, value) for name in self.names)

    def is_selected(self, selection: Selection) -> bool:
        return (
            all(self.labels.get(key) == value for key, value in selection.labels.items())
            and (not selection.networks or self.network in selection.networks)
            and (
                not selection.containers
                or any(self.matches(f"container:{pattern}") for pattern in selection.containers)
            )
        )


def owner_of(record: Record) -> str:
    """Return the owner of what an attachment has in the kernel."""
    request = Invocation(record.container_id, "", record.ifname)
    return Call("CHECK", NetConf({"name": record.network}), request).owner


def _is_like(name: str, pattern: str) -> bool:
    if "*" not in pattern and "?" not in pattern:
        return name == pattern
    from fnmatch import fnmatchcase  # 4 ms, and few policies have patterns

    return fnmatchcase(name, pattern)


def _names_of_pod(record: Record) -> "list[str]":
    name, space = (record.cni_args.get(f"K8S_POD_{key}", "") for key in ("NAME", "NAMESPACE"))
    return [name, f"{space}/{name}"] if name else []


def _why_not(first: LenientConf, plugin_dirs: "list[str] | None") -> str:
    """Return why no place sees all traffic of a network; empty if the host or the namespace does."""
    plugin_type = first.string("type")
    try:
        if invoke.find(plugin_type, plugin_dirs) is not None:
            return f"its plugin {plugin_type} is a program of another origin"
    except CniError:
        return f"its plugin {plugin_type} does not exist"
    traits = invoke.traits(plugin_type)
    if first.string("bridge") and "bridge" not in traits.makes:
        return "its link is a port of a bridge in the namespace of the container"
    ipam = first.object("ipam").string("type")
    if not ipam or invoke.traits(ipam).from_server:
        return "its addresses are not known before its first packet"
    if first.string("mode") == "l3s":
        return "in mode l3s, what it receives does not pass the netfilter of its namespace"
    if not traits.is_gateway(first.raw):
        return ""
    if first.raw.get("vlan") or first.raw.get("vlanTrunk"):
        return "its bridge separates VLANs"
    if first.boolean("enabledad"):
        return '"enabledad" would find the host, which answers for every address on a bridge with policies'
    return ""


class World:
    """All endpoints, and the addresses of the host."""

    def __init__(self, endpoints: "Iterable[Endpoint]", host: "Collection[Address]" = ()) -> None:
        self.endpoints = list(endpoints)
        self.host = frozenset(host)
        self.by_address = {address: one for one in self.endpoints for address in one.addresses}

    def is_member(self, selector: str, address: "Address") -> bool:
        endpoint = self.by_address.get(address)
        return endpoint is not None and (selector == OF_ALL or endpoint.matches(selector))

    def is_host(self, address: "Address") -> bool:
        return address in self.host or address.is_loopback


OF_ALL = "all containers"  # as a selector


def of_records(present: "Iterable[Record]", *, named: bool = True) -> "list[Endpoint]":
    """Return the endpoints of records that have a result.  `named`: with the names of engines.

    An attachment whose record does not hold its configuration is left out.
    """
    names: dict[str, list[str]] = {}
    if named:
        from cnihook.oci import engines  # the names of all containers of all engines

        for one in engines.containers():
            if one.name:
                names.setdefault(one.network_of, []).append(one.name)
    endpoints = []
    for record in present:
        if record.result is None:
            continue
        try:
            network = attachment.network_of(record)
        except CniError:
            continue
        result = attachment.result_of(network, record)
        if result is None or network.is_loopback:
            continue
        endpoint = Endpoint(record, network, names.get(record.container_id, ()))
        endpoint.set_result(result)
        endpoints.append(endpoint)
    return endpoints
