# SPDX-License-Identifier: Apache-2.0
"""
The grammar of a rule: the peers and the ports that it names.

    10.0.0.0/8, 2001:db8::1   addresses             !10.9.0.0/16      except these
    all                       every address         outside           not a container of this host
    container:web-*           by ID or name         label:app=db      by label
    network:back              by network            host              the host itself, at any address
    dns                       the container's name servers, on port 53
    name:pypi.org             the addresses of a DNS name       name:*.x.org      of all names below it

    80, 80/tcp, 8000-8010/udp, icmp

A rule of the short form has both, with a colon in between: `10.0.0.0/8:5432/tcp,label:app=db,dns`.
"""

from cnihook.fast.address import Address, IPNet
from cnihook.types.errors import INVALID_CONFIG, CniError
from cnihook.types.names import check_network_name, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Ports = tuple["PortRange", ...]

SELECTORS = ("container", "label", "network")
WORDS = ("all", "dns", "host", "outside")
MOST_PEERS, MOST_PORTS = 256, 64  # of one rule
LINK_LOCAL = IPNet.parse("169.254.0.0/16")
DNS_PORT = 53

_PROTOCOLS = ("tcp", "udp", "sctp")
_LABEL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-/")
_PATTERN = _LABEL | frozenset("*?")
_LONGEST = 128  # characters of a label or a pattern


def refuse(what: str, why: str, hint: str = "") -> CniError:
    return CniError(INVALID_CONFIG, f"{what} {why}", hint)


class PortRange:
    """Ports of one protocol; for `icmp`, which has none, from 0 to 0."""

    __slots__ = ("high", "low", "protocol")

    def __init__(self, protocol: str, low: int, high: int) -> None:
        self.protocol = protocol
        self.low = low
        self.high = high

    def __str__(self) -> str:
        if self.protocol == "icmp":
            return "icmp"
        ports = str(self.low) if self.low == self.high else f"{self.low}-{self.high}"
        return f"{ports}/{self.protocol}"

    def matches(self, protocol: str, port: int) -> bool:
        return self.protocol == protocol and self.low <= port <= self.high


class Rule:
    """Peers and ports: a connection matches if it is with one of the peers, on one of the ports.

    `peers` and `ports` are in canonical form; no ports: every port and protocol.  `source` is the policy
    that has the rule.
    """

    __slots__ = ("peers", "ports", "source")

    def __init__(self, peers: "Iterable[str]", ports: "Ports" = (), source: str = "") -> None:
        self.peers = tuple(peers)
        self.ports = ports
        self.source = source

    def __str__(self) -> str:
        ports = f" on {', '.join(map(str, self.ports))}" if self.ports else ""
        return f"{', '.join(self.peers)}{ports}"

    def nets(self, version: int, *, is_deny: bool) -> "list[tuple[list[IPNet], list[IPNet]]]":
        """Return pairs: networks of an IP version that the rule names, and those that it excepts of them.

        `is_deny`: the rule denies, so a wider network includes 169.254.0.0/16.
        """
        named: list[IPNet] = []
        excepted: list[IPNet] = []
        for peer in self.peers:
            if peer == "all":
                named.append(IPNet.parse("0.0.0.0/0" if version == 4 else "::/0"))
            elif peer[0] == "!" or is_net(peer):
                net = IPNet.parse(peer.removeprefix("!"))
                if net.address.version == version:
                    (excepted if peer[0] == "!" else named).append(net)
        if version == 6 or is_deny:
            return [(named, excepted)]
        # Few clouds have anything else in there than the credentials of the machine.  A rule may name one
        # address of it, such as the clock of a cloud: the others stay excepted.
        inside = [net for net in named if net.prefix >= LINK_LOCAL.prefix and net.overlaps(LINK_LOCAL)]
        wider = [net for net in named if net not in inside]
        return [(wider, [*excepted, LINK_LOCAL]), (inside, excepted)]

    def names(self) -> "tuple[str, ...]":
        """Return the DNS names, and patterns of them, that the rule names."""
        return tuple(peer.removeprefix("name:") for peer in self.peers if is_name(peer))

    def selectors(self) -> "list[str]":
        return [peer for peer in self.peers if peer.partition(":")[0] in SELECTORS and not is_net(peer)]


