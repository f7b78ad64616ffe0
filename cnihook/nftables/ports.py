# SPDX-License-Identifier: Apache-2.0
"""
Published ports: connections to a port of the host go to a container.

In `table inet cnihook`, each port has an element, in a map for each IP version.  Each container has an
element, too: it says which connections to the container get the host's address, because their answers would
not come back through the host:

    map ports4    { tcp . 8080 comment "mynet c1 eth0" : 10.22.0.5 . 80 }
    map ports4-at { 192.0.2.1 . tcp . 8443 comment "mynet c1 eth0" : 10.22.0.5 . 443 }  (one host address)
    map ports-to4 { 10.22.0.5 comment "mynet c1 eth0" : jump ports-from-10.22.0.0/16 }

A key exists once, so a lookup shows whether a port is taken, and its owner.  As with bind(2), and so with
Docker, a port that is published on all addresses is taken on each.  `ports4-held` has the ports that are
published on single addresses.  Without it, to publish a port on all addresses would mean to read every
element.

Ports under conditions are in their own maps, for each text of conditions.  The conditions precede the rules
of these maps.  An ADD looks up its own ports, and declares what all ports rely on if any of that is missing.
The cost does not depend on the number of ports.
"""

import errno

from cnihook.fast.address import Address, IPNet
from cnihook.linux import nft, nft_objects
from cnihook.nftables import loopback, port_chains, table
from cnihook.nftables.port import Port
from cnihook.nftables.port_maps import (
    CONDITIONAL,
    FIRST,
    UNCONDITIONAL,
    Element,
    Maps,
    conditional,
    maps_for,
)
from cnihook.nftables.table import FAMILY, NAME, TABLE
from cnihook.protocol import locks
from cnihook.protocol.call import Call
from cnihook.types.errors import INTERNAL, CniError, PortTakenError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    Target = tuple[Address, int]

_TO = ("ports-to4", "ports-to6")


# ADD


def add(
    call: Call,
    ports: "Mapping[Port, Target]",
    nets: "list[IPNet]",
    *,
    conditions: "Mapping[int, str]",
    masquerade: str = port_chains.SUBNET,
) -> None:
    """Publish ports of a container, or raise PortTakenError.

    `nets`: the container's addresses with their subnets.  `conditions`: matches of nft, by IP version.
    """
    maps = maps_for(conditions)
    with locks.nft(f"publish ports of {call.owner}"):
        ports, has_some = claim(call, ports, maps)
        if has_some:
            _remove(*_owned(lambda owner: owner == call.owner))  # from an ADD without a DEL
        if ports:
            publish(call, ports, nets, maps, masquerade)


def publish(
    call: Call,
    ports: "Mapping[Port, Target]",
    nets: "list[IPNet]",
    maps: "Mapping[int, Maps]",
    masquerade: str,
    removal: "Sequence[nft_objects.Message]" = (),
) -> None:
    """Add these ports, after a removal, in one transaction.  The caller holds the lock."""
    present = table.chains()
    is_whole = port_chains.is_whole(present)
    messages = [] if is_whole else [*port_chains.declaration(present)]
    elements, ways = [*removal], []
    for one in {maps[port.version] for port in ports}:
        if one.is_conditional and present.get(one.chain, 0) < port_chains.uses(one):
            messages += port_chains.under_conditions(one)
            ways.append(one)
    for port, (address, number) in ports.items():
        one = maps[port.version]
        value = bytes(address) + number.to_bytes(2, "big") + bytes(2)
        elements.append(nft.add_element(NAME, one.of(port), port.key, call.owner, value=value))
        if port.address:
            elements.append(nft.add_element(NAME, one.held, port.everywhere, ""))
    for net in nets:
        chain = port_chains.chain_from(net, masquerade)
        number_of_rules = len(port_chains.masquerading_rules(chain))
        if present.get(chain, -1) < number_of_rules:
            messages += port_chains.masquerading(chain)
            present[chain] = number_of_rules  # two addresses may have one chain
        container = f"ports-to{net.address.version}"
        if nft.comment_of(FAMILY, NAME, container, net.address) is not None:
            # The element is from an earlier attachment that had the address, or from this one.  An addition
            # alone would not replace it.
            elements.append(nft.delete_element(NAME, container, net.address))
        elements.append(nft.add_element(NAME, container, net.address, call.owner, jump=chain))
    what = f"publish ports of {call.owner}"
    nft.change(FAMILY, [*messages, *elements], what)
    for one in ways:
        _lead_to(one, what)
    if not is_whole:
        loopback.close_opened()


def _lead_to(maps: Maps, what: str) -> None:
    """Declare the rule with the conditions, unless it exists."""
    rules = nft.commented_rules(FAMILY, NAME, CONDITIONAL)
    if maps.chain not in [comment for _handle, comment in rules]:
        nft.run(port_chains.way_in(maps), what)


