# SPDX-License-Identifier: Apache-2.0
"""The state that the kernel must have for all policies, and the messages that lead to it."""

from cnihook.linux import nft
from cnihook.policy import effective, guard, rules
from cnihook.policy.effective import Side
from cnihook.policy.endpoint import OF_ALL, Endpoint
from cnihook.policy.rules import Compiled
from cnihook.policy.store import Policies

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cnihook.linux.nft_objects import Message

    Elements = dict[tuple[str, bytes], tuple[str, str]]  # (map, key): (owner, chain to jump to)

DIRECTIONS = ("egress", "ingress")


class Desired:
    """The state of the kernel that these endpoints and policies require.

    `compiled`, `selectors` and `bridges` are of the host; inside.Inside has those of a namespace.
    """

    def __init__(
        self, endpoints: "Iterable[Endpoint]", policies: Policies, kept: "Collection[str] | None" = ()
    ) -> None:
        """Compute it.  Raises CniError if a policy that selects a container cannot be enforced.

        `kept`: the owners whose elements stay as they are, such as those of containers that are being
        attached; None: those of all other owners.
        """
        self.kept = None if kept is None else set(kept)
        self.unreadable: list[OSError] = []  # records of containers that are not among the endpoints
        self.endpoints = [one for one in endpoints if one.addresses]
        self.compiled: dict[str, Compiled] = {}
        self.sides: dict[str, list[Compiled]] = {}  # by owner
        for endpoint in self.endpoints:
            shared = Compiled if endpoint.is_inside else self._shared
            self.sides[endpoint.owner] = [shared(side) for side in sides_of(endpoint, policies)]
        self.selectors = {selector for one in self.compiled.values() for selector in one.selectors}
        self.bridges = {one.bridge for one in self.endpoints if one.bridge and self.sides[one.owner]}

    def _shared(self, side: Side) -> Compiled:
        name = f"{side.direction} {side.digest}"
        if name not in self.compiled:
            self.compiled[name] = Compiled(side)
        return self.compiled[name]

    def inside(self) -> "list[Endpoint]":
        """Return the endpoints whose policies are in force in their own namespace."""
        return [one for one in self.endpoints if one.is_inside and self.sides[one.owner]]

    @property
    def is_empty(self) -> bool:
        return not self.compiled and self.kept == set()

    def keeps(self, owner: str) -> bool:
        """Return True if the elements of an owner stay as they are."""
        own = {one.owner for one in self.endpoints}
        return owner not in own and (self.kept is None or owner in self.kept)

    def guarded(self) -> "list[Endpoint]":
        """Return the endpoints on links of their own, and on bridges that have a container with a policy."""
        return [one for one in self.endpoints if one.port and _is_guarded(one, self.bridges)]

    def elements(self) -> "Elements":
        """Return the elements of `table inet cnihook`."""
        elements: Elements = {}
        for endpoint in self.endpoints:
            elements |= own_elements(endpoint, self.sides[endpoint.owner], self.selectors, self.bridges)
        return elements


def _is_guarded(endpoint: Endpoint, of_policies: "set[str]") -> bool:
    if endpoint.reason or endpoint.is_inside:
        return False
    return not endpoint.bridge or endpoint.bridge in of_policies


def sides_of(endpoint: Endpoint, policies: Policies) -> "list[Side]":
    """Return the effective policy in each direction that has one.  Raises CniError if it has no effect."""
    policies.check(endpoint)
    sides = [side for way in DIRECTIONS if (side := effective.of(endpoint, policies.all, way))]
    if sides and endpoint.reason:
        raise endpoint.refuse()
    if sides and endpoint.is_inside:
        _check_inside(endpoint, sides, policies)
    return sides


def _check_inside(endpoint: Endpoint, sides: "list[Side]", policies: Policies) -> None:
    """Raise CniError if the policies cannot be enforced in the namespace of the container."""
    if any(side.names() for side in sides):
        raise endpoint.refuse(
            "it lists DNS names, and the resolver has no address of the host there to answer at",
            "names need a network of ptp, or of bridge with isGateway",
        )
    if (strict := effective.strict_sources(endpoint, policies.all)) and endpoint.has_net_admin:
        own = "--weak-policy" if strict == [effective.OWN] else '"weak": true'
        raise endpoint.refuse(
            f"with CAP_NET_ADMIN, its process can remove the rules in its namespace ({strict[0]})",
            f"drop the capability, or accept it with {own}",
        )


def own_elements(
    endpoint: Endpoint, sides: "list[Compiled]", selectors: "Iterable[str]", of_policies: "set[str]"
) -> "Elements":
    """Return the elements of one container."""
    elements: Elements = {}
    for address in endpoint.addresses:
        for compiled in () if endpoint.is_inside else sides:
            for name, chain in compiled.jumps().items():
                elements[f"{name}{address.version}", address] = endpoint.owner, chain
        for selector in selectors:
            if not endpoint.reason and (selector == OF_ALL or endpoint.matches(selector)):
                elements[rules.member_set(selector, address.version), address] = endpoint.owner, ""
    if _is_guarded(endpoint, of_policies):
        for name, key in guard.inet_elements(endpoint):
            elements[name, key] = endpoint.owner, ""
    return elements


def changes(table: str, elements: "Elements", present: "Elements", desired: Desired) -> "list[Message]":
    """Return the messages after which a table has these elements, and those of owners that are kept."""
    gone = [
        key
        for key, value in present.items()
        if elements.get(key) != value and (key in elements or not desired.keeps(value[0]))
    ]
    new = [(key, value) for key, value in elements.items() if present.get(key) != value]
    return [nft.delete_element(table, *key) for key in gone] + [
        nft.add_element(table, *key, owner, jump=chain) for key, (owner, chain) in new
    ]
