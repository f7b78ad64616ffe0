# SPDX-License-Identifier: Apache-2.0
"""The report that a command of `priv-net-run` cannot reach its name servers."""

from cnihook.fast.address import Address
from cnihook.linux import route_lookup
from cnihook.linux.netns import NetNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def report(servers: "list[str]", namespace: NetNS, complain: "Callable[[str], None]") -> None:
    """Report it, unless the kernel has a route: an executable plugin need not list its routes."""
    addresses = [Address.parse(server.partition("%")[0]) for server in servers]
    if any(not each.is_loopback and route_lookup.link_towards(namespace.rtnl, each) for each in addresses):
        return
    complain(
        f"the command cannot resolve names: its networks do not lead to {', '.join(servers)} of"
        " /etc/resolv.conf; --dns ADDRESS sets another server"
    )
