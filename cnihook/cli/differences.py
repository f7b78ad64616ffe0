# SPDX-License-Identifier: Apache-2.0
"""Where the record of an attachment and the kernel differ, in words."""

from cnihook.cli import attached
from cnihook.cli.attached import Attached
from cnihook.lean.address import Address, IPNet
from cnihook.sdk import invoke
from cnihook.spec.config import NetConf
from cnihook.spec.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

_RT_TABLE_MAIN = 254


def differences(one: Attached, kernel: "Json", unseen: bool) -> "list[str]":
    """`kernel` is what inspect found; `unseen`: the namespace, or another part, could not be looked at."""
    found = []
    if one.state == attached.DEAD:
        found.append("its container is gone; `cnihook gc` releases it")
    if one.state == attached.RETRY:
        found.append(f"its attaching was cut short; `cnihook detach {one.container}` takes it back")
    if one.state != attached.ATTACHED:
        return found
    if "link" in kernel:
        found += _inside(one, kernel)
    found += _on_host(one, kernel["host"])
    if kernel["nft"] is not None and not unseen:
        found += _nft(one, kernel["nft"])
    for setting in kernel.get("sysctls") or ():
        if setting["now"] != setting["set"]:
            found.append(f"sysctl {setting['name']} is {setting['now']}, and was set to {setting['set']}")
    return found


def _inside(one: Attached, kernel: "Json") -> "list[str]":
    link = kernel["link"]
    if not link:
        return [f"{one.ifname} is not in the container"]
    found = [] if link["up"] else [f"{one.ifname} is down"]
    for interface in one.result.interfaces:
        if interface.sandbox and interface.name == one.ifname and interface.mac:
            if interface.mac.lower() != link["mac"]:
                found.append(f"{one.ifname} has the MAC address {link['mac']}, on record is {interface.mac}")
    recorded = {str(ip.net) for ip in one.result.ips}
    present = {_canonical(each["address"]) for each in kernel["addresses"] if each["scope"] != "link"}
    if one.conf and one.conf.is_loopback:
        return found
    found += [f"{address} is not on {one.ifname}" for address in sorted(recorded - present)]
    found += [f"{address} on {one.ifname} is not on record" for address in sorted(present - recorded)]
    return found + _routes(one, kernel["routes"])


def _routes(one: Attached, present: "list[Json]") -> "list[str]":
    """Routes on record that are not there.  Others than those on record are nothing unusual."""
    there = {
        (_canonical(each["dst"]), each["gw"] and _address(each["gw"]), each["table"]) for each in present
    }
    found = []
    for route in one.result.routes:
        gateways = {str(ip.gateway) for ip in one.result.ips if ip.gateway}
        wanted = {str(route.gw)} if route.gw else gateways | {None}
        table = _RT_TABLE_MAIN if route.table is None else route.table
        dst = str(route.dst.network())
        if not any((dst, gateway, table) in there for gateway in wanted):
            via = f" via {route.gw}" if route.gw else ""
            found.append(f"the route {dst}{via} is not there")
    return found


def _on_host(one: Attached, host: "Json") -> "list[str]":
    found = []
    for interface in one.result.interfaces:
        link = host.get(interface.name, {}).get("link")
        if interface.sandbox:
            continue
        if not link:
            found.append(f"{interface.name} is not on the host")
        elif not link["up"]:
            found.append(f"{interface.name} on the host is down")
    return found


def _nft(one: Attached, elements: "list[Json]") -> "list[str]":
    """Of our own plugins, which keep these; others' rules are elsewhere."""
    found = []
    for plugin in one.conf.plugins if one.conf else []:
        conf = NetConf(plugin)
        try:
            if invoke.find(conf.string("type"), one.record.plugin_path) is not None:
                continue
            if conf.boolean("ipMasq"):
                masqueraded = {each["key"] for each in elements if each["in"] in ("masq4", "masq6")}
                found += [
                    f"{ip.net.address} is not masqueraded"
                    for ip in one.result.ips
                    if str(ip.net.address) not in masqueraded
                ]
            if conf.string("type") == "portmap":
                keys = {word for each in elements for word in each["key"].split(" . ")}
                ports = (port.partition("->")[0].rpartition(":")[2] for port in one.ports)
                found += [f"port {port} is not published" for port in ports if port not in keys]
        except CniError:
            continue  # it was found fit once; `cnihook check` has more to say of it
    return found


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
