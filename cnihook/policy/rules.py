# SPDX-License-Identifier: Apache-2.0
"""
Effective policies as rules of nftables, in `table inet cnihook`.

    map policy-out4     { 10.1.0.5 comment "front c1 eth0" : jump policy-out-1f2e }   one per container
    chain policy-forward { ct state established,related accept; ip saddr vmap @policy-out4;
                           ip daddr vmap @policy-in4; ... }       and policy-input, with policy-host4
    chain policy-out-1f2e { ip daddr @policy-1f2e-0-4 tcp dport 5432 return; ...; goto policy-reject-out }
    chain policy-host-1f2e                                        the same for the addresses of the host
    set policy-member-83d24 { 10.1.0.7 comment "front c2 eth0" }  the containers that a selector means
    chain policy-reject-out { jump policy-record-out; reject }
    set policy-denied-out4  { 10.1.0.5 . 192.0.2.1 . tcp . 443 counter }   what was denied, by packets

A chain is named by the digest of the policy and shared by all containers that have it.  What is allowed
returns, so the ingress policy of the receiver is asked, too.
"""

import _struct as struct

from cnihook.fast.address import Address, IPNet
from cnihook.linux import nft_objects, nft_sets
from cnihook.linux.nft_objects import DROP, FORWARD, INPUT, RETURN, Rule, verdict
from cnihook.linux.nft_sets import ACCEPT, GOTO
from cnihook.policy.endpoint import OF_ALL
from cnihook.policy.peers import DNS_PORT, LINK_LOCAL, PortRange
from cnihook.policy.peers import Rule as PolicyRule
from cnihook.resolver.listing import PORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cnihook.linux.nft_objects import Message
    from cnihook.policy.effective import Layer, Side

PREFIX = "policy-"
MAPS = ("policy-out", "policy-host", "policy-in")
DENIED_TIMEOUT, DENIED_SIZE = 24 * 3600, 4096  # seconds, elements
VERSIONS = (4, 6)
VERDICTS = ("reject", "drop", "audit")
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_ICMP = {4: 1, 6: 58}
_IP = {4: nft_objects.IPV4_ADDR, 6: nft_objects.IPV6_ADDR}
NEIGHBOURS = ((130, 136), (143, 143))  # ICMPv6: multicast listeners, routers, neighbours


def denied_set(direction: str, version: int) -> str:
    return f"policy-denied-{_short(direction)}{version}"


def denied_key(version: int) -> "tuple[int, int]":
    ip = _IP[version]
    return nft_objects.concatenated(ip, ip, nft_objects.INET_PROTO, nft_objects.INET_SERVICE)


def member_set(selector: str, version: int) -> str:
    from _blake2 import blake2s

    return f"policy-member-{blake2s(selector.encode(), digest_size=6).hexdigest()}-{version}"


def member_sets(table: str, selector: str) -> "Iterator[Message]":
    """Yield messages that declare the sets of the containers that a selector means."""
    for version in VERSIONS:
        yield nft_objects.value_set(table, member_set(selector, version), _IP[version])


def name_base(side: "Side", names: "tuple[str, ...]") -> str:
    """Return the name of the sets, without the IP version, of the addresses of these DNS names."""
    from _blake2 import blake2s

    digest = blake2s(",".join(names).encode(), digest_size=4).hexdigest()
    return f"policy-out-{side.digest}-name-{digest}-"


def _short(direction: str) -> str:
    return "out" if direction == "egress" else "in"


def base(table: str) -> "Iterator[Message]":
    """Yield messages that declare what all policies share."""
    yield from base_sets(table)
    yield from nft_sets.filter_chains(table, base_chains(), HOOKS)


def base_sets(table: str) -> "Iterator[Message]":
    """Yield messages that declare the maps, and the sets of what was denied; those that exist stay."""
    for version in VERSIONS:
        for name in MAPS:
            yield nft_objects.verdict_map(table, f"{name}{version}", _IP[version])
        for direction in ("egress", "ingress"):
            name, key = denied_set(direction, version), denied_key(version)
            yield nft_sets.filled_set(table, name, key, size=DENIED_SIZE, timeout=DENIED_TIMEOUT)


