# SPDX-License-Identifier: Apache-2.0
"""
Policies in the life of one container: in force before its first packet, and until its last one.

    ADD   the interface plugin calls admit() when it knows the addresses; the link is still down
    DEL   the IPAM code calls release() before it releases the addresses; the link is down already

So another container never has the rights of the one whose address it gets.
"""

import os

from cnihook.links import veth
from cnihook.linux import nft
from cnihook.linux.netns import NetNS
from cnihook.log import step
from cnihook.nftables.table import FAMILY, NAME
from cnihook.policy import bridges, endpoint, guard, kernel, rules, store
from cnihook.policy.desired import Desired, own_elements, sides_of
from cnihook.policy.endpoint import Endpoint
from cnihook.policy.guard import BRIDGE_FAMILY, BRIDGE_TABLE
from cnihook.policy.rules import Compiled
from cnihook.policy.store import Policies
from cnihook.protocol import locks
from cnihook.resolver import listing
from cnihook.runtime import attachment, records
from cnihook.runtime.records import Record

BRIDGE = (BRIDGE_FAMILY, BRIDGE_TABLE)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cnihook.fast.address import Address, IPNet
    from cnihook.runtime.networks import Network


class Enforcement:
    """The policies of one attachment."""

    def __init__(self, record: Record, network: "Network", policies: "Policies | None" = None) -> None:
        self._record = record
        self._network = network
        self._policies = policies
        self._endpoint: Endpoint | None = None
        # Known after admit(): it must look up names; rules in its namespace select containers.
        self.has_names = self.selects_others = False

    # ADD

    def prepare(self) -> None:
        """Raise CniError, before anything is made, if a policy on the container cannot be enforced."""
        if self._network.is_loopback:
            return
        self._policies = store.load()
        self._endpoint = Endpoint(self._record, self._network, self._engine_names(self._policies))
        sides_of(self._endpoint, self._policies)

    def _engine_names(self, policies: Policies) -> "list[str]":
        """Return the container's names in engines, unless no rule and no selection asks for a name."""
        is_needed = any(one.selection.containers for one in policies.all) or any(
            selector.startswith("container:") for selector in kernel.selectors_in_use()
        )
        if not is_needed:
            return []
        from cnihook.oci import engines

        own = self._record.container_id
        return [one.name for one in engines.containers() if one.name and one.network_of == own]

    def admit(self, port: str, mac: str, nets: "Iterable[IPNet]") -> None:
        """Put the policies in force for these addresses.  Raises CniError.

        `port`: the host's end of the link; empty if it has none.
        """
        own = self._endpoint
        if own is None:
            return
        own.set_link(port, mac.lower(), nets)
        with locks.policy(f"start of container {self._record.container_id}"):
            policies = store.load()  # under the lock: `policy apply` may have changed them
            sides = [Compiled(side) for side in sides_of(own, policies)]
            self.has_names = any(one.names for one in sides)
            on_host = [] if own.is_inside else sides
            if on_host or kernel.is_active():
                with locks.nft(f"policies of {own.owner}"):
                    if self._is_prepared(own, on_host):
                        self._add(own, on_host)
                    else:
                        self._sync(own, policies)
            in_namespace = sides if own.is_inside else []
            if in_namespace or kernel.has_inside():
                from cnihook.policy import inside  # few networks need it

                inside.admit(own, in_namespace, lambda: desired_now(policies, own))
                self.selects_others = any(one.selectors for one in in_namespace)
        step("policies")

    def _is_prepared(self, own: Endpoint, sides: "list[Compiled]") -> bool:
        """Return True if only elements are missing."""
        selectors = set(kernel.selectors_in_use())
        if any(one.selectors - selectors for one in sides) or not kernel.is_ready(sides):
            return False
        is_guarded = own.bridge in bridges.marked(kernel.STATE)
        if own.bridge and sides and not is_guarded:
            return False
        return not is_guarded or bridges.is_ready()

    def _add(self, own: Endpoint, sides: "list[Compiled]") -> None:
        """Add the container's elements, and remove what is left of an earlier one with its addresses."""
        of_policies = bridges.marked(kernel.STATE)
        selectors = kernel.selectors_in_use()
        elements = own_elements(own, sides, selectors, of_policies)
        messages = []
        for key in {*elements, *_keys(own.addresses, selectors)}:
            present = nft.jump_of(FAMILY, NAME, *key)
            expected = elements.get(key)
            if present == expected:
                continue
            if present is not None:
                messages.append(nft.delete_element(NAME, *key))
            if expected is not None:
                messages.append(nft.add_element(NAME, *key, expected[0], jump=expected[1]))
        if messages:
            nft.change(FAMILY, messages, f"put policies in force for {own.owner}")
        if own.bridge in of_policies and not own.reason:
            _guard_port(own)

    def _sync(self, own: Endpoint, policies: Policies) -> None:
        """Compare everything: this policy is new, or another program has removed something."""
        kernel.sync(desired_now(policies, own))

    # DEL

    def release(self) -> None:
        """Remove the container's elements, and what is unused without it."""
        is_active, has_inside = kernel.is_active(), kernel.has_inside()
        if not (is_active or has_inside):
            return
        record = self._record
        own = self._endpoint  # of an ADD that fails
        if own is None or not own.addresses:
            own = Endpoint(record, self._network)
            if result := attachment.result_of(self._network, record):
                own.set_result(result)
        with locks.policy(f"end of container {record.container_id}"):
            if is_active:
                with locks.nft(f"policies of {own.owner}"):
                    _release(own)
            if has_inside:
                from cnihook.policy import inside

                inside.release(own, lambda: desired_now(store.load(), without=own.owner))
        if os.path.exists(f"{listing.FOLDER}/{record.container_id}"):
            from cnihook.policy import resolving  # few policies have names

            resolving.end(record.container_id, own.owner)
        step("policies")