def is_name(peer: str) -> bool:
    """Return True if a peer in canonical form is a DNS name."""
    return peer.startswith("name:")


def is_net(peer: str) -> bool:
    """Return True if a peer in canonical form is a network."""
    return "/" in peer and peer.partition(":")[0] not in SELECTORS


def parse_peer(text: str, direction: str) -> str:
    """Return a peer in canonical form.  `direction`: egress or ingress.  Raises CniError."""
    what = f"{direction}: {shown(text)}"
    kind, colon, value = text.partition(":")
    if text in WORDS:
        if direction == "ingress" and text in ("dns", "host"):
            why = "is for egress only"
            hint = "the host always reaches its containers" if text == "host" else ""
            raise refuse(what, why, hint)
        return text
    if kind == "name" and colon:
        return f"name:{_parse_name(value, direction, what)}"
    if kind in SELECTORS and colon:
        return f"{kind}:{_check_selector(kind, value, what)}"
    negative, bare = text.startswith("!"), text.removeprefix("!")
    try:
        net = IPNet.parse(bare) if "/" in bare else Address.parse(bare).host_net()
    except ValueError:
        raise _not_a_peer(text, what) from None
    if net.network() != net:
        raise refuse(what, "has bits behind its prefix", f"{net.network()} is the network, without them")
    return f"{'!' if negative else ''}{net}"


def _parse_name(text: str, direction: str, what: str) -> str:
    if direction == "ingress":
        raise refuse(what, "is for egress only", "list addresses, containers or outside")
    from cnihook.resolver import listing  # few rules have names

    try:
        return listing.parse_pattern(text)
    except ValueError:
        hint = "letters, digits, - and _; *.NAME for all names below it; xn-- for other letters"
        raise refuse(what, "is not a DNS name", hint) from None


def _not_a_peer(text: str, what: str) -> CniError:
    from cnihook.fast import similar  # for this error only

    kind, colon, _ = text.partition(":")
    if "/" not in text and colon and kind.isalpha():
        return refuse(what, "is not a peer", similar.hint(kind, (*SELECTORS, "name")))
    import difflib

    alike = difflib.get_close_matches(text, WORDS, 1, 0.7)
    if alike:
        return refuse(what, "is not an address", f"did you mean {alike[0]}?")
    hint = f"a container is container:{text}, a label label:KEY=VALUE"
    if "." in text:
        hint = f"a DNS name is name:{text}"
    return refuse(what, "is not an address or a network", hint if text[:1].isalpha() else "")


def _check_selector(kind: str, value: str, what: str) -> str:
    if kind == "network":
        try:
            check_network_name(value)
        except CniError as error:
            raise refuse(what, f"is not a peer: {error.msg}") from None
        return value
    if kind == "label":
        parse_label(value, what)
        return value
    check_pattern(value, what)
    return value


def parse_label(text: str, what: str = "") -> "tuple[str, str | None]":
    """Return key and value of KEY=VALUE, or the key and None of KEY.  Raises CniError."""
    what = what or f"label {shown(text)}"
    key, equals, value = text.partition("=")
    if not (key and _LABEL.issuperset(key) and _LABEL.issuperset(value) and len(text) <= _LONGEST):
        hint = f"letters, digits and _.-/, {_LONGEST} characters at most"
        raise refuse(what, "is not KEY=VALUE or KEY", hint)
    return key, value if equals else None


def check_pattern(text: str, what: str) -> None:
    if not (text and _PATTERN.issuperset(text) and len(text) <= _LONGEST):
        raise refuse(what, "is not a name", f"letters, digits, _.-/ and * ?, {_LONGEST} characters at most")


