# SPDX-License-Identifier: Apache-2.0
"""
firewall: a network's traffic passes the host's firewall, and containers of different bridges are isolated if
that is configured.

It follows another plugin in a chain.  If nothing on the host drops the traffic, no rule is needed, and it
does nothing.  What may drop it, and what the plugin does then:

    iptables: policy DROP of chain FORWARD, which Docker sets     two rules per network (iptables_forward)
    firewalld, if it runs, or "backend" says so                   the container's addresses join a zone

CHECK looks at the present state, so it finds a policy that was set after ADD.  Chains of nftables that
another program made, and that drop packets, cannot be recognized.  Such a firewall must itself accept the
network.

`ingressPolicy` belongs to a bridge.  With "same-bridge", its containers and those of other bridges with a
policy do not reach each other through the host.  With "isolated", the containers of the same bridge do not
reach each other either: the bridge isolates their ports, so no filter has to see what it forwards.  An
uplink of the bridge is not isolated, nor is a container there whose network does not have this policy.  See
nftables.isolation.  With cnihook as the runtime, the policy is in force before the container's link is up
and until it is down.  Other runtimes call this plugin after the bridge plugin has raised the link.

`forwardPolicy`, which the reference does not have, belongs to a bridge, too.  With "published", nothing that
another interface opens is forwarded to the bridge, except to published ports.  With "none", nothing is
forwarded to the bridge or from it.  The host itself and the containers of the bridge are not concerned.

The administrator's rules come first.  If iptables has a chain CNI-ADMIN (`iptablesAdminChainName`), made by
`iptables -N CNI-ADMIN` for example, all that is forwarded passes it before the rules of cnihook, from the
next ADD on.  What it drops is dropped, and what it accepts is accepted.  Only the administrator makes, fills
or removes it.  With nftables, the administrator can do the same at any time in a table of their own, with a
base chain of type filter.  One thing differs: another chain may drop what such a chain accepts.
"""

from cnihook.fast.address import IPNet
from cnihook.links import veth
from cnihook.linux.dbus import NoServiceError
from cnihook.linux.rtnl import Link
from cnihook.linux.xtables import CHAIN_NAME_MAX
from cnihook.nftables import firewalld_zone, iptables_forward, isolation
from cnihook.protocol import locks
from cnihook.sdk import (
    Call,
    CniError,
    Field,
    NetConf,
    Result,
    Traits,
    Undo,
    invalid_config,
    read,
    try_each,
)
from cnihook.types import versions
from cnihook.types.errors import INTERNAL, PLUGIN_NOT_AVAILABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSIONS = versions.since("0.4.0")

# The characters of a chain in iptables, and of a bridge whose name is a part of an identifier in nftables.
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_POLICIES = ("open", *isolation.POLICIES)
_FORWARDING = ("open", *isolation.FORWARDING)


def _check_chain(name: str) -> None:
    if (
        not _LETTERS.issuperset(name)
        or name[0] == "-"
        or len(name) > CHAIN_NAME_MAX
        or name in iptables_forward.RESERVED
    ):
        raise ValueError(f"{name!r} cannot be such a chain")


def _check_policy(name: str) -> None:
    if name not in _POLICIES:
        raise invalid_config(f'unknown ingress policy: "{name}"', f"use one of {', '.join(_POLICIES)}")


FIELDS = (
    Field("backend", str,
          doc="`firewalld` requires it, `iptables` ignores it; any other value: firewalld if it runs"),
    Field("firewalldZone", str, "trusted", doc="the zone of firewalld that the addresses join"),
    Field("iptablesAdminChainName", str, "CNI-ADMIN", check=_check_chain,
          doc="the administrator's chain of iptables; it comes before the rules of cnihook"),
    Field("ingressPolicy", str, "open", choices=_POLICIES, check=_check_policy,
          doc="which containers do not reach each other: across bridges, or on one bridge"),
    Field("forwardPolicy", str, "open", choices=_FORWARDING,
          doc="what is forwarded to the bridge: published ports and answers, or nothing, nor from it"),
)  # fmt: skip
TRAITS = Traits("chained", needs=("nftables",), opens_firewall=True, releases_by_owner=True)


