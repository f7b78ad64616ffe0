# SPDX-License-Identifier: Apache-2.0
"""
Published ports: what comes in for a port of the host goes to a container.

In `table inet cnihook`, one element per port, in a map for each IP version; and one per container, which
says whose connections to it need the host's address, since the answers would not come back through the host:

    map ports4    { tcp . 8080 comment "mynet c1 eth0" : 10.22.0.5 . 80 }
    map ports4-at { 192.0.2.1 . tcp . 8443 comment "mynet c1 eth0" : 10.22.0.5 . 443 }  (one host address)
    map ports-to4 { 10.22.0.5 comment "mynet c1 eth0" : jump ports-from-10.22.0.0/16 }

A key exists once, so a port that is taken shows itself, with its owner.  As with bind(2), and so with
Docker, one that is published on all addresses is taken on each.  `ports4-held` has the ports that are
published on single ones: else to publish one on all addresses would take a look at every element.

Ports under conditions are in maps of their own, one for each wording, whose rules these conditions precede.
An ADD looks its own ports up, and declares what all ports rely on if any of that is missing.  Whatever the
number of ports, that costs the same.
"""

import errno

from cnihook.lean.address import Address, IPNet
from cnihook.linux import nft, nft_objects
from cnihook.linux.flock import Lock
from cnihook.sdk import loopback, table
from cnihook.sdk.call import Call
from cnihook.sdk.port import PROTOCOLS, Port
from cnihook.sdk.table import FAMILY, LOCK, NAME, TABLE
from cnihook.spec.errors import INTERNAL, CniError, PortTaken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Target = tuple[Address, int]

_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}

# Whose connections to a container are masqueraded: its own and its subnet's, anybody's, or nobody's.
SUBNET, ANY, NONE = "subnet", "any", "none"

_FROM, _WHEN = "ports-from-", "ports-when-"
_TO = ("ports-to4", "ports-to6")
_FIRST, GUARD = "ports", "ports-guard"

# The chains that every port relies on, in an order in which they can be removed, each with its use count.
USES = {
    "ports-prerouting": 1,
    "ports-output": 2,
    "ports-postrouting": 3,
    GUARD: 2,
    **loopback.USES,
    "ports": 9,
    "ports-conditional": 1,  # and a rule for each wording of conditions
}


def _base() -> "Iterator[str]":
    yield f"add table {TABLE}"
    for version in (4, 6):
        yield from _Maps(version).declaration()
        yield f"add map {TABLE} ports-to{version} {{ type ipv{version}_addr : verdict ; }}"
    for chain in ("ports", "ports-conditional"):
        yield f"add chain {TABLE} {chain}"
    for chain, hook in {
        GUARD: "filter hook prerouting priority raw",
        "ports-prerouting": "nat hook prerouting priority dstnat",
        "ports-output": "nat hook output priority -100",
        "ports-postrouting": "nat hook postrouting priority srcnat",
    }.items():
        yield f"add chain {TABLE} {chain} {{ type {hook} ; }}"
    for chain in USES:
        if chain != "ports-conditional" and chain not in loopback.USES:
            yield f"flush chain {TABLE} {chain}"
    yield from loopback.declaration()
    # NAT comes before the kernel drops what arrives from outside for 127.0.0.1, and would pass it on.
    yield f'add rule {TABLE} {GUARD} iifname != "lo" ip daddr 127.0.0.0/8 drop'
    yield f'add rule {TABLE} {GUARD} iifname != "lo" ip saddr 127.0.0.0/8 drop'
    yield f"add rule {TABLE} ports-prerouting fib daddr type local jump ports"
    # The kernel lets no answer to ::1 in, so what goes there is left to processes of the host.
    yield f"add rule {TABLE} ports-output ip6 daddr ::1 return"
    yield f"add rule {TABLE} ports-output fib daddr type local jump ports"
    yield f"add rule {TABLE} ports jump ports-conditional"
    for version in (4, 6):
        for rule in _Maps(version).rules():
            yield f"add rule {TABLE} ports {rule}"
    yield f"add rule {TABLE} ports-postrouting ct status dnat ip daddr vmap @ports-to4"
    yield f"add rule {TABLE} ports-postrouting ct status dnat ip6 daddr vmap @ports-to6"
    yield f"add rule {TABLE} ports-postrouting ip saddr {loopback.STAND_IN} drop"


