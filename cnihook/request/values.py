# SPDX-License-Identifier: Apache-2.0
"""Parsers for the values of options and annotations.  Each takes one text and raises CniError."""

from cnihook.fast.address import Address, IPNet
from cnihook.fast.errors_text import one_line
from cnihook.request.request import HostPort, NetworkRequest, PortRequest
from cnihook.request.reserved import MOST_ALIASES, is_reserved
from cnihook.types.errors import INVALID_CONFIG, CniError
from cnihook.types.names import check_ifname, check_network_name, shown

NPWG = "k8s.v1.cni.cncf.io/networks"  # the Network Plumbing Working Group's

_PROTOCOLS = ("tcp", "udp", "sctp")
_LABEL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def refuse(what: str, why: str, hint: str = "") -> CniError:
    return CniError(INVALID_CONFIG, f"{one_line(what)}: {why}", hint)


def parse_network(text: str) -> NetworkRequest:
    """Parse NAME, NAME:IFNAME, NAME:KEY=VALUE,... or docker's form name=NAME,KEY=VALUE,...

    The keys are ifname, ip, ip6, mac and alias.  Raises CniError.
    """
    name, options = split_network(text)
    check_network_name(name)
    requested = NetworkRequest(name)
    for key, value in options:
        if key == "ifname":
            check_ifname(value)
            requested.ifname = value
        elif key in ("ip", "ip6"):
            requested.ips.append(parse_ip(value, 6 if key == "ip6" else 0))
        elif key == "mac":
            requested.mac = parse_mac(value)
        else:
            requested.aliases.append(parse_alias(value))
    if len(requested.aliases) > MOST_ALIASES:
        raise refuse(f"network {name}", f"a container may have {MOST_ALIASES} aliases at most")
    return requested


_NETWORK_OPTIONS = ("ifname", "ip", "ip6", "mac", "alias")
_SAME_OPTION = {"interface_name": "ifname", "mac-address": "mac", "mac_address": "mac"}


def split_network(text: str) -> "tuple[str, list[tuple[str, str]]]":
    """Return the name and the options in a text for parse_network(), each as text."""
    what = f"network {shown(text)}"
    name, colon, rest = text.strip().partition(":")
    is_dockers = "=" in name
    if is_dockers:
        name, rest = "", text.strip()
    elif "=" not in rest:
        return name, [("ifname", rest)] if colon else []
    options = []
    for option in rest.split(","):
        key, equals, value = option.strip().partition("=")
        key = key.lower()
        if not (equals and value):
            raise refuse(what, f"{option.strip()!r} is not KEY=VALUE")
        if is_dockers and key == "name":
            name = value
            continue
        key = _SAME_OPTION.get(key, key)
        if key not in _NETWORK_OPTIONS:
            raise refuse(what, f"unknown option {key!r}", f"there are {', '.join(_NETWORK_OPTIONS)}")
        options.append((key, value))
    if is_dockers and not name:
        raise refuse(what, "it has no name=NAME")
    return name, options


def parse_networks(text: str) -> "list[NetworkRequest]":
    """Parse networks with commas between them, or with spaces if one has options; empty: none."""
    return [parse_network(part) for part in split_networks(text)]


def split_networks(text: str) -> "list[str]":
    parts = text.split() if "=" in text else text.split(",")
    return [part.strip() for part in parts if part.strip()]


def parse_ip(text: str, version: int = 0) -> str:
    """Check ADDRESS or ADDRESS/PREFIX, of this IP version unless it is 0."""
    try:
        address = IPNet.parse(text).address if "/" in text else Address.parse(text)
    except ValueError as error:
        raise refuse(f"address {shown(text)}", str(error)) from None
    if version and address.version != version:
        raise refuse(f"address {shown(text)}", f"it is not an IPv{version} address")
    if address.is_unspecified or address.is_loopback:
        raise refuse(f"address {shown(text)}", "no container can have it")
    return text


def parse_mac(text: str) -> str:
    parts = text.lower().replace("-", ":").split(":")
    if len(parts) != 6 or not all(len(part) == 2 and set(part) <= set("0123456789abcdef") for part in parts):
        raise refuse(f"MAC address {shown(text)}", "it takes six bytes, such as 02:00:00:00:00:01")
    if int(parts[0], 16) & 1:
        raise refuse(f"MAC address {shown(text)}", "it is a multicast address: its first byte is odd")
    if not any(int(part, 16) for part in parts):
        raise refuse(f"MAC address {shown(text)}", "it is all zeros")
    return ":".join(parts)


