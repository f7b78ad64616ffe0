# SPDX-License-Identifier: Apache-2.0
"""Packets that were denied, or let through in audit mode: the record of the kernel, of 24 hours."""

import _struct as struct
import time

from cnihook.fast.address import Address
from cnihook.linux import nft_sets
from cnihook.nftables.table import FAMILY, NAME
from cnihook.policy import effective, kernel, rules
from cnihook.resolver import denials, listing
from cnihook.resolver.listing import Listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnihook.policy.endpoint import Endpoint, World
    from cnihook.policy.store import Policies

_PROTOCOLS = {1: "icmp", 58: "icmp", 6: "tcp", 17: "udp", 132: "sctp"}


class Denied:
    """Packets that were denied: from where to where, how many, and the seconds since the last one."""

    __slots__ = ("age", "destination", "direction", "packets", "port", "protocol", "source")

    def __init__(self, direction: str, version: int, count: nft_sets.Count) -> None:
        size = 4 if version == 4 else 16
        self.direction = direction
        self.source, self.destination = (Address(count.key[i : i + size]) for i in (0, size))
        number = count.key[2 * size]
        self.protocol = _PROTOCOLS.get(number, str(number))
        (self.port,) = struct.unpack_from(">H", count.key, 2 * size + 4)
        self.packets = count.packets
        self.age = count.age

    @property
    def own(self) -> Address:
        """The address of the container whose policy decided."""
        return self.source if self.direction == "egress" else self.destination

    @property
    def peer(self) -> Address:
        return self.destination if self.direction == "egress" else self.source

    @property
    def ports(self) -> str:
        """The ports of a rule for it; empty if a rule cannot name them, as those of GRE."""
        if self.protocol == "icmp":
            return "icmp"
        return "" if self.protocol.isdigit() or not self.port else f"{self.port}/{self.protocol}"

    @property
    def key(self) -> "tuple[str, Address, Address, str, int]":
        return self.direction, self.source, self.destination, self.protocol, self.port


def load() -> "list[Denied]":
    """Return everything on record, of the host and of containers' namespaces, the latest first."""
    entries = _load_here()
    if kernel.has_inside():
        from cnihook.policy import inside  # few networks need it

        entries += [one for _path, several in inside.in_each(_load_here) for one in several]
    return sorted(entries, key=lambda one: one.age)


def _load_here() -> "list[Denied]":
    return [
        Denied(direction, version, count)
        for direction in ("egress", "ingress")
        for version in rules.VERSIONS
        for count in nft_sets.counts(FAMILY, NAME, rules.denied_set(direction, version))
    ]


class DeniedName:
    """A name that a container looked up and no rule lists: how often, and seconds since the last time."""

    __slots__ = ("age", "container_id", "name", "own", "packets", "reason")
    direction, protocol, port = "egress", "dns", 0

    def __init__(self, container_id: str, own: Address, denial: denials.Denial) -> None:
        self.container_id = container_id
        self.own = own
        self.name = denial.name
        self.reason = denial.reason
        self.packets = denial.count
        self.age = max(time.time() - denial.last, 0)

    @property
    def key(self) -> "tuple[str, str]":
        return self.container_id, self.name


def names() -> "list[DeniedName]":
    """Return the names that containers with names in their policies looked up otherwise."""
    entries: list[DeniedName] = []
    for container_id in listing.containers():
        try:
            one = Listing.read(container_id)
        except (OSError, ValueError):
            continue
        if one and one.addresses:
            own = one.addresses[0]
            entries += [DeniedName(container_id, own, denial) for denial in denials.read(container_id)]
    return entries


def is_audited(one: "Denied | DeniedName", world: "World", policies: "Policies") -> bool:
    """Return True if the container's policy, as it is now, only records in this direction."""
    endpoint = world.by_address.get(one.own)
    side = effective.of(endpoint, policies.all, one.direction) if endpoint else None
    layers = [*side.deny, *side.layers] if side else []
    return bool(layers) and all(layer.mode == "audit" for layer in layers)


def learned(endpoints: "list[Endpoint]", entries: "Iterable[Denied]", world: "World") -> "dict[str, object]":
    """Return a policy for a container that allows what is on record for it, where a rule can name it."""
    own = {address for one in endpoints for address in one.addresses}
    name = endpoints[0].container_id
    policy: dict[str, object] = {
        "name": f"learned-{name.lower().replace('_', '-')}"[:63].rstrip("-."),
        "select": {"containers": [name]},
        "mode": "enforce",
    }
    for direction, key in (("egress", "to"), ("ingress", "from")):
        peers: dict[str, set[str]] = {}
        for one in entries:
            if one.direction == direction and one.own in own and one.ports:
                peers.setdefault(_name_of(one.peer, world), set()).add(one.ports)
        if peers:
            allow = [{key: [peer], "ports": sorted(ports)} for peer, ports in sorted(peers.items())]
            policy[direction] = {"allow": allow}
    return policy


def _name_of(address: Address, world: "World") -> str:
    if endpoint := world.by_address.get(address):
        return f"container:{endpoint.container_id}"
    return "host" if world.is_host(address) else str(address)
