# SPDX-License-Identifier: Apache-2.0
"""
What a container may look up: a file per container, which the resolver reads when service.serve() says so.

    /run/cnihook/resolver/containers/ID
    {"addresses": ["10.22.0.2", "fd00::2"],     of the container, by which it is recognised
     "gateways": ["10.22.0.1", "fd00::1"],      at which it asks, on port 53
     "names": [{"patterns": ["pypi.org", "*.pythonhosted.org"], "set": "n-1a2b3c4d"}],
     "limits": [["*.org"]],                     each list must allow a name, too
     "servers": ["192.0.2.53"],                 which are asked; an empty list: those of the host
     "audit": false}                            true: every name is answered, and those not listed are noted

What a pattern resolves to is added to the sets n-1a2b3c4d4 and n-1a2b3c4d6 of `table inet cnihook`.  They
must exist before the container asks: set n-1a2b3c4d4 { type ipv4_addr; flags timeout; }.  Two containers
may have the same sets.
"""

import os

from cnihook.fast import fastjson, statefile
from cnihook.fast.address import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FOLDER = "/run/cnihook/resolver/containers"
# The port at the gateway.  It is below 1024, so no user of the host can listen there while the resolver does
# not run, and below 600, where NFS and bindresvport(3) begin; no service has it.
PORT = 585

_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_LONGEST_NAME, _LONGEST_LABEL = 253, 63  # characters (RFC 1035)
_LONGEST = 4 << 20  # bytes of a file


def parse_name(text: str) -> str:
    """Return a name in lower case and without the dot at its end.  Raises ValueError.

    Only ASCII letters, digits, hyphens and underscores are valid: a name with another character is given in
    its encoded form (xn--).
    """
    name = text.removesuffix(".").lower()
    labels = name.split(".")
    if len(name) > _LONGEST_NAME or not all(0 < len(label) <= _LONGEST_LABEL for label in labels):
        raise ValueError(f"{text!r} is not a DNS name")
    if not _ALLOWED.issuperset("".join(labels)):
        raise ValueError(f"{text!r} is not a DNS name: use letters, digits, - and _; xn-- for other letters")
    return name


def parse_pattern(text: str) -> str:
    """Return a name, or `*.` and a name, in lower case.  Raises ValueError.  A lone `*` is not a pattern."""
    star = "*." if text.startswith("*.") else ""
    return star + parse_name(text[len(star) :])


def matches(pattern: str, name: str) -> bool:
    """Return True if a pattern allows a name.  `*.x` allows names with labels before x, and not x."""
    return name.endswith(pattern[1:]) and len(name) >= len(pattern) if pattern[0] == "*" else name == pattern


class Names:
    """Patterns, and the sets of the addresses that they resolve to: `base`4 and `base`6."""

    __slots__ = ("base", "patterns")

    def __init__(self, patterns: "list[str]", base: str) -> None:
        self.patterns = patterns
        self.base = base


class Listing:
    """The names that one container may look up, and the place where it asks."""

    __slots__ = ("addresses", "audit", "container_id", "gateways", "limits", "names", "servers")

    def __init__(
        self,
        container_id: str,
        addresses: "list[Address]",
        gateways: "list[Address]",
        names: "list[Names]",
        servers: "list[str] | None" = None,
        *,
        limits: "list[list[str]] | None" = None,
        audit: bool = False,
    ) -> None:
        self.container_id = container_id
        self.addresses = addresses
        self.gateways = gateways
        self.names = names
        self.limits = limits or []
        self.servers = servers or []
        self.audit = audit

    def matching(self, name: str) -> "list[tuple[str, str]]":
        """Return (base of the sets, pattern) for each pattern that allows a name; none: it is not listed."""
        if not all(any(matches(pattern, name) for pattern in limit) for limit in self.limits):
            return []
        return [
            (names.base, pattern)
            for names in self.names
            for pattern in names.patterns
            if matches(pattern, name)
        ]

    def to_json(self) -> "dict[str, Any]":
        return {
            "addresses": list(map(str, self.addresses)),
            "gateways": list(map(str, self.gateways)),
            "names": [{"patterns": names.patterns, "set": names.base} for names in self.names],
            "limits": self.limits,
            "servers": self.servers,
            "audit": self.audit,
        }

    def write(self) -> None:
        os.makedirs(FOLDER, mode=0o700, exist_ok=True)
        # no ID of a container begins with a dot
        statefile.replace(_path(self.container_id), fastjson.dumps(self.to_json()).encode())

    @classmethod
    def read(cls, container_id: str) -> "Listing | None":
        """Return the listing of a container, or None.  Raises ValueError if the file is malformed."""
        try:
            data = statefile.content(_path(container_id), longest=_LONGEST)
            return None if data is None else cls._parse(container_id, fastjson.loads(data.decode()))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{_path(container_id)}: {error}") from None

    @classmethod
    def _parse(cls, container_id: str, content: "dict[str, Any]") -> "Listing":
        return cls(
            container_id,
            [Address.parse(text) for text in content["addresses"]],
            [Address.parse(text) for text in content["gateways"]],
            [Names(list(map(parse_pattern, one["patterns"])), str(one["set"])) for one in content["names"]],
            list(map(str, content["servers"])),
            limits=[list(map(parse_pattern, limit)) for limit in content["limits"]],
            audit=content["audit"] is True,
        )


def forget(container_id: str) -> bool:
    """Remove the listing of a container.  Returns False if it has none."""
    try:
        os.unlink(_path(container_id))
    except FileNotFoundError:
        return False
    return True


def containers() -> "list[str]":
    """Return the IDs of the containers that have a listing."""
    try:
        return sorted(name for name in os.listdir(FOLDER) if not name.startswith("."))
    except FileNotFoundError:
        return []


def _path(container_id: str) -> str:
    return f"{FOLDER}/{container_id[:255]}"
