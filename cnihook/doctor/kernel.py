# SPDX-License-Identifier: Apache-2.0
"""Checks of kernel features that plugins need, each tried in a temporary network namespace."""

import errno
import json
import os
from collections.abc import Callable, Iterator

from cnihook.doctor.finding import Finding, Host, Plugin, plugins_of
from cnihook.fast.address import IPNet
from cnihook.fast.errors_text import message_with_notes
from cnihook.linux import htb, libc, netem, netlink, nft, tc
from cnihook.linux.rtnl import Rtnl
from cnihook.nftables import port_chains
from cnihook.nftables.table import FAMILY, NAME
from cnihook.policy import enforcement, guard, inside_rules
from cnihook.policy import kernel as policy_kernel
from cnihook.protocol import invoke
from cnihook.runtime.networks import Network
from cnihook.types.config import LenientConf
from cnihook.types.fields import Traits

# The kernel modules that provide features; for the others, the module has the name of the feature.
_MODULES = {
    "vlan": "8021q",
    "tbf": "sch_tbf",
    "htb": "sch_htb cls_u32",
    "netem": "sch_netem",
    "nftables": "nf_tables nft_masq nft_nat nft_fib_inet",
    "policies": "nf_tables nft_ct nft_reject_inet nf_conntrack",
}

_POLICIES, _INSIDE = "policies", "policies-inside"

# A feature that takes the place of another, where both are declared.
_INSTEAD = {"htb": "tbf"}


def check(host: Host, everything: bool) -> Iterator[Finding]:
    """Find missing features that the networks need; with `everything`, also those that no network needs."""
    users: dict[str, list[str]] = {}
    offers: dict[str, str] = {}
    for network in host.networks:
        for plugin in plugins_of(network):
            for feature in _features(plugin):
                users.setdefault(feature, []).append(f"network {network.name} ({plugin.type})")
            for feature, capability in _optional(plugin.traits).items():
                if capability in network.capabilities:
                    offers[feature] = f"network {network.name} ({plugin.type})"
        if feature := _of_policies(network):
            users.setdefault(feature, []).append(f"policies on network {network.name}")
    features = {*users, *offers}
    types_by_feature: dict[str, str] = {}
    for plugin_type in invoke.built_in_types():
        traits = invoke.traits(plugin_type)
        for feature in (*traits.makes, *traits.needs, *_optional(traits)):
            types_by_feature.setdefault(feature, plugin_type)
    if everything:
        features |= types_by_feature.keys()
    for feature, problem in sorted(_missing(sorted(features)).items()):
        by = users.get(feature)
        what = f"{_described(feature)} cannot be used: {problem}"
        if by:
            yield Finding(f"kernel-{feature}", what, f"needed by {', '.join(by)}", _remedy(feature))
        else:
            why = f"no network needs it now; the plugin {types_by_feature[feature]} would"
            if feature in offers:
                why = f"{offers[feature]} offers it; a container that requests it cannot start"
            yield Finding(f"kernel-{feature}", what, why, _remedy(feature), note=True)


def of_network(network: Network) -> "list[Finding]":
    """Return what a network cannot do with this kernel: policies of the host, and what containers request.

    What a container only may request is a note.
    """
    offered = {
        feature: capability
        for plugin in plugins_of(network)
        for feature, capability in _optional(plugin.traits).items()
        if capability in network.capabilities
    }
    needed = _of_policies(network)
    findings = []
    for feature, problem in _missing([*offered, *([needed] if needed else [])]).items():
        what = f"{_described(feature)} cannot be used: {problem}"
        why = "a container with a policy does not start"
        if feature in offered:
            why = f"a container that requests {offered[feature]} does not start"
        findings.append(Finding(f"kernel-{feature}", what, why, _remedy(feature), note=feature in offered))
    return findings


def _of_policies(network: Network) -> str:
    """Return the feature that policies on a network need; empty without policies, or if none is possible."""
    if network.is_loopback or not enforcement.exists():
        return ""
    first = plugins_of(network)[0]
    return _POLICIES if first.traits.is_gateway(first.conf.raw) else _INSIDE