class Element:
    """A published port as it stands in its map."""

    __slots__ = ("maps", "owner", "port", "target")

    def __init__(self, maps: "_Maps", key: bytes, value: bytes, owner: str) -> None:
        protocol, number = _PROTOCOL_NAMES[key[-8]], int.from_bytes(key[-4:-2], "big")
        self.maps = maps
        self.port = Port(maps.version, protocol, number, Address(key[:-8]) if len(key) > 8 else None)
        self.target = Address(value[:-4]), int.from_bytes(value[-4:-2], "big")
        self.owner = owner


class _Maps:
    """The maps of one IP version, of all ports under the same conditions, or under none."""

    def __init__(self, version: int, conditions: str = "", digest: str = "") -> None:
        if conditions:
            from _blake2 import blake2s

            digest = blake2s(f"ipv{version} {conditions}".encode(), digest_size=4).hexdigest()
        suffix = f"-{digest}" if digest else ""
        self.version = version
        self.conditions = conditions
        self.chain = f"{_WHEN}ipv{version}{suffix}" if digest else _FIRST
        self.is_conditional = bool(digest)
        self.everywhere = f"ports{version}{suffix}"
        self.at = f"ports{version}-at{suffix}"
        self.held = f"ports{version}-held{suffix}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Maps) and self.everywhere == other.everywhere

    def __hash__(self) -> int:
        return hash(self.everywhere)

    def of(self, port: Port) -> str:
        return self.at if port.address else self.everywhere

    def find(self, port: Port) -> "Element | None":
        found = nft.entry_of(FAMILY, NAME, self.of(port), port.key)
        return Element(self, port.key, *found) if found else None

    def elements(self) -> "list[Element]":
        return [
            Element(self, key, value, owner)
            for container in (self.everywhere, self.at)
            for key, value, owner in nft.entries(FAMILY, NAME, container)
            if key[-8] in _PROTOCOL_NAMES
        ]

    @property
    def uses(self) -> int:
        """The use count of the chain of a wording: its rules, and the rule that leads there."""
        return len([*self.rules()]) + 1

    @property
    def objects(self) -> "list[str]":
        return [f"map {self.everywhere}", f"map {self.at}", f"set {self.held}"]

    def declaration(self) -> "Iterator[str]":
        port, address = "inet_proto . inet_service", f"ipv{self.version}_addr"
        yield f"add map {TABLE} {self.everywhere} {{ type {port} : {address} . inet_service ; }}"
        yield f"add map {TABLE} {self.at} {{ type {address} . {port} : {address} . inet_service ; }}"
        yield f"add set {TABLE} {self.held} {{ type {port} ; }}"

    def rules(self) -> "Iterator[str]":
        protocol, port = "ip" if self.version == 4 else "ip6", "meta l4proto . th dport"
        if self.version == 4:
            yield loopback.BEFORE_NAT
        yield f"dnat {protocol} to {protocol} daddr . {port} map @{self.at}"
        yield f"meta nfproto ipv{self.version} dnat {protocol} to {port} map @{self.everywhere}"
        if self.version == 4:
            yield loopback.AFTER_NAT

    def under_conditions(self) -> "Iterator[str]":
        yield from self.declaration()
        yield f"add chain {TABLE} {self.chain}"
        yield f"flush chain {TABLE} {self.chain}"
        for rule in self.rules():
            yield f"add rule {TABLE} {self.chain} {rule}"
        rule = f'meta nfproto ipv{self.version} {self.conditions} jump {self.chain} comment "{self.chain}"'
        yield f"add rule {TABLE} ports-conditional {rule}"


_MAPS = [_Maps(4), _Maps(6)]