HOOKS = {"policy-forward": (FORWARD, nft_objects.FILTER), "policy-input": (INPUT, nft_objects.FILTER)}


def verdict_chains() -> "dict[str, list[Rule]]":
    """Return the rules of the chains at which those of policies end."""
    chains: dict[str, list[Rule]] = {}
    for direction in ("egress", "ingress"):
        way = _short(direction)
        chains[f"policy-record-{way}"] = [
            _record(direction, version, protocol) for version in VERSIONS for protocol in (6, 17, 132, 0)
        ]
        for kind in VERDICTS:
            end = {"reject": nft_sets.reject, "drop": lambda: verdict(DROP)}.get(kind)
            rules = [Rule(jump=f"policy-record-{way}")]
            chains[f"policy-{kind}-{way}"] = [*rules, Rule(end)] if end else rules
    return chains


def base_chains() -> "dict[str, list[Rule]]":
    """Return the rules of the chains that all policies share; only a later chain jumps to an earlier one."""
    chains = verdict_chains()
    chains["policy-forward"] = [
        established(),
        *(by_source("policy-out", version) for version in VERSIONS),
        *(by_destination("policy-in", version) for version in VERSIONS),
    ]
    chains["policy-input"] = [
        established(),
        *(neighbours(low, high) for low, high in NEIGHBOURS),
        *(by_source("policy-host", version) for version in VERSIONS),
    ]
    return chains


def established() -> Rule:
    return Rule(lambda: nft_objects.established() + verdict(ACCEPT))


def by_source(name: str, version: int) -> Rule:
    return Rule(lambda: nft_objects.source(version) + nft_objects.vmap(f"{name}{version}"))


def by_destination(name: str, version: int) -> Rule:
    return Rule(lambda: nft_objects.destination(version) + nft_objects.vmap(f"{name}{version}"))


def neighbours(low: int, high: int, where: "Callable[[], bytes]" = bytes) -> Rule:
    """Return the rule that accepts these types of ICMPv6.  `where`: a further condition."""
    return Rule(
        lambda: (
            nft_sets.of_version(6)
            + where()
            + nft_sets.of_protocol(_ICMP[6])
            + nft_sets.load_transport(0, 1)
            + nft_sets.between(bytes((low,)), bytes((high,)))
            + verdict(ACCEPT)
        )
    )


def _record(direction: str, version: int, protocol: int) -> Rule:
    """Return the rule that records a denied packet; protocol 0: one without ports."""
    words = nft_objects.IPV4_ADDR[1] // 4 if version == 4 else nft_objects.IPV6_ADDR[1] // 4
    port = (
        nft_sets.load_transport(2, 2, 2 * words + 1)
        if protocol
        else nft_sets.load_value(bytes(2), 2 * words + 1)
    )
    return Rule(
        lambda: (
            nft_sets.of_version(version)
            + (nft_sets.of_protocol(protocol) if protocol else b"")
            + nft_sets.load_address(version)
            + nft_sets.load_address(version, words, of_source=False)
            + nft_sets.load_protocol(2 * words)
            + port
            + nft_sets.update(denied_set(direction, version), DENIED_TIMEOUT)
            + verdict(RETURN)
        )
    )


