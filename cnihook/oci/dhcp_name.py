# SPDX-License-Identifier: Apache-2.0
"""The container's host name for the DHCP servers of its networks (option 12, RFC 2132)."""

from cnihook.oci import reserved, words
from cnihook.runtime.route_requests import rewritten
from cnihook.runtime.wants import Served, ipam_type
from cnihook.spec.config import lookup
from cnihook.spec.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TYPES = ("dhcp",)
_OPTION = ("host-name", "12")


def send(chosen: "list[Served]", name: str) -> None:
    """Have the networks with DHCP send a name, unless their configuration says what to send.

    It goes into `provide` of the configuration, which the reference's plugin has too, and with it on record.
    A name that no neighbour may learn is not sent, because a server answers for it in DNS.
    """
    try:
        name = words.parse_host_name(name)
    except CniError:
        return
    if reserved.is_reserved(name) or name.lower() in reserved.names_of_host():
        return

    def change(_plugin: "dict[str, Any]", ipam: "dict[str, Any]") -> "dict[str, Any]":
        provided = lookup(ipam, "provide") or []
        if not isinstance(provided, list) or not all(isinstance(item, dict) for item in provided):
            return ipam  # the plugin reports it
        if any(lookup(item, "option") in _OPTION for item in provided):
            return ipam
        kept = {key: value for key, value in ipam.items() if key.lower() != "provide"}
        return {**kept, "provide": [*provided, {"option": _OPTION[0], "value": name}]}

    for served in chosen:
        if any(ipam_type(plugin) in _TYPES for plugin in served.network.plugins):
            served.network = rewritten(served.network, change, _TYPES, "a host name")