def _conditional(chains: "Iterable[str]") -> "list[_Maps]":
    found = []
    for chain in chains:
        if chain.startswith(_WHEN):
            version, _, digest = chain.removeprefix(f"{_WHEN}ipv").partition("-")
            found.append(_Maps(int(version), digest=digest))
    return found


def _maps_for(conditions: "Mapping[int, str]") -> "dict[int, _Maps]":
    return {version: _Maps(version, conditions.get(version, "")) for version in (4, 6)}


# ADD


def acquire(*, conditional: bool) -> None:
    """Open libnftables, unless all that ports rely on is there; `conditional`: under conditions."""
    if conditional or not _is_whole(table.chains()):
        nft.load()


def add(
    call: Call,
    ports: "Mapping[Port, Target]",
    nets: "list[IPNet]",
    *,
    conditions: "Mapping[int, str]",
    masquerade: str = SUBNET,
) -> None:
    """Publish ports of a container, whose addresses with their subnets are `nets`, or raise PortTaken.

    `conditions` are nft's matches, by IP version.
    """
    maps = _maps_for(conditions)
    with Lock(LOCK, purpose=f"publish ports of {call.owner}"):
        ports, has_some = _claim(call, ports, maps)
        if has_some:
            _remove(*_owned(lambda owner: owner == call.owner))  # of an ADD that no DEL followed
        if not ports:
            return
        present = table.chains()
        is_whole = _is_whole(present)
        commands = [] if is_whole else [*_base(), *_restored(present)]
        elements = []
        for one in {maps[port.version] for port in ports}:
            if one.is_conditional and present.get(one.chain, 0) < one.uses:
                commands += one.under_conditions()
        for port, (address, number) in ports.items():
            one = maps[port.version]
            value = bytes(address) + number.to_bytes(2, "big") + bytes(2)
            elements.append(nft.new_element(NAME, one.of(port), port.key, call.owner, value=value))
            if port.address:
                elements.append(nft.new_element(NAME, one.held, port.everywhere, ""))
        for net in nets:
            chain = _chain_from(net, masquerade)
            commands += _masquerading(chain, present)
            container = f"ports-to{net.address.version}"
            if nft.comment_of(FAMILY, NAME, container, net.address) is not None:
                # Left by an owner who is gone, since the address is ours now; it would not be replaced.
                elements.append(nft.old_element(NAME, container, net.address))
            elements.append(nft.new_element(NAME, container, net.address, call.owner, jump=chain))
        what = f"publish ports of {call.owner}"
        if commands:
            nft.run("\n".join(commands), what)
        nft.change(FAMILY, elements, what)
        if not is_whole:
            loopback.close_opened()


def _is_whole(present: "Mapping[str, int]") -> bool:
    """Whether all that ports rely on is there; somebody may have flushed it."""
    return all(
        present.get(chain, 0) == uses or (chain == "ports-conditional" and present.get(chain, 0) > uses)
        for chain, uses in USES.items()
    )


def _claim(
    call: Call, ports: "Mapping[Port, Target]", maps: "Mapping[int, _Maps]"
) -> "tuple[dict[Port, Target], bool]":
    """Return the ports that this attachment is to publish, and whether it has published one before.

    A port that leads to the container by another of its networks stays there, since podman passes all ports
    to each network.  Raises PortTaken if another container has one.
    """
    claimed: dict[Port, Target] = {}
    has_some = False
    for port, target in ports.items():
        one = maps[port.version]
        owner = nft.comment_of(FAMILY, NAME, one.everywhere, port.everywhere)
        if owner is None and port.address:
            owner = nft.comment_of(FAMILY, NAME, one.at, port.key)
        elif owner is None:
            owner = _holder(one, port)
        if owner is None or owner == call.owner:
            claimed[port] = target
        elif not _is_same_container(owner, call):
            raise PortTaken(INTERNAL, f"host port {port} is taken: {_described(owner)}", _hint(owner))
        has_some = has_some or owner == call.owner
    return claimed, has_some