def _keys(addresses: "Iterable[Address]", selectors: "Collection[str]") -> "list[tuple[str, bytes]]":
    """Return (map, key) of all that an address can have."""
    return [
        (name, address)
        for address in addresses
        for name in (
            *(f"{each}{address.version}" for each in rules.MAPS),
            *(rules.member_set(selector, address.version) for selector in selectors),
        )
    ]


def _guard_port(own: Endpoint) -> None:
    host = NetNS.current()
    try:
        messages = []
        for name, key in guard.bridge_elements(own):
            owner = nft.comment_of(BRIDGE_FAMILY, BRIDGE_TABLE, name, key)
            if owner is not None and owner != own.owner:
                messages.append(nft.delete_element(BRIDGE_TABLE, name, key))
            if owner != own.owner:
                messages.append(nft.add_element(BRIDGE_TABLE, name, key, own.owner))
        if messages:
            nft.change(BRIDGE_FAMILY, messages, f"guard the port of {own.owner}")
        bridge = host.rtnl.find_link(own.bridge)
        if bridge:
            bridges.turn_on(host.rtnl, bridge)
            bridges.answer_for(host.rtnl, bridge, own)
    finally:
        host.close()


def _release(own: Endpoint) -> None:
    selectors = kernel.selectors_in_use()
    if own.addresses:
        keys = _keys(own.addresses, selectors)
        ports = [own.port] if own.port else list(veth.names_for(own.owner))
        for port in () if own.is_inside else ports:
            own.port = port
            keys += guard.inet_elements(own)
    else:  # its ADD was killed before its record had a result
        present_elements = kernel.present_elements(selectors)
        keys = [key for key, (owner, _chain) in present_elements.items() if owner == own.owner]
    chains: set[str] = set()
    messages = []
    for key in keys:
        present = nft.jump_of(FAMILY, NAME, *key)
        if present and present[0] == own.owner:
            messages.append(nft.delete_element(NAME, *key))
            chains.add(present[1])
    if messages:
        nft.change(FAMILY, messages, f"remove the policies of {own.owner}")
    if own.bridge:
        _unguard_port(own)
    digests = {digest for name in chains if (digest := kernel.digest_of(name))}
    if digests:
        _remove_unused(digests, own)


