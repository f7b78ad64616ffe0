# SPDX-License-Identifier: Apache-2.0
"""
Forwarding rules that many attachments share, and how many attachments still need them.

In `table inet cnihook`, every group of rules has a chain.  Every attachment is an element of a map, with a
jump to that chain.  No packet passes the map: it makes the kernel count the attachments.  So the last one is
known, whatever their number.

    map forward-members { "5f0c6a9be3d211" comment "mynet c1 eth0" : jump forward-isolated/cni0 }

There are two kinds of chain.  `forward-accept-mynet/cni0` is empty.  It means that iptables has rules for
that network (see accept).  A bridge with a policy has a chain with the rules of this policy.  Packets that
are forwarded from the bridge, or to it, pass it:

    set forward-bridges { "cni0", "cni1" }
    chain forward { iifname "cni0" jump forward-isolated/cni0; iifname "cni1" jump forward-same-bridge/cni1 }
    chain forward-isolated/cni0 { oifname @forward-bridges drop }
    chain forward-same-bridge/cni1 { oifname "cni1" return; oifname @forward-bridges drop }

Policies of forwarding are about all other interfaces, not only about bridges with a policy:

    chain forward { oifname "cni2" jump forward-published/cni2; iifname "cni3" jump forward-none/cni3; ... }
    chain forward-published/cni2 { iifname "cni2" return; ct state established return; ct status dnat return;
                                   drop }
    chain forward-none/cni3 { iifname "cni3" oifname "cni3" return; drop }
"""

from cnihook.fast.address import IPNet
from cnihook.linux import nft, nft_objects
from cnihook.linux.nft_objects import Rule
from cnihook.nftables import iptables_forward, table
from cnihook.nftables.table import FAMILY, NAME
from cnihook.protocol import locks
from cnihook.protocol.call import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

POLICIES = ("same-bridge", "isolated")  # between bridges that have one of these
FORWARDING = ("published", "none")  # to a bridge, or to and from it

_BASE_CHAIN, _MEMBERS, _BRIDGES = "forward", "forward-members", "forward-bridges"
_ACCEPT = "forward-accept-"
_BETWEEN_BRIDGES = tuple(f"forward-{policy}/" for policy in POLICIES)
_PUBLISHED, _NONE = (f"forward-{policy}/" for policy in FORWARDING)
_POLICIES = (*_BETWEEN_BRIDGES, _PUBLISHED, _NONE)


def accept_chain(call: Call, end: "str | IPNet") -> str:
    """Return the chain that represents the rules of this bridge or subnet of the network in iptables."""
    text = str(end).replace(":", "_")  # no colon in an identifier of nft
    return f"{_ACCEPT}{call.owner_prefix.strip()}/{text}"


def accept_comment(chain: str) -> str:
    return f"cnihook: {chain.removeprefix(_ACCEPT).replace('/', ' ', 1)}"


def policy_chain(policy: str, bridge: str) -> str:
    return f"forward-{policy}/{bridge}"


def add_member(call: Call, chains: "Sequence[str]") -> None:
    """Add the attachment to these chains, as a member.  Call it under the lock."""
    present = table.chains()
    what = f"set up forwarding for {call.owner}"
    policies = sorted({chain for chain in [*present, *chains] if chain.startswith(_POLICIES)})
    if not _policies_present(policies):
        nft.change(FAMILY, _declared(policies), what)
    missing = [chain for chain in chains if chain not in present]
    messages = []
    if missing:
        messages += [
            nft_objects.table(NAME),
            nft_objects.verdict_map(NAME, _MEMBERS, nft_objects.IFNAME),
            *(nft_objects.chain(NAME, chain) for chain in missing if chain not in policies),
        ]
    messages += [
        nft.add_element(NAME, _MEMBERS, _member(_key(call.owner, chain)), call.owner, jump=chain)
        for chain in chains
    ]
    nft.change(FAMILY, messages, what)


def is_set(call: Call, chain: str) -> bool:
    """Return True if the attachment is a member of the chain, and the policies are in force."""
    return _is_member(call.owner, chain) and _policies_present(
        [name for name in table.chains() if name.startswith(_POLICIES)]
    )


def delete(call: Call) -> None:
    """Remove the attachment from all chains, and each chain that then has no member, with its rules."""
    if not _our_chains():
        return
    with locks.nft(f"stop forwarding for {call.owner}"):
        remove_member(call, _our_chains())


def remove_member(call: Call, chains: "Iterable[str]") -> None:
    """Remove the attachment from these chains, as delete() does.  Call it under the lock."""
    _remove([_key(call.owner, chain) for chain in chains if _is_member(call.owner, chain)])


def gc(call: Call, keep: "set[str]") -> None:
    """Do the same for every owner on this network that is not in `keep`."""
    if not _our_chains():
        return
    with locks.nft(f"gc {call.network}"):
        _remove(
            [
                key.partition(b"\0")[0].decode()
                for key, owner in nft.elements(FAMILY, NAME, _MEMBERS)
                if owner.startswith(call.owner_prefix) and owner not in keep
            ]
        )


def _key(owner: str, chain: str) -> str:
    """Return the key of an owner's membership.  It is a hash, so DEL needs no search and no prevResult."""
    from _blake2 import blake2s

    return blake2s(f"{owner}\n{chain}".encode(), digest_size=7).hexdigest()


def _is_member(owner: str, chain: str) -> bool:
    return nft.comment_of(FAMILY, NAME, _MEMBERS, _member(_key(owner, chain))) == owner


def _member(key: str) -> bytes:
    """Return the key as the map has it: 16 bytes (IFNAMSIZ)."""
    return key.encode().ljust(16, b"\0")