def claim(
    call: Call, ports: "Mapping[Port, Target]", maps: "Mapping[int, Maps]"
) -> "tuple[dict[Port, Target], bool]":
    """Return the ports that this attachment must publish, and True if it has published one before.

    A port that leads to the container by another of its networks is left out, because podman passes all
    ports to each network.  Raises PortTakenError if another container has one.
    """
    claimed: dict[Port, Target] = {}
    has_some = False
    owners = _owners(ports, maps)
    for port, target in ports.items():
        owner = owners.get(port)
        if owner is None or owner == call.owner:
            claimed[port] = target
        elif not _is_same_container(owner, call):
            raise PortTakenError(INTERNAL, f"host port {port} is taken: {_described(owner)}", _hint(owner))
        has_some = has_some or owner == call.owner
    return claimed, has_some


def _owners(ports: "Iterable[Port]", maps: "Mapping[int, Maps]") -> "dict[Port, str]":
    """Return the owner of each port that is taken, also by a port on all addresses or on a single one."""
    owners: dict[Port, str] = {}
    for one in maps.values():
        own = [port for port in ports if port.version == one.version]
        everywhere = nft.entries_of(FAMILY, NAME, one.everywhere, [port.everywhere for port in own])
        free = [port for port in own if port.everywhere not in everywhere]
        at = nft.entries_of(FAMILY, NAME, one.at, [port.key for port in free if port.address])
        held = nft.entries_of(FAMILY, NAME, one.held, [port.key for port in free if not port.address])
        for port in own:
            if port.everywhere in everywhere:
                owners[port] = everywhere[port.everywhere][1]
            elif port.key in at:
                owners[port] = at[port.key][1]
            elif port.key in held and (owner := _holder(one, port)) is not None:
                owners[port] = owner
    return owners


def _is_same_container(owner: str, call: Call) -> bool:
    return owner.split(" ")[1:2] == call.owner.split(" ")[1:2]


def is_published(port: Port) -> bool:
    """Return True if an ADD of the port, without conditions, would be rejected now."""
    maps = UNCONDITIONAL[port.version == 6]
    if nft.comment_of(FAMILY, NAME, maps.everywhere, port.everywhere) is not None:
        return True
    if port.address:
        return nft.comment_of(FAMILY, NAME, maps.at, port.key) is not None
    return nft.comment_of(FAMILY, NAME, maps.held, port.everywhere) is not None


def published() -> "list[Element]":
    """Return all published ports, also those under conditions."""
    maps = [*UNCONDITIONAL, *conditional(table.chains())]
    return [element for one in maps for element in one.elements()]


def _hint(owner: str) -> str:
    command = f"cnihook gc {owner.split(' ')[0]}"
    return f"publish another, or end that container; `{command}` frees the ports of containers that are gone"


def _holder(maps: Maps, port: Port) -> "str | None":
    """Return the owner of a port on one of the host's addresses; None if it is free on all of them."""
    held = nft.elements(FAMILY, NAME, maps.at)
    return next((owner for key, owner in held if key.endswith(port.everywhere)), None)


def _described(owner: str) -> str:
    words = owner.split(" ")
    if len(words) != 3:
        return f"{owner!r} has it" if owner else f"it is in table {TABLE} already"
    return "container {1} has it, on network {0} by {2}".format(*words)


# DEL, GC


def delete(call: Call, ports: "Iterable[Port]", conditions: "Mapping[int, str]") -> "list[Element]":
    """Unpublish the ports of this attachment, and return them.

    `ports`: those to look up.  If one of them is not its own, or there are none, all ports are searched.
    """
    if not _are_present():
        return []
    maps = maps_for(conditions)
    with locks.nft(f"unpublish ports of {call.owner}"):
        ports = list(ports)
        published = [element for one in maps.values() for element in one.find(ports).values()]
        own = [element for element in published if element.owner == call.owner]
        if own and len(own) == len(ports):
            addresses = [
                address
                for address in {element.target[0] for element in own}
                if nft.comment_of(FAMILY, NAME, f"ports-to{address.version}", address) == call.owner
            ]
        else:
            own, addresses = _owned(lambda owner: owner == call.owner)
        _remove(own, addresses)
    return own


def gc(call: Call, keep: "set[str]") -> "list[Element]":
    """Unpublish the ports of owners on this network that are not in `keep`, and return them."""
    if not _are_present():
        return []
    with locks.nft(f"gc {call.network}"):
        stale, addresses = _owned(lambda owner: owner.startswith(call.owner_prefix) and owner not in keep)
        _remove(stale, addresses)
    return stale


def _are_present() -> bool:
    """Return True if any port is published.  A kernel without nftables has none; a DEL succeeds there."""
    try:
        return FIRST in table.chains()
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL):
            return False
        raise


