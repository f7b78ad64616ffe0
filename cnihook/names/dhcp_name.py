# SPDX-License-Identifier: Apache-2.0
"""The container's host name, sent to the DHCP servers of its networks (option 12, RFC 2132)."""

from cnihook.protocol import invoke
from cnihook.request import reserved, values
from cnihook.request.resolve import ResolvedNetwork
from cnihook.request.routes import rewritten
from cnihook.runtime.networks import ipam_type
from cnihook.types.config import lookup
from cnihook.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OPTION = ("host-name", "12")


def send(chosen: "list[ResolvedNetwork]", name: str) -> None:
    """Have the networks with DHCP send a name, unless their configuration sets one already.

    The name is added to `provide` in the configuration, a key that the reference's plugin also has.  The
    record keeps it.  A name that other containers must not learn is not sent: a server could publish it in
    DNS.
    """
    try:
        name = values.parse_host_name(name)
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
        if any("hostname" in invoke.traits(ipam_type(one)).takes for one in served.network.plugins):
            served.network = rewritten(served.network, change, "hostname", "a host name")
