# SPDX-License-Identifier: Apache-2.0
"""Checks of settings and rules of the host that stop or misdirect the traffic of containers."""

from collections.abc import Iterator
from functools import partial

from cnihook.doctor.finding import Finding, Host, Plugin, has_version, plugins_of, printed
from cnihook.fast.natural import natural
from cnihook.links import router, veth
from cnihook.linux import nft, sysctl, xtables
from cnihook.linux.route_lookup import link_towards
from cnihook.nftables import port_chains
from cnihook.nftables.loopback import route_localnet
from cnihook.nftables.table import FAMILY, NAME
from cnihook.runtime import networks

_FIREWALL = '{"type": "firewall"}'
_BRIDGED = {4: "net/bridge/bridge-nf-call-iptables", 6: "net/bridge/bridge-nf-call-ip6tables"}


def check_forwarding(host: Host) -> Iterator[Finding]:
    """Find forwarding that is off.  ADD enables it, so another program has disabled it since then."""
    for version, name in router.FORWARDING.items():
        on = [
            one.network.name
            for one in host.attached
            if any(plugin.routes for plugin in plugins_of(one.network))
            and any(ip.net.address.version == version and ip.gateway for ip in one.result.ips)
        ]
        if on and _read(name) == "0":
            dotted = sysctl.dotted(name)
            others = router.obeying(host.rtnl) if version == 6 else []
            before = "".join(f"{sysctl.dotted(router.accept_ra(link))}=2 " for link in others)
            yield Finding(
                "forwarding-off",
                f"{dotted} is 0",
                f"the host forwards nothing from or to containers of {', '.join(sorted(set(on)))}",
                f"sysctl -w {before}{dotted}=1",
                fix=partial(router.enable, host.rtnl, version),
            )


def check_loopback(host: Host) -> Iterator[Finding]:
    """Find route_localnet on a link to containers; an old version or the reference's portmap has set it."""
    # The guard drops packets from a link to 127.0.0.1, as long as the table exists.
    is_guarded = nft.chains(FAMILY, NAME).get(port_chains.GUARD) == port_chains.USES[port_chains.GUARD]
    bridges = {one.bridge for network in host.networks for one in plugins_of(network)}
    for link in host.rtnl.links():
        name = route_localnet(link.name)
        if (link.name in bridges or veth.is_own(link)) and _read(name) == "1":
            yield Finding(
                "loopback-open",
                f"{sysctl.dotted(name)} is 1, and {'a' if is_guarded else 'no'} rule of cnihook guards it",
                f"containers on {link.name} reach services on 127.0.0.1 of this host"
                + (" as soon as the rule is flushed" if is_guarded else ""),
                f"sysctl -w {sysctl.dotted(name)}=0",
                fix=None if is_guarded else partial(sysctl.write, name, 0),
                note=is_guarded,
            )


def check_policies(host: Host) -> Iterator[Finding]:
    """Find networks that no rule accepts in iptables' FORWARD with policy DROP, which Docker sets."""
    for version in (4, 6):
        dropping = [table.name for table in xtables.filters(version) if table.policy("FORWARD") == "drop"]
        if not dropping:
            continue
        listed = printed("iptables" if version == 4 else "ip6tables", "-w", "-S").splitlines()
        for network in host.networks:
            plugins = plugins_of(network)
            interface = plugins[0]
            if any(plugin.traits.opens_firewall for plugin in plugins) or not has_version(network, version):
                continue
            if interface.bridge and _is_accepted(listed, interface.bridge):
                continue
            if interface.routes:
                remedy = (
                    f"add {_FIREWALL} to the plugins in {network.source}, then attach its containers again"
                )
                yield Finding(
                    "forward-drop",
                    f"{dropping[0]} has policy DROP for FORWARD, and no rule for network {network.name}",
                    "its containers reach the host, but no other machine",
                    remedy,
                    subject=dropping[0],
                    for_all=remedy,
                )
            if interface.bridge and _read(_BRIDGED[version]) == "1":
                name = _BRIDGED[version].replace("/", ".")
                yield Finding(
                    "bridged-drop",
                    f"{name} is 1, and {dropping[0]} has policy DROP for FORWARD",
                    f"containers on {interface.bridge} (network {network.name}) do not reach each other",
                    f"sysctl -w {name}=0",
                )


