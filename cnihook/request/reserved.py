# SPDX-License-Identifier: Apache-2.0
"""
Names that a container may not have in the hosts files of others, because /etc/hosts is read before DNS.

    localhost, localhost.localdomain, x.localhost, ip6-loopback      the container itself
    host.docker.internal, host.containers.internal, _gateway         its host, for engines and systemd
    the node name, and other names for it in the host's /etc/hosts   the host
"""

import os

from cnihook.request import host_file
from cnihook.types.errors import INVALID_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.request.request import ContainerRequest
    from cnihook.runtime.networks import Network

MOST_ALIASES = 64  # of one container on one network
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
    """Return True if the name has a fixed meaning in all containers, on any host."""
    name = name.lower()
    return (
        name in _NAMES
        or name.startswith("ip6-")
        or name.partition(".")[0] in ("localhost", "localhost4", "localhost6")
        or (name.startswith(("host.", "gateway.")) and name.endswith(".internal"))
        or any(name == zone or name.endswith(f".{zone}") for zone in _ZONES)
    )


def names_of_host() -> "set[str]":
    """Return the names of this host, in lower case: its node name, and other names for it in its /etc/hosts.

    All names of a line with the node name count, and all of a line for 127.0.1.1, where Debian writes the
    full name of a host.  Other names for 127.0.0.1 do not count: they are names of services, and a container
    may be such a service.

    Raises CniError or OSError if the file cannot be read: a container could then use a name of the host.
    """
    node = os.uname().nodename.lower()
    names = {node, node.partition(".")[0]}
    for line in host_file.read(HOSTS).lower().splitlines():
        address, *line_names = line.partition("#")[0].split() or [""]
        if address == "127.0.1.1" or node in line_names:
            names.update(line_names)
    return names


def check(request: "ContainerRequest", networks: "list[Network]") -> None:
    """Raise CniError for a requested name that other containers on these networks must not get."""
    of_host = names_of_host()
    if request.hostname.lower() in of_host:
        raise _refuse(f"host name {request.hostname}", "it is a name of the host")
    for network in networks:
        aliases = request.aliases_on(network.name)
        if len(aliases) > MOST_ALIASES:
            raise _refuse(
                f"network {network.name}",
                f"{len(aliases)} aliases; a container may have {MOST_ALIASES} at most",
            )
        for alias in aliases:
            if alias.lower() in of_host:
                raise _refuse(f"alias {alias}", "it is a name of the host")
            if "." in alias and not network.dotted_aliases:
                raise _refuse(
                    f"alias {alias}",
                    f"network {network.name} ({network.source}) does not allow aliases with a dot,"
                    " which could hide names of DNS",
                    'to allow them, set "cnihook": {"dottedAliases": true} next to its name',
                )


def _refuse(what: str, why: str, hint: str = "") -> CniError:
    return CniError(INVALID_CONFIG, f"{what}: {why}", hint)
