# SPDX-License-Identifier: Apache-2.0
"""Check for packets of containers that are too big for the link by which they leave the host."""

from collections.abc import Iterator

from cnihook.doctor.finding import Finding, Host, Plugin, has_version, plugins_of
from cnihook.fast.address import Address
from cnihook.linux.route_lookup import link_towards
from cnihook.linux.rtnl import Link, Rtnl
from cnihook.runtime import networks
from cnihook.types.errors import CniError

_DEFAULT = 1500  # of a veth pair
# Addresses of remote hosts; only their routes are looked up.  There is one in each half of the address
# space, because a VPN such as OpenVPN adds a route for each half and leaves the default route as it is.
_FAR = {4: ("45.0.0.1", "193.0.0.1"), 6: ("2a00::1", "a000::1")}


def check(host: Host) -> Iterator[Finding]:
    """Find an uplink, a VPN, or a port of a network's bridge with a lower MTU than the containers."""
    used = {one.network.name for one in host.attached}
    for network in host.networks:
        if network.source == networks.BUILT_IN_SOURCE and network.name not in used:
            continue  # not in use, and there is no file to edit
        plugins = plugins_of(network)
        if "veth" not in plugins[0].traits.makes:
            continue  # the others have at most the MTU of their parent link
        mtu = _mtu(plugins)
        narrow = [link for link in _ways_out(host, plugins[0]) if link.mtu < mtu]
        narrow += [
            link
            for version in _FAR
            if plugins[0].routes and has_version(network, version)
            for link in uplinks(host.rtnl, version)
            if link.mtu < mtu
        ]
        for link in {link.index: link for link in narrow}.values():
            where = f"the plugin {plugins[0].type} in {network.source}"
            yield Finding(
                "mtu-too-big",
                f"containers of network {network.name} have MTU {mtu}, and {link.name}, by which they leave,"
                f" has {link.mtu}",
                "packets are lost if the message that they are too big does not arrive: connections open,"
                " and then hang",
                f'set "mtu": {link.mtu} for {where}, then attach its containers again',
            )


def _mtu(plugins: list[Plugin]) -> int:
    """Return the MTU of a container's interface: the last one that is set in the chain."""
    mtu = _DEFAULT
    for plugin in plugins:
        if plugin is plugins[0] or plugin.traits.kind == "chained":
            try:
                mtu = plugin.conf.integer("mtu", default=0, low=0, high=1 << 31) or mtu
            except CniError:
                pass  # `cnihook validate` reports it
    return mtu


def uplinks(rtnl: Rtnl, version: int) -> Iterator[Link]:
    """Yield the links by which packets to remote hosts leave."""
    for far in _FAR[version]:
        link = link_towards(rtnl, Address.parse(far))
        if link and link.name != "lo":
            yield link


def _ways_out(host: Host, plugin: Plugin) -> Iterator[Link]:
    """Yield the ports of the network's bridge that lead to other machines: not veths, but also a vxlan."""
    bridge = host.rtnl.find_link(plugin.bridge) if plugin.bridge else None
    for link in host.rtnl.links() if bridge else ():
        if bridge and link.master == bridge.index and link.kind != "veth":
            yield link
