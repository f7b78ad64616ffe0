# SPDX-License-Identifier: Apache-2.0
"""Differences between an attachment's record and the kernel, as text."""

from cnihook.cli.shared import listing
from cnihook.cli.shared.listing import Row
from cnihook.fast.address import Address, IPNet
from cnihook.protocol import invoke
from cnihook.types.config import NetConf
from cnihook.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

_RT_TABLE_MAIN = 254


def differences(one: Row, kernel: "Json", unseen: bool) -> "list[str]":
    """Return how an attachment differs from its record.

    `kernel`: what inspect read.  `unseen`: the namespace, or another part, could not be read.
    """
    texts = []
    if one.state == listing.DEAD:
        texts.append("its container is gone; `cnihook gc` releases it")
    if one.state == listing.RETRY:
        texts.append(f"its attach was interrupted; `cnihook detach {one.container}` undoes it")
    if one.state != listing.ATTACHED:
        return texts
    if "link" in kernel:
        texts += _inside(one, kernel)
    texts += _on_host(one, kernel["host"])
    if kernel["nft"] is not None and not unseen:
        texts += _nft(one, kernel["nft"])
    for setting in kernel.get("sysctls") or ():
        if setting["now"] != setting["set"]:
            texts.append(f"sysctl {setting['name']} is {setting['now']}, and was set to {setting['set']}")
    return texts


def _inside(one: Row, kernel: "Json") -> "list[str]":
    link = kernel["link"]
    if not link:
        return [f"{one.ifname} is not in the container"]
    texts = [] if link["up"] else [f"{one.ifname} is down"]
    for interface in one.result.interfaces:
        if interface.sandbox and interface.name == one.ifname and interface.mac:
            if interface.mac.lower() != link["mac"]:
                texts.append(f"{one.ifname} has the MAC address {link['mac']}, on record is {interface.mac}")
    recorded = {str(ip.net) for ip in one.result.ips}
    present = {_canonical(each["address"]) for each in kernel["addresses"] if each["scope"] != "link"}
    if one.is_loopback:
        return texts
    texts += [f"{address} is not on {one.ifname}" for address in sorted(recorded - present)]
    texts += [f"{address} on {one.ifname} is not on record" for address in sorted(present - recorded)]
    return texts + _routes(one, kernel["routes"])


def _routes(one: Row, present: "list[Json]") -> "list[str]":
    """Return the routes on record that do not exist.  Routes that are not on record are normal."""
    present_routes = {
        (_canonical(each["dst"]), each["gw"] and _address(each["gw"]), each["table"]) for each in present
    }
    texts = []
    for route in one.result.routes:
        gateways = {str(ip.gateway) for ip in one.result.ips if ip.gateway}
        next_hops = {str(route.gw)} if route.gw else gateways | {None}
        table = _RT_TABLE_MAIN if route.table is None else route.table
        dst = str(route.dst.network())
        if not any((dst, gateway, table) in present_routes for gateway in next_hops):
            via = f" via {route.gw}" if route.gw else ""
            texts.append(f"the route {dst}{via} does not exist")
    return texts


def _on_host(one: Row, host: "Json") -> "list[str]":
    texts = []
    for interface in one.result.interfaces:
        link = host.get(interface.name, {}).get("link")
        if interface.sandbox:
            continue
        if not link:
            texts.append(f"{interface.name} is not on the host")
        elif not link["up"]:
            texts.append(f"{interface.name} on the host is down")
    return texts


def _nft(one: Row, elements: "list[Json]") -> "list[str]":
    """Return what the built-in plugins lack in nftables.  Other plugins keep their rules elsewhere."""
    texts = []
    for plugin in one.conf.plugins if one.conf else []:
        conf = NetConf(plugin)
        try:
            if invoke.find(conf.string("type"), one.record.plugin_dirs) is not None:
                continue
            if conf.boolean("ipMasq"):
                masqueraded = {each["key"] for each in elements if each["in"] in ("masq4", "masq6")}
                texts += [
                    f"{ip.net.address} is not masqueraded"
                    for ip in one.result.ips
                    if str(ip.net.address) not in masqueraded
                ]
            capabilities = invoke.traits(conf.string("type")).capabilities
            if any(field.name == "portMappings" for field in capabilities):
                keys = {word for each in elements for word in each["key"].split(" . ")}
                ports = (port.partition("->")[0].rpartition(":")[2] for port in one.ports)
                texts += [f"port {port} is not published" for port in ports if port not in keys]
        except CniError:
            continue  # it was valid at ADD; `cnihook check` reports what is wrong with it
    return texts


def _canonical(net: str) -> str:
    try:
        return str(IPNet.parse(net))
    except ValueError:
        return net


def _address(text: str) -> str:
    try:
        return str(Address.parse(text))
    except ValueError:
        return text
