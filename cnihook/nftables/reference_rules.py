# SPDX-License-Identifier: Apache-2.0
"""
Removal of what the reference plugins made for an attachment, by the DEL of the plugin with the same type.

A host may change to cnihook while containers run, because records and leases are the same.  The names of
these objects follow from network, container ID and interface name:

    iptables, nat       CNI-DN-HASH, CNI-SN-HASH and the jumps to them      portmap
                        CNI-HASH and the jumps to it                        ipMasq
    iptables, filter    CNI-FORWARD: two rules for each address             firewall
    nft, ip and ip6 cni_hostport                rules with the container ID as comment      portmap
    nft, inet cni_plugins_masquerade            rules whose comment begins with two hashes  ipMasq
    nft, bridge nat                             cni-br-iface-ID-IFNAME      macspoofchk

Chains of all containers stay, as after the reference's own DEL: CNI-HOSTPORT-DNAT and the like, and
CNI-FORWARD.  The names of portmap in nft and of ipMasq in iptables do not contain the interface name.  So a
second attachment of the container to the same network loses these rules as well, as with the reference.
"""

import sys

from cnihook.fast.undo import try_each
from cnihook.linux import nft, nft_objects, xtables
from cnihook.protocol.call import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from cnihook.fast.address import Address
    from cnihook.linux.xtables import LegacyTable, NftTable, Rule

    Table = LegacyTable | NftTable

_HASHES = {  # prefix of a chain, and the chains that jump to it
    "CNI-DN-": ("CNI-HOSTPORT-DNAT",),
    "CNI-SN-": ("CNI-HOSTPORT-SNAT",),
    "CNI-": ("POSTROUTING",),
}
PREFIXES = tuple(_HASHES)
MASQUERADE, HOSTPORT = "cni_plugins_masquerade", "cni_hostport"
HOSTPORT_CHAINS = ("hostports", "hostip_hostports", "masquerading")
_HEXADECIMAL = frozenset("0123456789abcdef")
_NAME_MAX = xtables.CHAIN_NAME_MAX
_VERSIONS = {4: "ip", 6: "ip6"}


def _digest(text: str) -> str:
    # The module that hashlib uses; to import hashlib itself takes 2.5 ms.
    module = __import__("_sha2" if sys.version_info >= (3, 12) else "_sha512")
    digest: str = module.sha512(text.encode()).hexdigest()
    return digest


def chain_name(prefix: str, network: str, container_id: str) -> str:
    return f"{prefix}{_digest(network + container_id)}"[:_NAME_MAX]


def is_chain_of_a_container(name: str) -> bool:
    return len(name) == _NAME_MAX and any(
        name.startswith(prefix) and _HEXADECIMAL.issuperset(name[len(prefix) :]) for prefix in PREFIXES
    )


def instance(network: str, container_id: str, ifname: str) -> str:
    """Return the text that the comment of a rule for ipMasq begins with, in nftables."""
    return f"{_digest(network)[:16]}-{_digest(f'{ifname}:{container_id}')[:16]}"


def remove_ports(call: Call) -> None:
    def remove_nft(family: str) -> None:
        for chain in HOSTPORT_CHAINS:
            _remove_rules(family, HOSTPORT, chain, lambda comment: comment == call.container_id)

    try_each(
        *(lambda prefix=prefix: _remove_chain(call, prefix) for prefix in ("CNI-DN-", "CNI-SN-")),
        *(lambda family=family: remove_nft(family) for family in _VERSIONS.values()),
    )


def remove_masquerade(call: Call) -> None:
    own = instance(call.network, call.container_id, call.ifname)
    try_each(
        lambda: _remove_chain(call, "CNI-"),
        lambda: _remove_rules("inet", MASQUERADE, "masq_checks", lambda comment: comment.startswith(own)),
    )


def remove_accepted(addresses: "Collection[Address]") -> None:
    """Remove the two rules of each address.  They have no comment, so only the address identifies them."""

    def is_meant(rule: "Rule") -> bool:
        return rule.address in addresses and not rule.comment and rule.target in ("", "ACCEPT")

    def remove(table: "Table") -> None:
        _change(table, [("CNI-FORWARD", rule) for rule in table.rules("CNI-FORWARD") if is_meant(rule)], "")

    versions = sorted({address.version for address in addresses})
    try_each(*(lambda t=table: remove(t) for v in versions for table in xtables.filters(v)))


def remove_spoofcheck(call: Call) -> None:
    owner = f"{call.container_id}-{call.ifname}"
    chains = nft.chains("bridge", "nat")
    own = [name for name in (f"cni-br-iface-{owner}", f"cni-br-iface-{owner}-mac") if name in chains]
    if own:
        _remove_rules("bridge", "nat", "PREROUTING", lambda comment: comment == f"macspoofchk-{owner}")
        nft.change("bridge", [nft_objects.delete_chain("nat", name) for name in own], "remove a spoof check")


def _remove_chain(call: Call, prefix: str) -> None:
    """Remove a chain of iptables' nat for this container, and the jumps to it."""
    name = chain_name(prefix, call.network, call.container_id)
    for version in _VERSIONS:
        for table in xtables.filters(version, "nat"):
            if table.policy(name) is not None:
                rules = [(name, rule) for rule in table.rules(name)]
                for place in _HASHES[prefix]:
                    rules += [(place, rule) for rule in table.rules(place) if rule.target == name]
                _change(table, rules, name)


def _change(table: "Table", rules: "list[tuple[str, Rule]]", chain: str) -> None:
    edits = xtables.Edits()
    for place, rule in rules:
        edits.delete_rule(place, rule)
    if chain:
        edits.delete_chain(chain)
    if edits:
        table.change(edits, f"remove rules of the reference plugins from {table.name}, table {table.table}")


def _remove_rules(family: str, table: str, chain: str, is_meant: "Callable[[str], bool]") -> None:
    own = [handle for handle, comment in nft.commented_rules(family, table, chain) if is_meant(comment)]
    if own:
        messages = [nft_objects.delete_rule(table, chain, handle) for handle in own]
        nft.change(family, messages, f"remove rules of the reference plugins from table {family} {table}")