def _owned(chosen: "Callable[[str], bool]") -> "tuple[list[Element], list[Address]]":
    """Return all ports, and all addresses of containers, whose owner is chosen."""
    ports = [element for element in published() if chosen(element.owner)]
    addresses = [
        Address(key)
        for container in _TO
        for key, owner in nft.elements(FAMILY, NAME, container)
        if chosen(owner)
    ]
    return ports, addresses


def _remove(ports: "list[Element]", addresses: "list[Address]") -> None:
    """Remove the elements, and all that is unused."""
    nft.change(FAMILY, removal(ports, addresses), "unpublish ports")
    remove_unused()


def removal(
    ports: "Iterable[Element]",
    addresses: "Iterable[Address]",
    added: "Mapping[Maps, set[Port]] | None" = None,
) -> "list[nft_objects.Message]":
    """Return the removal of elements, and of what only they used.

    `added`: the ports that the same transaction adds to each of the maps.
    """
    ports = list(ports)
    elements = [nft.delete_element(NAME, each.maps.of(each.port), each.port.key) for each in ports]
    elements += [nft.delete_element(NAME, f"ports-to{one.version}", one) for one in addresses]
    for maps in {element.maps for element in ports}:
        gone = {element.port for element in ports if element.maps == maps}
        if any(port.address for port in gone) or maps.is_conditional:
            elements += _cleanup_commands(maps, gone, added.get(maps, set()) if added else set())
    return elements


def remove_unused() -> None:
    """Remove what no port uses; a killed DEL of another attachment may have left some."""
    chains = table.chains()
    sources = [name for name in chains if name.startswith(port_chains.FROM)]
    unused = [name for name in sources if chains[name] <= len(port_chains.masquerading_rules(name))]
    if unused != sources:
        table.remove(chains, unused)
        return
    loopback.close_opened()
    wordings = conditional(chains)
    objects = [thing for maps in (*UNCONDITIONAL, *wordings) for thing in maps.objects]
    table.remove(
        chains,
        [*port_chains.USES, *(maps.chain for maps in wordings), *unused],
        [*objects, *(f"map {name}" for name in _TO)],
    )


def _cleanup_commands(maps: Maps, gone: "set[Port]", added: "set[Port]") -> "Iterator[nft_objects.Message]":
    """Yield the removal of what only the last port on a single address, or under these conditions, used."""
    at = _keys(maps.at) - {port.key for port in gone} | {port.key for port in added if port.address}
    is_used = at or added or not maps.is_conditional or _keys(maps.everywhere) - {port.key for port in gone}
    if not is_used:
        for handle, comment in nft.commented_rules(FAMILY, NAME, CONDITIONAL):
            if comment == maps.chain:
                yield nft_objects.delete_rule(NAME, CONDITIONAL, handle)
        yield nft_objects.delete_chain(NAME, maps.chain)
        for thing in maps.objects:
            yield nft_objects.delete_set(NAME, thing.split()[1])
        return
    unused = {port.everywhere for port in gone if port.address} - {key[-8:] for key in at}
    for key in nft.entries_of(FAMILY, NAME, maps.held, unused):
        yield nft.delete_element(NAME, maps.held, key)


def _keys(container: str) -> "set[bytes]":
    return {key for key, _owner in nft.elements(FAMILY, NAME, container)}


# CHECK


def check(
    call: Call,
    ports: "Mapping[Port, Target]",
    nets: "list[IPNet]",
    *,
    conditions: "Mapping[int, str]",
) -> None:
    """Raise CniError if a port is not published, or leads to another target."""
    maps = maps_for(conditions)
    present = table.chains()
    if not port_chains.is_whole(present):
        raise CniError(INTERNAL, f"a part of table {TABLE} is missing", "the next ADD restores it")
    versions = set()  # in which this attachment has a port
    published = {version: one.find(ports) for version, one in maps.items()}
    for port, target in ports.items():
        one = maps[port.version]
        element = published[port.version].get(port)
        if not element or (one.is_conditional and present.get(one.chain, 0) < port_chains.uses(one)):
            raise CniError(INTERNAL, f"host port {port} is not published")
        if element.owner != call.owner and _is_same_container(element.owner, call):
            continue  # published by another of its networks
        if (element.owner, element.target) != (call.owner, target):
            raise CniError(INTERNAL, f"host port {port} leads elsewhere: {_described(element.owner)}")
        versions.add(port.version)
    for net in (net for net in nets if net.address.version in versions):
        owner = nft.comment_of(FAMILY, NAME, f"ports-to{net.address.version}", net.address)
        if owner != call.owner:
            raise CniError(INTERNAL, f"connections to {net.address} from its own subnet are not masqueraded")
