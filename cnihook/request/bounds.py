# SPDX-License-Identifier: Apache-2.0
"""
Bounds on what the annotations of a container may request.

The author of the bundle or, with some engines, of the image writes the annotations.  The operator writes the
bounds.  They apply to annotations only: the operator also sets the flags of the hook and of the commands.
"""

from cnihook.request.request import ContainerRequest, NetworkRequest, PortRequest
from cnihook.runtime.networks import Network
from cnihook.types.errors import INVALID_CONFIG, CniError
from cnihook.types.names import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Range = tuple[int, int]  # first and last port

FILE = "/etc/cnihook/config.json"  # the bounds of this host; request.bounds_file reads it

# Keys of CNI_ARGS, and the option that has the same effect.
_SAME_AS = {"IP": "ip", "MAC": "mac-address", "GATEWAY": "route"}


class Bounds:
    """The rules of one source: a file, or the arguments of the hook.  None means that there is no rule.

    `where` is the place of a rule for messages, with `{}` for its name.
    """

    __slots__ = ("allow", "networks", "ports", "trust_images", "where")

    def __init__(self, where: str) -> None:
        self.where = where
        self.allow: frozenset[str] | None = None  # options, by the names of their annotations
        self.networks: frozenset[str] | None = None
        self.ports: list[Range] | None = None  # of the host
        self.trust_images = False

    def refuse(self, rule: str, what: str, allowed: str) -> CniError:
        written = self.where.replace("{}", rule)
        return _refuse(f"{what}: {written} allows {allowed or 'none'}", "the operator can extend that")


def _refuse(msg: str, details: str) -> CniError:
    return CniError(INVALID_CONFIG, msg, details)