class Compiled:
    """The chains, the sets of addresses and the selectors of one direction of an effective policy."""

    def __init__(self, side: "Side") -> None:
        self.side = side
        self.digest = side.digest
        self.chains: dict[str, list[Rule]] = {}
        self.sets: dict[str, tuple[int, list[tuple[bytes, bytes]]]] = {}  # version, ranges
        self.selectors = side.selectors()
        self.names = [name_base(side, names) for names in side.names()]
        self._compile(f"policy-{_short(side.direction)}-{self.digest}", to_host=False)
        if side.direction == "egress":
            self._compile(f"policy-host-{self.digest}", to_host=True)

    def jumps(self) -> "dict[str, str]":
        """Return the chain that each map leads to."""
        if self.side.direction == "egress":
            return {"policy-out": f"policy-out-{self.digest}", "policy-host": f"policy-host-{self.digest}"}
        return {"policy-in": f"policy-in-{self.digest}"}

    def declaration(self, table: str) -> "Iterator[Message]":
        """Yield messages that add all of it; the sets of its selectors must exist."""
        for name in self.names:
            for version in VERSIONS:
                yield nft_sets.timeout_set(table, f"{name}{version}", _IP[version])
        for name, (version, ranges) in self.sets.items():
            yield nft_sets.interval_set(table, name, _IP[version])
            yield from nft_sets.add_intervals(table, name, ranges)
        for name in self.chains:
            yield nft_objects.chain(table, name)
        for name, rules in self.chains.items():
            for rule in rules:
                yield rule.added(table, name)

    def removal(self, table: str) -> "Iterator[Message]":
        """Yield messages that remove it; no element of a map may lead to it."""
        for name in self.chains:
            yield nft_objects.flush(table, name)
        for name in self.chains:
            yield nft_objects.delete_chain(table, name)
        for name in (*self.sets, *(f"{base}{version}" for base in self.names for version in VERSIONS)):
            yield nft_objects.delete_set(table, name)

    def _compile(self, name: str, *, to_host: bool) -> None:
        way = _short(self.side.direction)
        rules = self.chains[name] = []
        if to_host and self.names:
            rules += [Rule(_to_resolver(protocol)) for protocol in ("tcp", "udp")]
        for layer in self.side.deny:
            end = _end(layer, way)
            for match in self._matches(layer.rules, to_host=to_host, is_deny=True):
                rules.append(Rule(_joined(match, end)))
        parts = [(name, rules)]
        if len(self.side.layers) > 1:
            parts = []
            for number, _layer in enumerate(self.side.layers):
                part: list[Rule] = []
                self.chains[f"{name}.{number}"] = part
                parts.append((f"{name}.{number}", part))
                rules.append(Rule(jump=f"{name}.{number}"))
        for layer, (_chain, part) in zip(self.side.layers, parts, strict=False):
            for match in self._matches(layer.rules, to_host=to_host, is_deny=False):
                part.append(Rule(_joined(match, lambda: verdict(RETURN))))
            part.append(Rule(_end(layer, way)))

    def _matches(
        self, rules: "Sequence[PolicyRule]", *, to_host: bool, is_deny: bool
    ) -> "Iterator[Callable[[], bytes]]":
        for rule in rules:
            for version in VERSIONS:
                for ports in _ports(rule.ports, version):
                    for peer in self._peers(rule, version, to_host=to_host, is_deny=is_deny):
                        yield _joined(_joined(_version(version), peer), ports)
                if "dns" in rule.peers:
                    yield from self._servers(version)

    def _peers(
        self, rule: PolicyRule, version: int, *, to_host: bool, is_deny: bool
    ) -> "Iterator[Callable[[], bytes]]":
        of_source = self.side.direction == "ingress"

        def in_set(name: str, *, inverted: bool = False) -> "Callable[[], bytes]":
            return lambda: (
                nft_sets.load_address(version, of_source=of_source) + nft_sets.is_in(name, inverted=inverted)
            )

        if to_host and "host" in rule.peers:
            yield bytes
        if to_host and not is_deny:
            return
        for named, excepted in rule.nets(version, is_deny=is_deny):
            if ranges := merged(named, excepted):
                yield in_set(self._set(version, ranges))
        if to_host:
            return
        if "outside" in rule.peers:
            outside = in_set(member_set(OF_ALL, version), inverted=True)
            is_limited = version == 4 and not is_deny
            yield _joined(_not_link_local(of_source), outside) if is_limited else outside
        if names := rule.names():
            yield in_set(f"{name_base(self.side, names)}{version}")
        for selector in rule.selectors():
            yield in_set(member_set(selector, version))

    def _set(self, version: int, ranges: "list[tuple[bytes, bytes]]") -> str:
        for name, content in self.sets.items():
            if content == (version, ranges):
                return name
        way = _short(self.side.direction)
        name = f"policy-{way}-{self.digest}-{len(self.sets)}-{version}"
        self.sets[name] = version, ranges
        return name

    def _servers(self, version: int) -> "Iterator[Callable[[], bytes]]":
        for text in self.side.servers:
            address = Address.parse(text)
            if address.version == version:
                for protocol in ("tcp", "udp"):
                    ports = _port(PortRange(protocol, DNS_PORT, DNS_PORT), version)
                    yield _joined(_joined(_version(version), _to(address)), ports)


