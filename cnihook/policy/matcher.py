# SPDX-License-Identifier: Apache-2.0
"""
The verdict on a connection, as the kernel has it: for `explain`, for the tests of policies, and to find the
connections that a new policy denies.

A test compares it with the kernel, for random policies and random packets.
"""

from cnihook.fast.address import Address
from cnihook.linux import nft
from cnihook.nftables.table import FAMILY, NAME
from cnihook.policy import effective, rules
from cnihook.policy.effective import Layer, Side
from cnihook.policy.endpoint import OF_ALL, Endpoint, World
from cnihook.policy.peers import DNS_PORT, LINK_LOCAL, Rule
from cnihook.resolver import listing
from cnihook.resolver.listing import PORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnihook.policy.document import Policy


_OUTSIDE = {"all", "outside"}  # peers that have the addresses of any name


class Connection:
    """The first packet of a connection, after its destination was translated.  ICMP has port 0.

    `name`: the DNS name of the destination, whose address is not known then.
    """

    __slots__ = ("destination", "name", "port", "protocol", "source")

    def __init__(
        self, source: Address, destination: Address, protocol: str, port: int, name: str = ""
    ) -> None:
        self.source = source
        self.destination = destination
        self.protocol = protocol
        self.port = port
        self.name = name

    @property
    def to(self) -> str:
        return self.name or str(self.destination)

    def __str__(self) -> str:
        port = "" if self.protocol == "icmp" else f":{self.port}"
        host = f"[{self.to}]" if port and ":" in self.to else self.to
        return f"{host}{port}/{self.protocol}"


class Verdict:
    """`is_allowed`, why, and the direction that decided; `is_audited`: it is let through, and recorded."""

    __slots__ = ("is_allowed", "is_audited", "reason")

    def __init__(self, is_allowed: bool, reason: str, *, is_audited: bool = False) -> None:
        self.is_allowed = is_allowed
        self.reason = reason
        self.is_audited = is_audited

    def __str__(self) -> str:
        kind = "allowed" if self.is_allowed else "denied"
        return f"{kind}{', and recorded (audit)' if self.is_audited else ''}: {self.reason}"


def decide(connection: Connection, world: World, policies: "Iterable[Policy]") -> Verdict:
    """Return the verdict of the sender's egress, then of the receiver's ingress."""
    policies = list(policies)
    to_host = world.is_host(connection.destination)
    verdicts = []
    source = world.by_address.get(connection.source)
    side = effective.of(source, policies, "egress") if source else None
    if source and side:
        verdicts.append(on_side(side, source, connection, world, to_host=to_host))
    receiver = None if to_host else world.by_address.get(connection.destination)
    if receiver and not world.is_host(connection.source):  # the host always reaches its containers
        side = effective.of(receiver, policies, "ingress")
        if side:
            verdicts.append(on_side(side, receiver, connection, world))
    denied = next((one for one in verdicts if not one.is_allowed), None)
    if denied:
        return denied
    if not verdicts:
        return Verdict(True, "no policy is in force on this connection")
    is_audited = any(one.is_audited for one in verdicts)
    reason = next((one.reason for one in verdicts if one.is_audited), "; ".join(v.reason for v in verdicts))
    return Verdict(True, reason, is_audited=is_audited)


def on_side(
    side: Side, endpoint: Endpoint, connection: Connection, world: World, *, to_host: bool = False
) -> Verdict:
    """Return the verdict of one direction of a container's effective policy."""
    where = f"{side.direction} of {endpoint.container_id}"
    peer = connection.destination if side.direction == "egress" else connection.source
    audited = ""

    def match(layer: Layer, *, is_deny: bool) -> "Rule | None":
        for rule in layer.rules:
            if matches(rule, side, peer, connection, world, to_host=to_host, is_deny=is_deny):
                return rule
        return None

    if to_host and side.names() and connection.port == PORT:
        return Verdict(True, f"{where}: the resolver of names answers there")
    for layer in side.deny:
        rule = match(layer, is_deny=True)
        if rule:
            reason = f"{where}: {layer.source} denies {rule}"
            if layer.mode == "enforce":
                return Verdict(False, reason)
            audited = audited or reason
    reasons = []
    for layer in side.layers:
        rule = match(layer, is_deny=False)
        if rule:
            reasons.append(f"{where}: {rule.source} allows {rule}")
            continue
        reason = f"{where}: no rule of {layer.source} allows {connection}"
        if layer.mode == "enforce":
            return Verdict(False, reason)
        audited = audited or reason
    reasons = reasons or [f"{where}: no rule denies it"]
    return Verdict(True, audited or "; ".join(reasons), is_audited=bool(audited))


def matches(
    rule: Rule,
    side: Side,
    peer: Address,
    connection: Connection,
    world: World,
    *,
    to_host: bool,
    is_deny: bool,
) -> bool:
    """Return True if a rule names this peer and port."""
    if "dns" in rule.peers and str(peer) in side.servers:
        if connection.protocol in ("tcp", "udp") and connection.port == DNS_PORT:
            return True
    if rule.ports and not any(each.matches(connection.protocol, connection.port) for each in rule.ports):
        return False
    if connection.name:
        return any(listing.matches(pattern, connection.name) for pattern in rule.names()) or not (
            _OUTSIDE.isdisjoint(rule.peers)
        )
    if to_host and "host" in rule.peers:
        return True
    if rule.names() and not to_host and _is_open(side, rule, peer):
        return True
    if to_host and not is_deny:
        return False  # an address of the host is allowed as `host` only
    for named, excepted in rule.nets(peer.version, is_deny=is_deny):
        if any(peer in net for net in named) and not any(peer in net for net in excepted):
            return True
    if to_host:
        return False
    if "outside" in rule.peers and not world.is_member(OF_ALL, peer) and (is_deny or peer not in LINK_LOCAL):
        return True
    return any(world.is_member(selector, peer) for selector in rule.selectors())


def _is_open(side: Side, rule: Rule, address: Address) -> bool:
    """Return True if the kernel has an address among those of the DNS names of a rule."""
    name = f"{rules.name_base(side, rule.names())}{address.version}"
    return nft.comment_of(FAMILY, NAME, name, address) is not None