def _is_accepted(rules: list[str], bridge: str) -> bool:
    """Return True if there are rules that accept this bridge in both directions."""
    accepting = [rule.split() for rule in rules if rule.endswith("-j ACCEPT")]
    return all(
        any(rule[i : i + 2] == [way, bridge] for rule in accepting for i in range(len(rule)))
        for way in ("-i", "-o")
    )


def check_ways(host: Host) -> Iterator[Finding]:
    """Find routes that lead traffic for a container elsewhere, so that its own packets may be dropped."""
    for one in host.attached:
        plugin = plugins_of(one.network)[0]
        if not plugin.routes:
            continue
        for ip in one.result.ips:
            link = link_towards(host.rtnl, ip.net.address)
            if link and plugin.is_own(link.name, link.kind):
                continue
            where = link.name if link else "nowhere"
            address = ip.net.address
            why = f"another route precedes that of network {one.network.name}"
            entry = plugin.bridge
            if link and entry and _strict(entry):
                why += f"; and rp_filter is strict on {entry}, so the kernel drops what the container sends"
            yield Finding(
                "route-astray",
                f"{address} of container {one.record.container_id} is reached by {where},"
                f" not by {entry or 'its own link'}",
                why,
                f"ip route get {address}" if link else f"cnihook repair {one.record.container_id}",
                subject=f"{address} of container {one.record.container_id}",
                for_all=f"ip route get {address}" if link else "cnihook repair --all",
            )


def check_hairpins(host: Host) -> Iterator[Finding]:
    """Find containers with published ports on a bridge without hairpinMode whose frames go to iptables.

    The bridge then translates the published port itself, and does not send a frame out of the bridge port
    that it came from.
    """
    for network in host.networks:
        plugin = plugins_of(network)[0]
        if not plugin.bridge or plugin.is_set("hairpinMode"):
            continue
        mappings = {
            one.record.container_id: {ip.net.address.version for ip in one.result.ips}
            for one in host.attached
            if one.network.name == network.name and one.record.capability_args.get("portMappings")
        }
        for version, setting in _BRIDGED.items():
            containers = [each for each, versions in mappings.items() if version in versions]
            publishing = sorted(containers, key=natural)
            if not publishing or _read(setting) != "1":
                continue
            dotted = setting.replace("/", ".")
            # promiscMode excludes hairpinMode, and a network without a file cannot be changed.
            by_setting = plugin.is_set("promiscMode") or network.source == networks.BUILT_IN_SOURCE
            by_file = (
                f'set "hairpinMode": true for the plugin bridge in {network.source},'
                " then attach its containers again"
            )
            yield Finding(
                "hairpin-off",
                f"{dotted} is 1, and network {network.name} has no hairpinMode",
                f"a container gets no answer from its own published ports: {', '.join(publishing)}",
                f"sysctl -w {dotted}=0" if by_setting else by_file,
                subject=dotted,
                for_all="" if by_setting else by_file,
            )


def _strict(link: str) -> bool:
    values = [_read(f"net/ipv4/conf/{name}/rp_filter") for name in ("all", link)]
    return max(filter(None, values), default="0") == "1"


def _read(name: str) -> str:
    try:
        return sysctl.read(name)
    except OSError:
        return ""


def own_links(host: Host, plugin: Plugin) -> set[int]:
    """Return the indexes of the host's links that lead to the containers of a plugin's network."""
    return {link.index for link in host.rtnl.links() if plugin.is_own(link.name, link.kind, link.alias)}