class Conf:
    """Every key, checked before anything is changed."""

    def __init__(self, call: Call) -> None:
        options = read(call.conf, FIELDS)
        self.backend: str = options["backend"]
        self.zone: str = options["firewalldZone"]
        self.admin: str = options["iptablesAdminChainName"]
        self.policy: str = options["ingressPolicy"]
        self.forwarding: str = options["forwardPolicy"]

    @property
    def policies(self) -> "list[str]":
        return [policy for policy in (self.policy, self.forwarding) if policy != "open"]

    @property
    def may_use_firewalld(self) -> bool:
        return self.backend != "iptables"

    def bear(self, error: NoServiceError, code: int = INTERNAL) -> None:
        """Raise CniError if the configuration requires firewalld.  Otherwise it is not needed."""
        if self.backend == "firewalld":
            why = '"backend" requires it; start it, or leave "backend" out'
            raise CniError(code, f"firewalld does not run: {error}", why) from None


def _zone(call: Call) -> str:
    return call.conf.string("firewalldZone") or "trusted"


def _prev_result(call: Call) -> Result:
    if call.prev_result is None:
        raise CniError(
            INTERNAL,
            "missing prevResult from earlier plugin",
            "firewall must come after a plugin that makes the interface",
        )
    return call.prev_result


def _bridge(call: Call, result: Result) -> "Link | None":
    """Return the bridge that the container is attached to; the bridge plugin puts it first in its result."""
    if not result.interfaces or result.interfaces[0].sandbox:
        return None
    link = call.host.find_link(result.interfaces[0].name)
    return link if link and link.kind == "bridge" and _LETTERS.issuperset(link.name) else None


def _described(policy: str) -> str:
    return f'{"ingress" if policy in _POLICIES else "forward"} policy "{policy}"'


def _guarded_bridge(call: Call, conf: Conf, result: Result) -> Link:
    bridge = _bridge(call, result)
    if not bridge:
        raise CniError(
            INTERNAL,
            f"{_described(conf.policies[0])} needs a bridge; the first interface of prevResult is not one",
            'make sure to chain "firewall" plugin with "bridge"',
        )
    return bridge


def _port(call: Call, result: Result, bridge: Link) -> Link:
    for interface in result.interfaces:
        link = None if interface.sandbox else call.host.find_link(interface.name)
        if link and link.master == bridge.index:
            return link
    raise CniError(
        INTERNAL, f"prevResult names no port of {bridge.name} that leads to container {call.container_id}"
    )


class _Accepted:
    """A bridge, or without one a subnet, and the tables of iptables that must accept its traffic."""

    def __init__(self, call: Call, end: "str | IPNet", tables: "list[iptables_forward.Filter]") -> None:
        self.end = end
        self.tables = tables
        self.chain = isolation.accept_chain(call, end)
        self.comment = isolation.accept_comment(self.chain)


def _to_accept(call: Call, conf: Conf, result: Result) -> "list[_Accepted]":
    tables = iptables_forward.tables_needing_rules((ip.net.address.version for ip in result.ips), conf.admin)
    if not tables:
        return []
    bridge = _bridge(call, result)
    if bridge:
        return [_Accepted(call, bridge.name, tables)]
    accepted = []
    for subnet in {ip.net.network() for ip in result.ips}:
        own = [table for table in tables if table.version == subnet.address.version]
        if own:
            accepted.append(_Accepted(call, subnet, own))
    return accepted


def guards(conf: NetConf) -> bool:
    return any(conf.string(key) not in ("", "open") for key in ("ingressPolicy", "forwardPolicy"))


def prepare(call: Call, first: NetConf) -> "dict[str, Any]":
    """Put the policy in force before the bridge plugin, the first of the chain, raises the interface."""
    conf = Conf(call)
    bridge = first.string("bridge") or "cni0"
    if first.string("type") != "bridge" or not _LETTERS.issuperset(bridge):
        return {}  # add() reports the error
    with locks.nft(f"isolate {call.owner}"):
        isolation.add_member(call, [isolation.policy_chain(policy, bridge) for policy in conf.policies])
    return {"portIsolation": True} if conf.policy == "isolated" else {}


def add(call: Call) -> Result:
    conf = Conf(call)
    result = _prev_result(call)
    bridge = _guarded_bridge(call, conf, result) if conf.policies else None
    port = _port(call, result, bridge) if bridge and conf.policy == "isolated" else None
    accepted = _to_accept(call, conf, result)
    with Undo() as undo:
        if conf.may_use_firewalld:
            _join_zone(call, conf, result, undo)
        if accepted or bridge:
            undo.push(isolation.delete, call)
            with locks.nft(f"let {call.owner} through"):
                chains = [each.chain for each in accepted]
                # prepare() has added those of the policies, if it was called.
                policies = [isolation.policy_chain(each, bridge.name) for each in conf.policies if bridge]
                chains += [chain for chain in policies if not isolation.is_set(call, chain)]
                if chains:
                    isolation.add_member(call, chains)
                for each in accepted:
                    for table in each.tables:
                        iptables_forward.add(table, conf.admin, each.end, each.comment)
        if port and not port.isolated:
            undo.push(_isolate, call, port, False)
            _isolate(call, port, True)
    return result


