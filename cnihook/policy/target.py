# SPDX-License-Identifier: Apache-2.0
"""The ends of a connection as users write them: `web-1`, `10.1.0.7:5432/tcp`, `[fd00::1]:443`, `host:22`."""

from cnihook.fast.address import Address
from cnihook.fast.errors_text import listed
from cnihook.policy import peers
from cnihook.policy.matcher import Connection
from cnihook.resolver import listing
from cnihook.types.errors import INVALID_CONFIG, UNKNOWN_CONTAINER, CniError
from cnihook.types.names import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.policy.endpoint import Endpoint, World

_LISTED = 10


def split(text: str) -> "tuple[str, str, int]":
    """Return the host, the protocol and the port in HOST[:PORT[/PROTOCOL]] or HOST:icmp."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") > 1:
        host, port = text, ""
    else:
        host, _, port = text.partition(":")
    if not host:
        raise CniError(INVALID_CONFIG, f"{shown(text)} is not HOST[:PORT[/PROTOCOL]]")
    if port in ("", "icmp"):
        return host, "icmp", 0
    (one, *_) = peers.parse_ports(port, "connection")
    return host, one.protocol, one.low


def endpoints(text: str, world: "World") -> "list[Endpoint]":
    """Return the attachments of the container with this ID or name, or with the beginning of an ID."""
    matches = [one for one in world.endpoints if text in one.names]
    if matches:
        return matches
    matches = [one for one in world.endpoints if one.container_id.startswith(text)]
    if len({one.container_id for one in matches}) == 1:
        return matches
    names = sorted({one.container_id for one in world.endpoints})
    hint = f"containers: {listed(names, _LISTED)}" if names else "no container is on record"
    raise CniError(UNKNOWN_CONTAINER, f"no container {shown(text)}", hint)


def addresses(text: str, world: "World") -> "list[Address]":
    """Return the addresses of a container, of the host, or that the text is."""
    try:
        return [Address.parse(text)]
    except ValueError:
        pass
    if text == "host":
        return [one for one in sorted(world.host) if not (one.is_loopback or one.is_link_local)]
    return [address for one in endpoints(text, world) for address in one.addresses]


def connections(source: str, to: str, world: "World") -> "list[Connection]":
    """Return the connections from one end to another, one for each pair of addresses of one IP version.

    The other end may be a DNS name, whose addresses are not looked up.  Two attachments of one container
    have addresses that do not reach each other's networks; a pair on one network comes first, and then the
    others are left out.
    """
    host, protocol, port = split(to)
    if name := _dns_name(host, world):
        return [
            Connection(one, Address(bytes(len(one))), protocol, port, name)
            for one in addresses(source, world)
        ]
    pairs = [
        (one, another)
        for one in addresses(source, world)
        for another in addresses(host, world)
        if one.version == another.version
    ]
    if not pairs:
        raise CniError(INVALID_CONFIG, f"{source} and {host} have no address of the same IP version")
    networks = {address: one.network for address, one in world.by_address.items()}
    near = [
        pair for pair in pairs if networks.get(pair[0]) and networks.get(pair[0]) == networks.get(pair[1])
    ]
    return [Connection(one, another, protocol, port) for one, another in near or pairs]


def _dns_name(text: str, world: "World") -> str:
    """Return a DNS name in its uniform form; empty for an address, the host, and the name of a container."""
    if (
        "." not in text
        or text.replace(".", "").isdigit()
        or any(text in one.names for one in world.endpoints)
    ):
        return ""
    try:
        return listing.parse_name(text)
    except ValueError:
        return ""