def _to_resolver(protocol: str) -> "Callable[[], bytes]":
    """Allow what is sent to the resolver, which answers by the container's own list."""
    port = _port(PortRange(protocol, PORT, PORT), 4)
    return lambda: port() + verdict(RETURN)


def _joined(first: "Callable[[], bytes]", second: "Callable[[], bytes]") -> "Callable[[], bytes]":
    return lambda: first() + second()


def _version(version: int) -> "Callable[[], bytes]":
    return lambda: nft_sets.of_version(version)


def _to(address: Address) -> "Callable[[], bytes]":
    return lambda: nft_sets.load_address(address.version, of_source=False) + nft_sets.equals(address)


def _not_link_local(of_source: bool) -> "Callable[[], bytes]":
    offset = 12 if of_source else 16
    return lambda: nft_sets.load_network(offset, 2) + nft_sets.differs(LINK_LOCAL.address[:2])


def _end(layer: "Layer", way: str) -> "Callable[[], bytes]":
    chain = f"policy-{layer.verdict}-{way}"
    # An audited packet goes on with the next rule.
    return lambda: verdict(nft_objects.JUMP if layer.verdict == "audit" else GOTO, chain)


def _ports(ports: "Sequence[PortRange]", version: int) -> "list[Callable[[], bytes]]":
    return [_port(one, version) for one in ports] or [bytes]


def _port(one: PortRange, version: int) -> "Callable[[], bytes]":
    if one.protocol == "icmp":
        return lambda: nft_sets.of_protocol(_ICMP[version])
    low, high = struct.pack(">H", one.low), struct.pack(">H", one.high)
    number = _PROTOCOLS[one.protocol]
    return lambda: nft_sets.of_protocol(number) + nft_sets.load_transport(2, 2) + nft_sets.between(low, high)


def merged(named: "list[IPNet]", excepted: "list[IPNet]") -> "list[tuple[bytes, bytes]]":
    """Return the addresses of `named` without those of `excepted` as ranges, in order and apart."""
    if not named:
        return []
    bits = named[0].address.bits
    edges: list[tuple[int, int, int]] = []
    for nets, is_excepted in ((named, 0), (excepted, 1)):
        for net in nets:
            low, high = (int.from_bytes(one, "big") for one in (net.first(), net.last()))
            edges += [(low, is_excepted, 1), (high + 1, is_excepted, -1)]
    edges.sort()
    depth = [0, 0]
    ranges: list[tuple[int, int]] = []
    for index, (at, kind, step) in enumerate(edges):
        depth[kind] += step
        following = edges[index + 1][0] if index + 1 < len(edges) else at
        if depth[0] > 0 and not depth[1] and following > at:
            if ranges and ranges[-1][1] == at - 1:
                ranges[-1] = ranges[-1][0], following - 1
            else:
                ranges.append((at, following - 1))
    size = bits // 8
    return [(low.to_bytes(size, "big"), high.to_bytes(size, "big")) for low, high in ranges]
