# SPDX-License-Identifier: Apache-2.0
"""The content of a picture of a host's networks: uplinks, networks, containers, and their connections."""

import os

from cnihook.cli.drawing import hosts
from cnihook.cli.shared import lease_usage, limits, listing
from cnihook.cli.shared.listing import Row
from cnihook.fast.address import Address
from cnihook.protocol import invoke
from cnihook.runtime import networks
from cnihook.types.config import lookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cnihook.cluster.local import Other

NAT, ROUTED, DIRECT, NO_WAY = "NAT", "routed", "direct", "no way out"


class Uplink:
    """A link of the host that leads out of it, and the next hops there."""

    def __init__(self, dev: str, gateways: "list[str] | None" = None) -> None:
        self.dev = dev
        self.gateways = gateways or []


class Network:
    """A network.  `link`: its bridge, or the host's link of its containers.  `uplinks`: their names.

    `hosts`: the other hosts that share it.
    """

    def __init__(self, name: str, kind: str = "", link: str = "", out: str = NO_WAY) -> None:
        self.name = name
        self.kind = kind
        self.link = link
        self.out = out
        self.subnets: list[str] = []
        self.gateways: list[str] = []
        self.uplinks: list[str] = []
        self.containers = 0
        self.hosts: list[Other] = []


class Interface:
    """A container's place on a network.  `limits`: `policy`, `quota` and `emulation`, if it has one."""

    def __init__(
        self,
        network: Network,
        ifname: str,
        addresses: "list[str]",
        ports: "list[str]",
        state: str,
        limits: "list[str] | None" = None,
    ) -> None:
        self.network = network
        self.ifname = ifname
        self.addresses = addresses
        self.ports = ports
        self.state = state
        self.limits = limits or []


class Container:
    """A container.  `label`: its name, or its ID as engines show it."""

    def __init__(
        self, container_id: str, pid: int = 0, age: str = "", name: str = "", label: str = ""
    ) -> None:
        self.id = container_id
        self.name = name
        self.label = label or container_id
        self.pid = pid
        self.age = age
        self.interfaces: list[Interface] = []

    @property
    def state(self) -> str:
        """The worst state of its interfaces."""
        states = [interface.state for interface in self.interfaces]
        order = (listing.DEAD, listing.RETRY, listing.ATTACHING)
        return next((state for state in order if state in states), listing.ATTACHED)


class Picture:
    def __init__(
        self, host: str, uplinks: "list[Uplink]", shown: "list[Network]", containers: "list[Container]"
    ) -> None:
        self.host = host
        self.uplinks = uplinks
        self.networks = shown
        self.containers = containers

    @property
    def title(self) -> str:
        shown = _count(len(self.networks), "network"), _count(len(self.containers), "container")
        return f"host {self.host}: {', '.join(shown)}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def take(conf_dir: str) -> Picture:
    """Return a picture of this host, now.  Loopback, which every container has, is left out."""
    listed = listing.load()
    by_attachment = limits.by_attachment(listed)
    uplinks = _default_routes()
    by_name: dict[str, Network] = {}
    for configured in networks.load_folder(conf_dir)[0]:
        if not configured.is_loopback:
            by_name[configured.name] = _network(configured, uplinks)
    containers: dict[str, Container] = {}
    for one in listed:
        if one.is_loopback:
            continue
        network = by_name.get(one.network)
        if not network:
            network = _network(one.conf, uplinks) if one.conf else Network(one.network)
            by_name[one.network] = network
        container = containers.setdefault(
            one.container, Container(one.container, one.pid, listing.span(one.age), one.name, one.shown)
        )
        container.interfaces.append(_interface(one, network, by_attachment[one.record.identity]))
    return Picture(os.uname().nodename, uplinks, list(by_name.values()), list(containers.values()))


def _interface(one: Row, network: Network, own_limits: "list[str]") -> Interface:
    network.containers += 1
    for ip in one.result.ips:
        subnet = str(ip.net.network())
        if not network.subnets:
            network.subnets.append(subnet)
        # host-local returns a gateway even if the bridge is not one.  Then no interface has that address.
        if network.out != NO_WAY and ip.gateway and str(ip.gateway) not in network.gateways:
            network.gateways.append(str(ip.gateway))
    addresses = [str(ip.net.address) for ip in one.result.ips]
    return Interface(network, one.ifname, addresses, one.ports, one.state, own_limits)


def _network(configured: networks.Network, uplinks: "list[Uplink]") -> Network:
    plugin = configured.plugins[0]
    kind = str(plugin["type"])
    traits = invoke.traits(kind)
    network = Network(configured.name, kind)
    network.hosts = hosts.of_network(configured)
    network.subnets = list(dict.fromkeys(one.subnet for one in lease_usage.of_network(configured)))
    network.link = traits.host_link(plugin)
    if traits.on_parent:
        if not network.link and uplinks:
            network.link = uplinks[0].dev  # the default of those plugins
        network.out = DIRECT
        network.uplinks = [network.link] if network.link else []
        if network.link and all(uplink.dev != network.link for uplink in uplinks):
            uplinks.append(Uplink(network.link))
        return network
    if lookup(plugin, "ipMasq") is True:
        network.out = NAT
    elif traits.is_gateway(plugin):
        network.out = ROUTED
    network.uplinks = [uplink.dev for uplink in uplinks if uplink.gateways] if network.out != NO_WAY else []
    return network


def _default_routes() -> "list[Uplink]":
    """Return the links with a default route.  Reading /proc/net needs no privilege and no package."""
    uplinks: dict[str, Uplink] = {}

    def add(dev: str, gateway: bytes) -> None:
        uplink = uplinks.setdefault(dev, Uplink(dev))
        text = str(Address(gateway)) if any(gateway) else "on link"
        if text not in uplink.gateways:
            uplink.gateways.append(text)

    for fields in _lines("/proc/net/route")[1:]:
        if fields[1] == fields[7] == "00000000" and int(fields[3], 16) & 1:  # RTF_UP
            add(fields[0], int(fields[2], 16).to_bytes(4, "little"))
    for fields in _lines("/proc/net/ipv6_route"):
        if fields[1] == "00" and not fields[0].strip("0") and fields[9] != "lo":
            add(fields[9], bytes.fromhex(fields[4]))
    return list(uplinks.values())


def _lines(path: str) -> "list[list[str]]":
    try:
        with open(path) as file:
            return [line.split() for line in file]
    except OSError:
        return []  # a kernel without IPv6


def details(picture: Picture) -> "dict[str, Any]":
    """Return the whole picture, for JSON."""
    return {
        "host": picture.host,
        "uplinks": [{"dev": one.dev, "gateways": one.gateways} for one in picture.uplinks],
        "networks": [
            {
                "name": one.name,
                "kind": one.kind,
                "link": one.link,
                "subnets": one.subnets,
                "gateways": one.gateways,
                "out": one.out,
                "uplinks": one.uplinks,
                "containers": one.containers,
                "hosts": hosts.details(one.hosts),
            }
            for one in picture.networks
        ],
        "containers": [
            {
                "container": one.id,
                "name": one.name or None,
                "pid": one.pid or None,
                "age": one.age,
                "state": one.state,
                "interfaces": [
                    {
                        "network": each.network.name,
                        "ifname": each.ifname,
                        "addresses": each.addresses,
                        "ports": each.ports,
                        "state": each.state,
                        "limits": each.limits,
                    }
                    for each in one.interfaces
                ],
            }
            for one in picture.containers
        ],
    }