def _features(plugin: Plugin) -> set[str]:
    """Return what a plugin needs always, and by the keys of its configuration."""
    if not invoke.is_built_in(plugin.type):
        return set()
    conf = LenientConf(plugin.conf.raw)
    by_key = {field.needs for field in invoke.fields(plugin.type) if field.needs and field.read(conf)}
    replaced = {_INSTEAD[feature] for feature in by_key if feature in _INSTEAD}
    return {*plugin.traits.makes, *plugin.traits.needs, *by_key} - replaced


def _optional(traits: Traits) -> "dict[str, str]":
    """Return what a plugin needs only if a container requests it, each with the capability."""
    return {field.needs: field.name for field in traits.capabilities if field.needs}


def _described(feature: str) -> str:
    return {
        "nftables": "nftables",
        "tbf": "the qdisc tbf",
        "htb": "the qdisc htb",
        "netem": "the qdisc netem",
        "tun": "/dev/net/tun",
        _POLICIES: "nftables for policies",
        _INSIDE: "nftables for policies in namespaces of containers",
    }.get(feature, f"links of the kind {feature}")


def _remedy(feature: str) -> str:
    if feature == _INSIDE:
        return "use a kernel with CONFIG_NETFILTER_EGRESS and CONFIG_IP_ROUTE_CLASSID, or ptp or bridge"
    return f"modprobe -a {_MODULES.get(feature, feature)}"


def _missing(features: list[str]) -> dict[str, str]:
    """Return the features that do not work, each with the reason."""

    def probe() -> dict[str, str]:
        rtnl = Rtnl()
        return {feature: problem for feature in features if (problem := _try(rtnl, feature))}

    return _in_a_throwaway_namespace(probe)


def _try(rtnl: Rtnl, feature: str) -> str:
    try:
        if feature == "nftables":
            nft.change(FAMILY, [*port_chains.declaration({})], "nftables")
        elif feature == _POLICIES:
            nft.change(FAMILY, policy_kernel.declaration(), "policies")
            nft.change(guard.BRIDGE_FAMILY, [*guard.bridge_base()], "guards of bridges")
        elif feature == _INSIDE:
            nft.change(inside_rules.TABLE_FAMILY, [*inside_rules.guard_declaration(NAME, ["lo"])], "guards")
            nft.change(FAMILY, [*inside_rules.declaration(NAME, [])], "policies")
        elif feature == "tun":
            os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
        elif feature == "tbf":
            rtnl.add_link("ifb", "probe-tbf")
            tc.add_tbf(rtnl, rtnl.link("probe-tbf"), tc.Tbf.of(125_000, 125_000, 25_000))
        elif feature == "htb":
            rtnl.add_link("ifb", "probe-htb")
            choice = htb.Choice([IPNet.parse("0.0.0.0/0")], limited=True, by_source=True)
            htb.add(rtnl, rtnl.link("probe-htb"), tc.Tbf.of(125_000, 125_000, 25_000), choice)
        elif feature == "netem":
            return "the kernel does not have it" if netem.is_missing(rtnl) else ""
        else:
            rtnl.add_link(feature, f"probe-{feature}"[:15])
    except OSError as error:
        # Some kinds need more than a name (a parent, a number); such an error shows that the kind is known.
        if (
            feature not in ("nftables", "tun", "tbf", "htb", _POLICIES, _INSIDE)
            and error.errno != errno.EOPNOTSUPP
        ):
            return ""
        return message_with_notes(error)
    return ""


def _in_a_throwaway_namespace(function: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Return the result of `function` in a child process; its network namespace ends with it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            libc.unshare(libc.CLONE_NEWNET)
            netlink.reopen_netfilter()
            os.write(writing, json.dumps([function(), ""]).encode())
        except BaseException as error:
            os.write(
                writing,
                json.dumps([{}, f"a temporary network namespace: {message_with_notes(error)}"]).encode(),
            )
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        text = file.read()
    os.waitpid(pid, 0)
    missing, problem = json.loads(text)
    if problem:
        raise OSError(errno.EPERM, problem)
    return {str(key): str(value) for key, value in missing.items()}
