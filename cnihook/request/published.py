# SPDX-License-Identifier: Apache-2.0
"""Published ports, as the capability portMappings of an attachment has them."""

from cnihook.request.request import HostPort, PortRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


_KEYS = {key.lower(): key for key in ("hostPort", "containerPort", "protocol", "hostIP")}


def mappings(capability_args: "Mapping[str, Any]") -> "list[dict[str, Any]]":
    """Return the published ports of an attachment, as portmap takes them.

    The case of a key has no meaning: in the records of containerd, it is "HostPort".
    """
    ports = capability_args.get("portMappings")
    return [
        {_KEYS.get(key.lower(), key): one[key] for key in map(str, one)}
        for one in (ports if isinstance(ports, list) else ())
        if isinstance(one, dict)
    ]


def protocol_of(mapping: "dict[str, Any]") -> str:
    return str(mapping.get("protocol") or "tcp").lower()


def is_at(mapping: "dict[str, Any]", port: HostPort) -> bool:
    """Return True if a mapping publishes this port of the host."""
    if (mapping.get("hostPort"), protocol_of(mapping)) != (port.number, port.protocol):
        return False
    return port.host_ip in ("", mapping.get("hostIP") or "")


def serves(mapping: "dict[str, Any]", request: PortRequest) -> bool:
    """Return True if a mapping is what a request asks for, or one of the ports that it leaves open."""
    number = mapping.get("hostPort")
    if (mapping.get("containerPort"), protocol_of(mapping)) != (request.container, request.protocol):
        return False
    if (mapping.get("hostIP") or "") != request.host_ip or not isinstance(number, int):
        return False
    return not request.last or request.first <= number <= request.last


def host_end(mapping: "dict[str, Any]") -> str:
    """Return where a port is published: 8080, 127.0.0.1:8080, [2001:db8::1]:8080."""
    host = str(mapping.get("hostIP") or "")
    if host:
        host = f"[{host}]:" if ":" in host else f"{host}:"
    return f"{host}{mapping.get('hostPort')}"