def _isolate(call: Call, port: Link, isolated: bool) -> None:
    from cnihook.linux import bridge_ports  # few networks isolate their containers

    bridge_ports.configure(call.host, port, isolated=isolated)


def _join_zone(call: Call, conf: Conf, result: Result, undo: Undo) -> None:
    addresses = [ip.net.address for ip in result.ips]
    undo.push(firewalld_zone.delete, call, conf.zone, addresses)
    try:
        firewalld_zone.add(call, conf.zone, addresses)
    except NoServiceError as error:
        conf.bear(error)


def delete(call: Call) -> None:
    """Undo ADD, but leave the port isolated: it will be removed, and another plugin may have isolated it.

    Another runtime calls this before the DEL of the bridge plugin.  So the link is set down first.  A DHCP
    server then keeps the address until its lease ends, because no message can release it.
    """
    try_each(
        lambda: veth.set_down(call) if guards(call.conf) else None,
        lambda: isolation.delete(call),
        lambda: _leave_zone(call),
        lambda: _remove_foreign(call),
    )


def _remove_foreign(call: Call) -> None:
    if call.prev_result and veth.is_foreign(call):
        from cnihook.nftables import reference_rules  # few attachments are the reference's

        reference_rules.remove_accepted({ip.net.address for ip in call.prev_result.ips})


def _leave_zone(call: Call) -> None:
    addresses = []
    if call.prev_result and call.conf.string("backend") != "iptables":
        addresses = [ip.net.address for ip in call.prev_result.ips]
    firewalld_zone.delete(call, _zone(call), addresses)


def check(call: Call) -> None:
    conf = Conf(call)
    result = _prev_result(call)
    where = f"{call.ifname} of container {call.container_id}"
    for each in _to_accept(call, conf, result):
        for table in each.tables:
            if not iptables_forward.is_set(table, conf.admin, each.comment):
                raise CniError(
                    INTERNAL, f"{table.name} does not let {each.end} through, the network of {where}"
                )
    if conf.may_use_firewalld:
        try:
            missing = firewalld_zone.missing(conf.zone, [ip.net.address for ip in result.ips])
        except NoServiceError as error:
            conf.bear(error)
        else:
            if missing:
                raise CniError(INTERNAL, f"{missing[0]} is not in zone {conf.zone} of firewalld")
    for policy in conf.policies:
        bridge = _guarded_bridge(call, conf, result)
        if not isolation.is_set(call, isolation.policy_chain(policy, bridge.name)):
            raise CniError(INTERNAL, f"{_described(policy)} is not in force for {where}")
        if policy == "isolated" and not _port(call, result, bridge).isolated:
            raise CniError(INTERNAL, f"the port of {where} is not isolated")


def repair(call: Call) -> None:
    """Run ADD: it does not change what exists."""
    add(call)


def update(call: Call, before: Call) -> None:
    """Put the new policies in force, then remove the old ones, so that no packet passes that both forbid."""
    new, old = Conf(call), Conf(before)
    result = _prev_result(call)
    bridge = _bridge(call, result)
    if old.may_use_firewalld and (old.zone != new.zone or not new.may_use_firewalld):
        firewalld_zone.delete(before, old.zone, [ip.net.address for ip in result.ips])
    add(call)
    dropped = [policy for policy in old.policies if policy not in new.policies]
    if dropped and bridge:
        with locks.nft(f"change the policies of {call.owner}"):
            isolation.remove_member(call, [isolation.policy_chain(each, bridge.name) for each in dropped])
        # The bridge plugin may have isolated the port itself.
        if "isolated" in dropped and not (
            call.request.first and call.request.first.boolean("portIsolation")
        ):
            _isolate(call, _port(call, result, bridge), False)


def gc(call: Call) -> None:
    """Remove what attachments to this network left behind, except valid attachments."""
    keep = call.valid_attachments()
    if keep is None:
        return
    owners = {call.owner_of(container_id, ifname) for container_id, ifname in keep}
    try_each(
        lambda: isolation.gc(call, owners),
        lambda: firewalld_zone.gc(call, _zone(call), owners),
    )


def status(call: Call) -> None:
    conf = Conf(call)
    try:
        firewalld_zone.missing(conf.zone, [])
    except NoServiceError as error:
        conf.bear(error, PLUGIN_NOT_AVAILABLE)