def _is_same_container(owner: str, call: Call) -> bool:
    return owner.split(" ")[1:2] == call.owner.split(" ")[1:2]


def is_published(port: Port) -> bool:
    """Whether an ADD of it, without conditions, would be refused now."""
    maps = _MAPS[port.version == 6]
    if nft.comment_of(FAMILY, NAME, maps.everywhere, port.everywhere) is not None:
        return True
    if port.address:
        return nft.comment_of(FAMILY, NAME, maps.at, port.key) is not None
    return nft.comment_of(FAMILY, NAME, maps.held, port.everywhere) is not None


def _hint(owner: str) -> str:
    command = f"cnihook gc {owner.split(' ')[0]}"
    return f"publish another, or end that container; `{command}` frees the ports of containers that are gone"


def _holder(maps: _Maps, port: Port) -> "str | None":
    """Who has a port on one of the host's addresses."""
    if nft.comment_of(FAMILY, NAME, maps.held, port.everywhere) is None:
        return None
    held = nft.elements(FAMILY, NAME, maps.at)
    return next((owner for key, owner in held if key.endswith(port.everywhere)), None)


def _described(owner: str) -> str:
    words = owner.split(" ")
    if len(words) != 3:
        return f"{owner!r} has it" if owner else f"it is in table {TABLE} already"
    return "container {1} has it, on network {0} by {2}".format(*words)


def _rules_from(chain: str) -> "list[str]":
    """What is in a chain of connections to containers: its name says whose are masqueraded."""
    whose = chain.removeprefix(_FROM).replace("_", ":")
    if whose in (ANY, NONE):
        return ["masquerade"] if whose == ANY else []
    protocol = "ip6" if ":" in whose else "ip"
    rules = [f"{protocol} saddr {whose} masquerade"]
    return [*rules, f"ip saddr {loopback.STAND_IN} masquerade"] if protocol == "ip" else rules


def _chain_from(net: IPNet, whose: str) -> str:
    """The chain of connections to a container, whose address and subnet that is."""
    whose = str(net.network()) if whose == SUBNET else whose
    return f"{_FROM}{whose}".replace(":", "_")  # no colon in an identifier of nft


def _masquerading(chain: str, present: "dict[str, int]") -> "Iterator[str]":
    rules = _rules_from(chain)
    if present.get(chain, -1) < len(rules):
        yield f"add chain {TABLE} {chain}"
        yield f"flush chain {TABLE} {chain}"
        for rule in rules:
            yield f"add rule {TABLE} {chain} {rule}"
        present[chain] = len(rules)


def _restored(present: "Mapping[str, int]") -> "Iterator[str]":
    """The chains of other attachments, as this version has them: an earlier one had other rules."""
    for chain in present:
        if chain.startswith(_FROM):
            yield from _masquerading(chain, {})
    for maps in _conditional(present):
        yield f"flush chain {TABLE} {maps.chain}"
        for rule in maps.rules():
            yield f"add rule {TABLE} {maps.chain} {rule}"


# DEL, GC


def delete(call: Call, ports: "Iterable[Port]", conditions: "Mapping[int, str]") -> "list[Element]":
    """Unpublish what is this attachment's, and return it.

    `ports` is where to look; if any of them is not its own, or there are none, everywhere.
    """
    if not _are_there():
        return []
    maps = _maps_for(conditions)
    with Lock(LOCK, purpose=f"unpublish ports of {call.owner}"):
        found = [maps[port.version].find(port) for port in ports]
        own = [element for element in found if element and element.owner == call.owner]
        if own and len(own) == len(found):
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
    """Unpublish what is of owners on this network that are not in `keep`, and return it."""
    if not _are_there():
        return []
    with Lock(LOCK, purpose=f"gc {call.network}"):
        stale, addresses = _owned(lambda owner: owner.startswith(call.owner_prefix) and owner not in keep)
        _remove(stale, addresses)
    return stale