def _our_chains() -> "dict[str, int]":
    return {name: use for name, use in table.chains().items() if name.startswith((_ACCEPT, *_POLICIES))}


def _bridge(chain: str) -> str:
    return chain.partition("/")[2]


def _rules(chain: str) -> "list[Rule]":
    """Return the rules in the chain of a policy."""
    bridge = _bridge(chain)
    drop = Rule(lambda: nft_objects.verdict(nft_objects.DROP))
    if chain.startswith(_PUBLISHED):
        return [
            _returns(lambda: nft_objects.enters_by(bridge)),
            _returns(nft_objects.established),
            _returns(lambda: nft_objects.is_translated(nft_objects.DST_NAT)),
            drop,
        ]
    if chain.startswith(_NONE):
        return [_returns(lambda: nft_objects.enters_by(bridge) + nft_objects.leaves_by(bridge)), drop]
    others = Rule(lambda: nft_objects.leaves_by_any(_BRIDGES) + nft_objects.verdict(nft_objects.DROP))
    if chain != policy_chain("same-bridge", bridge):
        return [others]
    return [_returns(lambda: nft_objects.leaves_by(bridge)), others]


def _returns(match: "Callable[[], bytes]") -> Rule:
    return Rule(lambda: match() + nft_objects.verdict(nft_objects.RETURN))


def _ways_in(chain: str) -> "list[Rule]":
    """Return the rules of the base chain that jump to the chain of a policy."""
    enters = Rule(lambda: nft_objects.enters_by(_bridge(chain)), jump=chain)
    if chain.startswith(_BETWEEN_BRIDGES):
        return [enters]
    leaves = Rule(lambda: nft_objects.leaves_by(_bridge(chain)), jump=chain)
    return [leaves] if chain.startswith(_PUBLISHED) else [enters, leaves]


def _base_rules(policies: "Sequence[str]") -> "list[Rule]":
    return [rule for chain in policies for rule in _ways_in(chain)]


def _between_bridges(policies: "Sequence[str]") -> "set[str]":
    """Return the bridges that do not reach each other."""
    return {_bridge(chain) for chain in policies if chain.startswith(_BETWEEN_BRIDGES)}


def _policies_present(policies: "Sequence[str]") -> bool:
    """Return True if `policies`, which must be all of them, and the jumps to them are as they were made."""
    return not policies or (
        len(nft.rules(FAMILY, NAME, _BASE_CHAIN)) == len(_base_rules(policies))
        and all(len(nft.rules(FAMILY, NAME, chain)) == len(_rules(chain)) for chain in policies)
        and all(map(_is_listed, _between_bridges(policies)))
    )


def _is_listed(bridge: str) -> bool:
    return nft.comment_of(FAMILY, NAME, _BRIDGES, nft_objects.interface(bridge)) is not None


def _declared(policies: "Sequence[str]") -> "list[nft_objects.Message]":
    """Return messages that declare the chains of the policies, and the jumps to them."""
    messages = [
        nft_objects.table(NAME),
        nft_objects.value_set(NAME, _BRIDGES, nft_objects.IFNAME),
        nft_objects.chain(NAME, _BASE_CHAIN, "filter", nft_objects.FORWARD, nft_objects.FILTER),
    ]
    for bridge in sorted(_between_bridges(policies)):
        messages.append(nft.add_element(NAME, _BRIDGES, nft_objects.interface(bridge), ""))
    for chain in policies:
        messages += [
            nft_objects.chain(NAME, chain),
            *nft_objects.replace_rules(NAME, chain, _rules(chain)),
        ]
    return [*messages, *nft_objects.replace_rules(NAME, _BASE_CHAIN, _base_rules(policies))]


def _remove(members: "list[str]") -> None:
    """Remove the elements, and all that is unused; a killed DEL of another attachment may have left some."""
    elements = [nft.delete_element(NAME, _MEMBERS, _member(key)) for key in members]
    if elements:
        nft.change(FAMILY, elements, "remove members of what is forwarded")
    present = table.chains()
    policies = [name for name in present if name.startswith(_POLICIES)]
    if not _policies_present(policies):  # another program has flushed them, so their use counts are too low
        nft.change(FAMILY, _declared(policies), "restore the policies of bridges")
        present = table.chains()
    accepted = [name for name in present if name.startswith(_ACCEPT)]
    unused: list[str] = []
    try:
        for chain in accepted:
            if present[chain] == 0:
                iptables_forward.delete(accept_comment(chain))
                unused.append(chain)
    finally:
        used = [name for name in policies if present[name] > len(_rules(name)) + len(_ways_in(name))]
        _remove_chains(unused, policies, used, last=len(unused) == len(accepted))


def _remove_chains(unused: "list[str]", policies: "list[str]", wanted: "list[str]", *, last: bool) -> None:
    """Remove the unused chains, and the policies that are not wanted.  `last`: only the wanted ones stay."""
    if not wanted:
        objects = [f"set {_BRIDGES}"] if policies else []
        objects += [f"map {_MEMBERS}"] if last else []
        table.remove(table.chains(), [_BASE_CHAIN, *policies, *unused], objects)
        return
    gone = [name for name in policies if name not in wanted]
    if gone:
        messages = _declared(wanted)
        for bridge in _between_bridges(gone) - _between_bridges(wanted):
            messages.append(nft.delete_element(NAME, _BRIDGES, nft_objects.interface(bridge)))
        messages += [nft_objects.delete_chain(NAME, name) for name in gone]
        nft.change(FAMILY, messages, "remove the policy of a bridge")
    table.remove(table.chains(), unused)
