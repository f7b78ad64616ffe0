# SPDX-License-Identifier: Apache-2.0
"""
Names that no container may have for others, since /etc/hosts is read before DNS.

    localhost, localhost.localdomain, x.localhost, ip6-loopback      the container itself
    host.docker.internal, host.containers.internal, _gateway         its host, by engines and by systemd
    the node name, and the names that the host's /etc/hosts gives it  the host
"""

import os

HOSTS = "/etc/hosts"
_ZONES = (
    "localhost",
    "localdomain",
    "localdomain4",
    "localdomain6",
    "docker.internal",
    "containers.internal",
)
_NAMES = ("gateway", "_gateway", "_outbound", "_localdnsstub", "_localdnsproxy", "broadcasthost")


def is_reserved(name: str) -> bool:
    """True if the name has one meaning in all containers, on any host."""
    name = name.lower()
    return (
        name in _NAMES
        or name.startswith("ip6-")
        or name.partition(".")[0] in ("localhost", "localhost4", "localhost6")
        or (name.startswith(("host.", "gateway.")) and name.endswith(".internal"))
        or any(name == zone or name.endswith(f".{zone}") for zone in _ZONES)
    )


def names_of_host() -> "set[str]":
    """The names of this host, in lower case: its node name, and what its /etc/hosts says of that.

    Lines for a loopback address count whole: Debian has the full name of a host without a fixed address at
    127.0.1.1.
    """
    node = os.uname().nodename.lower()
    names = {node, node.partition(".")[0]}
    try:
        with open(HOSTS, "rb") as file:
            lines = file.read().decode(errors="surrogateescape").lower().splitlines()
    except OSError:
        lines = []
    for line in lines:
        address, *line_names = line.partition("#")[0].split() or [""]
        if address.startswith("127.") or address == "::1" or node in line_names:
            names.update(line_names)
    return names