def parse_host_name(text: str) -> str:
    """Check a name by RFC 1123: labels of letters, digits and hyphens, with dots between them."""
    labels = text.removesuffix(".").split(".")
    if longest := next((label for label in labels if len(label) > 63), ""):
        raise refuse(
            f"host name {shown(text)}", f"a part of it has {len(longest)} characters; it may have 63 at most"
        )
    if len(text) > 253 or not all(
        0 < len(label) <= 63 and _LABEL.issuperset(label) and label[0] != "-" and label[-1] != "-"
        for label in labels
    ):
        raise refuse(f"host name {shown(text)}", "it takes letters, digits and hyphens, with dots between")
    return text.removesuffix(".")


def parse_alias(text: str) -> str:
    """Check a name that other containers look up.  Raises CniError for a reserved one."""
    name = _parse_looked_up(text)
    refuse_reserved(f"alias {shown(text)}", name)
    return name


def _parse_looked_up(text: str) -> str:
    """Check a name that is only looked up: it may have underscores, which every resolver accepts."""
    parse_host_name(text.replace("_", "x"))
    return text.removesuffix(".")


def refuse_reserved(what: str, name: str) -> None:
    """Raise CniError for a name that means the container itself or its host in every container."""
    if is_reserved(name):
        raise refuse(what, "the name is reserved: containers call themselves or their host by it")


def parse_ports(text: str) -> "list[PortRequest]":
    """Parse docker's [[ADDRESS:][HOSTPORT]:]CONTAINERPORT[/PROTOCOL]; ports are numbers or ranges."""
    what = f"port {shown(text)}"
    host_ip, rest, protocol = _split_port(text, what, colons=2)
    host, colon, container = rest.rpartition(":")
    inside = parse_port_range(container, what)
    outside = parse_port_range(host, what) if host else range(0)
    if colon and not host and not host_ip:
        raise refuse(what, "the host's port is missing before the colon")
    if not outside:  # any free port
        return [PortRequest(number, 0, 0, protocol, host_ip) for number in inside]
    if len(outside) == len(inside):
        return [PortRequest(i, o, o, protocol, host_ip) for i, o in zip(inside, outside, strict=True)]
    if len(inside) == 1:  # one of them
        return [PortRequest(inside[0], outside[0], outside[-1], protocol, host_ip)]
    raise refuse(what, f"{len(outside)} ports of the host for {len(inside)} of the container")


def parse_host_ports(text: str) -> "list[HostPort]":
    """Parse [ADDRESS:]HOSTPORT[/PROTOCOL], published ports; HOSTPORT is a number or a range."""
    what = f"port {shown(text)}"
    host_ip, rest, protocol = _split_port(text, what, colons=1)
    numbers = parse_port_range(rest, what, "[ADDRESS:]PORT[/PROTOCOL], where PORT is one of the host")
    return [HostPort(number, protocol, host_ip) for number in numbers]


def _split_port(text: str, what: str, *, colons: int) -> "tuple[str, str, str]":
    """Return the address, what follows it, and the protocol.

    `colons`: how many a text with an IPv4 address has at least.
    """
    rest, slash, protocol = text.strip().partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in _PROTOCOLS:
        raise refuse(what, f"unknown protocol {protocol!r}", f"there are {', '.join(_PROTOCOLS)}")
    host_ip = ""
    if rest.startswith("["):
        host_ip, bracket, rest = rest[1:].partition("]:")
        if not bracket:
            raise refuse(what, "the bracket of its address has no end", "[2001:db8::1]:8080:80")
    elif rest.count(":") >= colons:
        host_ip, _, rest = rest.partition(":")
    if host_ip:
        try:
            host_ip = str(Address.parse(host_ip))
        except ValueError:
            raise refuse(what, f"{host_ip!r} is not an IP address") from None
    return host_ip, rest, protocol


_PORTS = "[[ADDRESS:][HOSTPORT]:]CONTAINERPORT[/PROTOCOL]"


def parse_port_range(text: str, what: str, hint: str = _PORTS) -> range:
    """Parse PORT or PORT-PORT.  Raises CniError about `what`."""
    first, dash, last = text.partition("-")
    numbers = [first, last] if dash else [first]
    if not all(number.isascii() and number.isdigit() and len(number) < 6 for number in numbers):
        raise refuse(what, f"{text!r} is not a port", hint)
    if not all(1 <= int(number) <= 65535 for number in numbers):
        raise refuse(what, "a port is from 1 to 65535")
    if int(numbers[0]) > int(numbers[-1]):
        raise refuse(what, f"{text} ends before it begins")
    return range(int(numbers[0]), int(numbers[-1]) + 1)