def _unguard_port(own: Endpoint) -> None:
    if own.mac:
        keys = [*guard.bridge_elements(own)]
    else:  # its record does not name its link, which may be gone
        keys = [(name, key) for name in guard.BRIDGE_SETS for key, _owner in nft.elements(*BRIDGE, name)]
    messages = [
        nft.delete_element(BRIDGE_TABLE, name, key)
        for name, key in keys
        if nft.comment_of(*BRIDGE, name, key) == own.owner
    ]
    if messages:
        nft.change(BRIDGE_FAMILY, messages, f"stop guarding the port of {own.owner}")
    host = NetNS.current()
    try:
        if bridge := host.rtnl.find_link(own.bridge):
            bridges.stop_answering(host.rtnl, bridge, own)
    finally:
        host.close()


def _remove_unused(digests: "set[str]", own: Endpoint) -> None:
    """Remove the effective policies with these digests that no container has, and after the last, the rest.

    The use count of a chain is the number of its rules, and of the jumps to it.
    """
    present = nft.chains(FAMILY, NAME)
    used = {digest for name in present if (digest := kernel.digest_of(name)) and _has_jumps(name, present)}
    every = {digest for name in present if (digest := kernel.digest_of(name))}
    if not used:
        kernel.sync(desired_now(store.load(), without=own.owner))
        return
    gone = (every & digests) - used
    if gone:
        kernel.remove(
            [name for name in present if kernel.digest_of(name) in gone],
            [name for name in nft.sets(FAMILY, NAME) if kernel.digest_of(name) in gone],
        )


def _has_jumps(name: str, present: "dict[str, int]") -> bool:
    """Return True if an element leads to a chain; that for one of several layers has a jump instead."""
    return "." not in name and present[name] > len(nft.rules(FAMILY, NAME, name))


def desired_now(policies: Policies, own: "Endpoint | None" = None, *, without: str = "") -> Desired:
    """Return what the kernel must have, by the records.

    `own`: an attachment whose record has no result yet.  `without`: the owner of one that ends.  Raises
    CniError if a policy that selects a container cannot be enforced.
    """
    damaged: list[records.DamagedRecordError] = []
    unreadable: list[OSError] = []
    present = records.all_records(damaged=damaged, unreadable=unreadable)
    endpoints = endpoint.of_records(present)
    if own:
        without = own.owner
    endpoints = [one for one in endpoints if one.owner != without] + ([own] if own else [])
    kept = {endpoint.owner_of(record) for record in present if record.result is None} - {without}
    desired = Desired(endpoints, policies, None if damaged or unreadable else kept)
    desired.unreadable = unreadable
    return desired


def exists() -> bool:
    """Return True if the host has policies, or a container on it has one."""
    return os.path.exists(store.FOLDER) or os.path.exists(kernel.STATE)


def sync_all(policies: "Policies | None" = None) -> None:
    """Put the policies in force for all containers.  The caller holds the lock `policy`.

    Raises OSError if the record of a container cannot be read; what that container had stays in force.
    """
    with locks.nft("policies"):
        desired = desired_now(policies or store.load())
        kernel.sync(desired)
    if kernel.has_inside() or desired.inside():
        from cnihook.policy import inside  # few networks need it

        inside.sync(desired)
    if os.path.isdir(listing.FOLDER) or any(one.names for one in desired.compiled.values()):
        from cnihook.policy import resolving  # few policies have names

        sides = [(one, [each.side for each in desired.sides[one.owner]]) for one in desired.endpoints]
        kept = None if desired.kept is None else {owner.split()[1] for owner in desired.kept}
        resolving.sync(sides, kept)
    for problem in desired.unreadable:
        raise problem


def sync_late_starts() -> None:
    """Wait for containers that are being attached, and put the policies in force for them, too.

    They may have read the policies before a change.  The caller holds no lock.
    """
    late = {record.container_id for record in records.all_records() if record.result is None}
    for container_id in sorted(late):
        with locks.container(container_id, "policy"):
            pass
    if late:
        with locks.policy("policies of containers that have just started"):
            sync_all()