class Guard:
    """The requests of one container's annotations, and the networks that they may concern."""

    __slots__ = ("_bounds", "_source", "asked")

    def __init__(self, asked: ContainerRequest, source: str, bounds: "list[Bounds]") -> None:
        """`source` is the annotation that names the networks."""
        self.asked = asked
        self._source = source
        self._bounds = bounds

    def check_options(self) -> None:
        """Raise CniError for an option that the bounds do not allow.

        A port that leaves the host port open gets a range that is allowed.
        """
        for bounds in self._bounds:
            for option, annotation, value in self._options():
                if bounds.allow is not None and option not in bounds.allow:
                    raise bounds.refuse("allow", _named(option, annotation, value), _listed(bounds.allow))
            for requested in self.asked.networks or ():
                if bounds.networks is not None and requested.network not in bounds.networks:
                    what = f"annotation {self._source}, network {requested.network}"
                    raise bounds.refuse("networks", what, _listed(bounds.networks))
        for requested, annotation in self._wants():
            for port in requested.ports:
                self._bound_port(port, annotation)

    def _bound_port(self, port: PortRequest, annotation: str) -> None:
        ranges: "list[Range]" = [(1, 65535)]
        for bounds in self._bounds:
            if bounds.ports is None:
                continue
            if port.last and not any(
                first <= port.first and port.last <= last for first, last in bounds.ports
            ):
                raise self._refuse_port(port, annotation, bounds)
            ranges = [
                (max(first, low), min(last, high))
                for first, last in ranges
                for low, high in bounds.ports
                if max(first, low) <= min(last, high)
            ]
            if not ranges:
                raise self._refuse_port(port, annotation, bounds)
        if not port.last and ranges != [(1, 65535)]:
            port.first, port.last = max(ranges, key=lambda each: each[1] - each[0])

    @staticmethod
    def _refuse_port(port: PortRequest, annotation: str, bounds: Bounds) -> CniError:
        allowed = ",".join(_range(first, last) for first, last in bounds.ports or ())
        return bounds.refuse("ports", _named("publish", annotation, _port(port)), allowed)

    def check_network(self, network: Network, request: ContainerRequest) -> None:
        """Raise CniError if the annotations, a part of `request`, may not have this network.

        Flags of the operator may name any network, unless annotations request something on it.
        """
        option = next(self._on_networks(), None)
        if self.asked.networks is not None and request.networks is self.asked.networks:
            option = ("networks", self._source, network.name)
        if option and (error := self._refusal(network, _named(*option))):
            raise error

    def admits(self, network: Network) -> bool:
        """Return True if annotations may request this network."""
        return self._refusal(network, "") is None

    def _refusal(self, network: Network, what: str) -> "CniError | None":
        if network.is_loopback:
            return None
        if not network.takes_annotations:
            return _refuse(
                f'{what}: network {network.name} ({network.source}) has "cnihook": {{"annotations": false}}',
                "only flags of the operator, such as --network of the hook, attach a container to it",
            )
        for bounds in self._bounds:
            if bounds.networks is not None and network.name not in bounds.networks:
                return bounds.refuse(
                    "networks", f"{what} on network {network.name}", _listed(bounds.networks)
                )
        return None

    # What is requested

    def _wants(self) -> "Iterator[tuple[NetworkRequest, str]]":
        """Yield requests, each with the annotation of all its options; empty if each option has its own."""
        yield self.asked.common, ""
        for requested in self.asked.networks or ():
            yield requested, self._source

    def _options(self) -> "Iterator[tuple[str, str, str]]":
        """Yield (option, annotation, value) for all that is requested."""
        if self.asked.networks is not None:
            names = ",".join(requested.network for requested in self.asked.networks)
            yield "networks", self._source, names
        for requested, annotation in self._wants():
            for option, value in _options_of(requested):
                yield option, annotation, value
        yield from self._of_container()
        for option, values in (
            ("dns", self.asked.dns.nameservers),
            ("dns-search", self.asked.dns.search),
            ("dns-option", self.asked.dns.options),
            ("add-host", [name for name, _ in self.asked.hosts]),
            ("egress", list(filter(None, [self.asked.egress]))),
            ("ingress", list(filter(None, [self.asked.ingress]))),
            ("policy", self.asked.policies),
            ("label", [f"{key}={value}" for key, value in self.asked.labels.items()]),
        ):
            for value in values:
                yield option, "", value

    def _of_container(self) -> "Iterator[tuple[str, str, str]]":
        if self.asked.hostname:
            yield "hostname", "", self.asked.hostname
        if self.asked.weak_policy:
            yield "weak-policy", "", "true"
        if self.asked.sticky:
            yield "sticky", "", self.asked.sticky
        if self.asked.mdns:
            yield "mdns", "", ",".join(self.asked.mdns["uplinks"]) or "true"

    def _on_networks(self) -> "Iterator[tuple[str, str, str]]":
        """Yield (option, annotation, value) for requests that concern every network.

        The host name is one of them: the other containers of each network learn it.  A sticky name keeps
        addresses of each.
        """
        for option, value in _options_of(self.asked.common):
            yield option, "", value
        yield from self._of_container()


def _options_of(requested: NetworkRequest) -> "Iterator[tuple[str, str]]":
    for ip in requested.ips:
        yield "ip6" if ":" in ip else "ip", ip
    if requested.mac:
        yield "mac-address", requested.mac
    for port in requested.ports:
        yield "publish", _port(port)
    for key, rate in requested.bandwidth.items():
        yield "bandwidth", f"{key} {rate}"
    for direction, values in requested.emulation.items():
        for key, number in values.items():
            yield "emulate", f"{direction} {key} {number}"
    for key, limit in requested.quota.items():
        yield "quota", f"{key} {limit}"
    for alias in requested.aliases:
        yield "network-alias", alias
    for dst, _ in requested.routes:
        yield "route", str(dst)
    if requested.no_default_route:
        yield "no-default-route", "true"
    for key, value in requested.cni_args.items():
        yield "cni-args", f"{key}={value}"
        if key in _SAME_AS:
            yield _SAME_AS[key], value


def _named(option: str, annotation: str, value: str) -> str:
    if annotation and option != "networks":
        return f"annotation {annotation}, {option}={shown(value)}"
    return f"annotation {annotation or f'cnihook.{option}'}={shown(value)}"


def _listed(names: "frozenset[str]") -> str:
    return ", ".join(sorted(names))


def _port(port: PortRequest) -> str:
    return f"{_range(port.first, port.last) if port.last else 'any'}:{port.container}/{port.protocol}"


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