def _are_there() -> bool:
    """Whether any port is published at all; a kernel without nftables must not keep a DEL from its end."""
    try:
        return _FIRST in table.chains()
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL):
            return False
        raise


def _owned(chosen: "Callable[[str], bool]") -> "tuple[list[Element], list[Address]]":
    """All ports, and addresses of containers, whose owner is chosen."""
    maps = [*_MAPS, *_conditional(table.chains())]
    ports = [element for one in maps for element in one.elements() if chosen(element.owner)]
    addresses = [
        Address(key)
        for container in _TO
        for key, owner in nft.elements(FAMILY, NAME, container)
        if chosen(owner)
    ]
    return ports, addresses


def _remove(ports: "list[Element]", addresses: "list[Address]") -> None:
    """Remove elements, and what none needs any more: another's DEL may have been killed in between."""
    elements = [nft.old_element(NAME, each.maps.of(each.port), each.port.key) for each in ports]
    elements += [nft.old_element(NAME, f"ports-to{one.version}", one) for one in addresses]
    for maps in {element.maps for element in ports}:
        gone = {element.port for element in ports if element.maps == maps}
        if any(port.address for port in gone) or maps.is_conditional:
            elements += _no_longer_needed(maps, gone)
    nft.change(FAMILY, elements, "unpublish ports")

    chains = table.chains()
    ours = [name for name in chains if name.startswith(_FROM)]
    unused = [name for name in ours if chains[name] <= len(_rules_from(name))]
    if unused != ours:
        table.remove(chains, unused)
        return
    loopback.close_opened()
    conditional = _conditional(chains)
    objects = [thing for maps in (*_MAPS, *conditional) for thing in maps.objects]
    table.remove(
        chains,
        [*USES, *(maps.chain for maps in conditional), *unused],
        [*objects, *(f"map {name}" for name in _TO)],
    )


def _no_longer_needed(maps: _Maps, gone: "set[Port]") -> "Iterator[nft_objects.Message]":
    """What goes with the last port on a single address, and with the last under the same conditions."""
    left = {element.port for element in maps.elements()} - gone
    if maps.is_conditional and not left:
        for handle, comment in nft.commented_rules(FAMILY, NAME, "ports-conditional"):
            if comment == maps.chain:
                yield nft_objects.delete_rule(NAME, "ports-conditional", handle)
        yield nft_objects.delete_chain(NAME, maps.chain)
        for thing in maps.objects:
            yield nft_objects.delete_set(NAME, thing.split()[1])
        return
    held = {port.everywhere for port in left if port.address}
    for port in {Port(port.version, port.protocol, port.number) for port in gone if port.address}:
        if port.everywhere not in held and nft.comment_of(FAMILY, NAME, maps.held, port.key) is not None:
            yield nft.old_element(NAME, maps.held, port.key)


# CHECK


def check(
    call: Call,
    ports: "Mapping[Port, Target]",
    nets: "list[IPNet]",
    *,
    conditions: "Mapping[int, str]",
) -> None:
    """CniError unless the ports are published, and lead where they should."""
    maps = _maps_for(conditions)
    present = table.chains()
    if not _is_whole(present):
        raise CniError(INTERNAL, f"a part of table {TABLE} is missing", "the next ADD restores it")
    versions = set()  # in which this attachment has a port
    for port, target in ports.items():
        one = maps[port.version]
        found = one.find(port)
        if not found or (one.is_conditional and present.get(one.chain, 0) < one.uses):
            raise CniError(INTERNAL, f"host port {port} is not published")
        if found.owner != call.owner and _is_same_container(found.owner, call):
            continue  # by another of its networks
        if (found.owner, found.target) != (call.owner, target):
            raise CniError(INTERNAL, f"host port {port} leads elsewhere: {_described(found.owner)}")
        versions.add(port.version)
    for net in (net for net in nets if net.address.version in versions):
        owner = nft.comment_of(FAMILY, NAME, f"ports-to{net.address.version}", net.address)
        if owner != call.owner:
            raise CniError(INTERNAL, f"connections to {net.address} from its own subnet are not masqueraded")
