# SPDX-License-Identifier: Apache-2.0
"""The request of a container to its networks.  options.py and npwg.py read it, resolve.py serves it."""

from cnihook.fast.address import Address, IPNet
from cnihook.types import Value
from cnihook.types.result import DNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from cnihook.runtime.networks import Network

    class Guard(Protocol):
        """The bounds on a request of annotations; bounds.py has the class."""

        def check_network(self, network: Network, request: "ContainerRequest") -> None: ...

        def admits(self, network: Network) -> bool: ...


class PortRequest(Value):
    """A published port: one of `first` to `last` on the host, which leads to one of the container.

    Any free port of the host if both are 0.  `host_ip` is empty for all addresses of the host.
    """

    __slots__ = ("container", "first", "host_ip", "last", "protocol")

    def __init__(self, container: int, first: int, last: int, protocol: str, host_ip: str) -> None:
        self.container = container
        self.first = first
        self.last = last
        self.protocol = protocol
        self.host_ip = host_ip

    @property
    def is_fixed(self) -> bool:
        return self.first == self.last != 0

    def mapping(self, number: int) -> "dict[str, Any]":
        """Return an item of the capability portMappings."""
        item: dict[str, Any] = {
            "hostPort": number,
            "containerPort": self.container,
            "protocol": self.protocol,
        }
        if self.host_ip:
            item["hostIP"] = self.host_ip
        return item


class HostPort(Value):
    """A published port of the host.  `host_ip` is empty for any address on which it may be published."""

    __slots__ = ("host_ip", "number", "protocol")

    def __init__(self, number: int, protocol: str, host_ip: str) -> None:
        self.number = number
        self.protocol = protocol
        self.host_ip = host_ip


class NetworkRequest(Value):
    """A requested network, and what is requested on it.

    Without an `ifname`, the interface gets the next free ethN.  `ips` are addresses, with or without a
    prefix.  `bandwidth`, `emulation` and `quota` are capabilities.  Each of `routes` is (destination,
    gateway or None).  `cni_args` is what CNI_ARGS has in addition.
    """

    __slots__ = (
        "aliases", "bandwidth", "cni_args", "emulation", "ifname", "ips", "mac", "network",
        "no_default_route", "ports", "quota", "routes",
    )  # fmt: skip

    def __init__(self, network: str, ifname: str = "") -> None:
        self.network = network
        self.ifname = ifname
        self.ips: list[str] = []
        self.mac = ""
        self.ports: list[PortRequest] = []
        self.bandwidth: dict[str, int] = {}
        self.emulation: dict[str, dict[str, int]] = {}
        self.quota: dict[str, int] = {}
        self.aliases: list[str] = []
        self.routes: list[tuple[IPNet, Address | None]] = []
        self.no_default_route = False
        self.cni_args: dict[str, str] = {}


class ContainerRequest(Value):
    """All that a container requests.  `networks` is None for all configured networks.

    `common` is what was requested without a network.  `hosts` are (name, address); the address
    `host-gateway` is the host's on the container's first network.  `guard` is set if annotations request a
    part of this.  `egress` and `ingress` are lists of the short form, `policies` names of policies;
    `weak_policy`: they are enforced also where CAP_NET_ADMIN of the container can remove them.
    `sticky`: the name for which its addresses are kept.  `mdns`: what its record has for multicast DNS.
    """

    __slots__ = (
        "common", "dns", "egress", "guard", "hostname", "hosts", "ingress", "labels", "mdns", "networks",
        "policies", "sticky", "weak_policy",
    )  # fmt: skip

    def __init__(self, wanted: "list[NetworkRequest] | None" = None) -> None:
        self.networks = wanted
        self.common = NetworkRequest("")
        self.dns = DNS()
        self.hostname = ""
        self.hosts: list[tuple[str, str]] = []
        self.sticky = ""
        self.mdns: dict[str, list[str]] = {}
        self.guard: Guard | None = None
        self.labels: dict[str, str] = {}
        self.egress = ""
        self.ingress = ""
        self.policies: list[str] = []
        self.weak_policy = False

    @property
    def has_policy(self) -> bool:
        return bool(self.labels or self.egress or self.ingress or self.policies)

    def aliases_on(self, network: str) -> "list[str]":
        own = [
            alias
            for requested in self.networks or ()
            if requested.network == network
            for alias in requested.aliases
        ]
        return [*own, *self.common.aliases]

    def merged_with(self, other: "ContainerRequest") -> "ContainerRequest":
        """Return this request, completed by the other's where a value is empty."""
        merged = ContainerRequest(other.networks if self.networks is None else self.networks)
        for into, first, second in (
            (merged, self, other),
            (merged.common, self.common, other.common),
            (merged.dns, self.dns, other.dns),
        ):
            for name in type(into).__slots__:
                if name not in ("networks", "common", "dns"):
                    setattr(into, name, getattr(first, name) or getattr(second, name))
        return merged