def parse_bandwidth(text: str) -> "dict[str, int]":
    """Parse in=RATE,out=RATE in bits a second into the capability bandwidth, with default bursts."""
    from cnihook.linux.tc import default_burst  # the plugin needs it, and few containers have limits

    limits: dict[str, int] = {}
    what = f"bandwidth {shown(text)}"
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        name = {"in": "ingress", "out": "egress", "in-burst": "ingress", "out-burst": "egress"}.get(key)
        if not (name and equals):
            raise refuse(what, f"{part.strip()!r}", "it takes in=RATE,out=RATE and in-burst=, out-burst=")
        limits[f"{name}{'Burst' if key.endswith('-burst') else 'Rate'}"] = parse_rate(value, what)
    for name in ("ingress", "egress"):
        if f"{name}Rate" in limits:
            limits.setdefault(f"{name}Burst", default_burst(limits[f"{name}Rate"]))
        elif f"{name}Burst" in limits:
            raise refuse(what, "a burst without a rate")
    return limits


def parse_rate(text: str, what: str) -> int:
    """Parse a number of bits a second, with a unit or without.  Raises CniError about `what`."""
    number = parse_number(text)
    if not number:
        raise refuse(what, f"{text!r} is not a rate", "such as 500k, 10M or 1G, in bits a second")
    return number


def parse_number(text: str) -> int:
    """Parse a whole number with a unit of 1000, such as 10M; return 0 if it is malformed."""
    number, unit = text, ""
    if text[-1:].isalpha():
        number, unit = text[:-1], text[-1].lower()
    if unit not in _UNITS or not (number.isascii() and number.isdigit() and len(number) < 20):
        return 0
    return int(number) * _UNITS[unit]


def number_text(number: int) -> str:
    """Return a number as parse_number() takes it."""
    for unit in ("t", "g", "m", "k"):
        if number and number % _UNITS[unit] == 0:
            return f"{number // _UNITS[unit]}{unit if unit == 'k' else unit.upper()}"
    return str(number)


def parse_route(text: str) -> "tuple[IPNet, Address | None]":
    """Parse DESTINATION/PREFIX, DESTINATION/PREFIX=GATEWAY or DESTINATION/PREFIX via GATEWAY."""
    dst, _, gateway = text.strip().replace(" via ", "=").partition("=")
    try:
        net = IPNet.parse({"default": "0.0.0.0/0"}.get(dst.strip(), dst.strip()))
        via = Address.parse(gateway.strip()) if gateway else None
    except ValueError as error:
        raise refuse(f"route {shown(text)}", str(error), "DESTINATION/PREFIX[=GATEWAY]") from None
    if via and via.version != net.address.version:
        raise refuse(f"route {shown(text)}", "destination and gateway are of two versions of IP")
    return net, via


def parse_host(text: str) -> "tuple[str, str]":
    """Parse NAME:ADDRESS or NAME=ADDRESS; `host-gateway` is the host's address on the first network."""
    separator = "=" if "=" in text else ":"
    name, _, address = text.strip().partition(separator)
    _parse_looked_up(name)  # reserved ones, too, because only the container itself reads it
    if address != "host-gateway":
        try:
            address = str(Address.parse(address.strip("[]")))
        except ValueError as error:
            raise refuse(f"host {shown(text)}", str(error), "NAME:ADDRESS, or NAME:host-gateway") from None
    return name, address


def parse_server(text: str) -> str:
    try:
        return str(Address.parse(text))
    except ValueError as error:
        raise refuse(f"DNS server {shown(text)}", str(error)) from None


def parse_search(text: str) -> str:
    """Check a domain of a search list; a dot is an empty list."""
    return text if text == "." else parse_host_name(text)


def parse_option(text: str) -> str:
    """Check one option of resolv.conf(5)."""
    if not text or text.split() != [text] or not text.isprintable():
        raise refuse(f"DNS option {shown(text)}", "it is one word, such as ndots:2")
    return text


def parse_switch(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", ""):
        raise refuse(shown(text), "it is true or false")
    return text.lower() not in ("false", "0")


def parse_label(text: str) -> "dict[str, str]":
    """Parse KEY=VALUE, a label that policies select."""
    from cnihook.policy import peers  # few containers have labels

    key, value = peers.parse_label(text)
    if value is None:
        raise refuse(f"label {shown(text)}", "it is not KEY=VALUE")
    return {key: value}


def parse_policy_name(text: str) -> str:
    from cnihook.policy import document  # few containers name a policy

    document.check_name(text)
    return text