def parse_ports(text: str, direction: str) -> "Ports":
    """Return the ranges in PORT[-PORT][/PROTOCOL] or `icmp`; without a protocol, of TCP and of UDP."""
    what = f"{direction}: port {shown(text)}"
    if text == "icmp":
        return (PortRange("icmp", 0, 0),)
    ports, slash, protocol = text.partition("/")
    first, dash, last = ports.partition("-")
    numbers = [first, last] if dash else [first]
    if not all(number.isascii() and number.isdigit() and len(number) < 6 for number in numbers):
        raise refuse(what, "is not PORT, PORT-PORT or icmp", "with /tcp, /udp or /sctp behind it")
    low, high = int(numbers[0]), int(numbers[-1])
    if not 1 <= low <= high <= 65535:
        raise refuse(what, "is not between 1 and 65535" if low <= high else "ends before it begins")
    if slash and protocol not in _PROTOCOLS:
        raise refuse(what, f"has an unknown protocol {protocol!r}", f"there are {', '.join(_PROTOCOLS)}")
    return tuple(PortRange(each, low, high) for each in ((protocol,) if slash else ("tcp", "udp")))


def make_rule(peers: "list[str]", ports: "list[str]", direction: str, source: str = "") -> Rule:
    """Return a rule of these peers and ports, each as text.  Raises CniError."""
    if not peers:
        raise refuse(direction, 'has a rule without a peer: "all" names every address')
    if len(peers) > MOST_PEERS or len(ports) > MOST_PORTS:
        raise refuse(direction, f"has a rule of more than {MOST_PEERS} peers or {MOST_PORTS} ports")
    canonical = [parse_peer(peer, direction) for peer in peers]
    if all(peer[0] == "!" for peer in canonical):
        raise refuse(direction, f"excepts {peers[0]} of nothing", f'"all,{peers[0]}" is all other addresses')
    if any(map(is_name, canonical)) and any(peer[0] == "!" for peer in canonical):
        raise refuse(direction, "excepts addresses of names", 'a rule of "deny" comes before all others')
    return Rule(canonical, tuple(one for port in ports for one in parse_ports(port, direction)), source)


def parse_short(text: str, direction: str, source: str = "") -> "list[Rule]":
    """Return the rules of a list such as `dns,10.0.0.0/8:5432/tcp,label:app=db`; `none`: no rule.

    An address with an exclamation mark is excepted of all networks in the list.
    """
    items = [item.strip() for item in text.split(",") if item.strip()]
    if items == ["none"]:
        return []
    if "none" in items:
        raise refuse(direction, 'is "none" and something else')
    if not items:
        raise refuse(direction, "is empty", '"none" denies all, "all" sets no limit')
    if len(items) > MOST_PEERS:
        raise refuse(direction, f"has more than {MOST_PEERS} items")
    excepted = [item for item in items if item[0] == "!"]
    rules = []
    for item in items:
        if item not in excepted:
            peer, ports = _split(item)
            others = excepted if peer == "all" or is_net(parse_peer(peer, direction)) else []
            rules.append(make_rule([peer, *others], [ports] if ports else [], direction, source))
    if excepted and not rules:
        make_rule(excepted, [], direction)  # raises
    return rules


def _split(item: str) -> "tuple[str, str]":
    """Return the peer and the ports of an item of the short form."""
    if item.startswith("["):  # [2001:db8::/32]:443
        net, bracket, ports = item[1:].partition("]")
        return net, ports.removeprefix(":") if bracket else ""
    kind, _, value = item.partition(":")
    if kind in (*SELECTORS, "name"):
        name, _, ports = value.partition(":")
        return f"{kind}:{name}", ports
    if item.count(":") > 1 or "=" in item:
        return item, ""  # an IPv6 address; or a misspelled `label`, which parse_peer() reports
    return kind, value
