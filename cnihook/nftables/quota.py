# SPDX-License-Identifier: Apache-2.0
"""
Quotas: how many bytes a container may send, receive, and both together, before it is cut off.

In `table inet cnihook`, an object per container and kind, and an element per address that leads to it:

    quota quota-egress-2f0c88a1b7d3e645 { comment "mynet c1 eth0"; over 10 gbytes used 3 mbytes }
    map quota-egress4 { 10.22.0.5 comment "mynet c1 eth0" : "quota-egress-2f0c88a1b7d3e645" }
    chain quota { quota name ip saddr map @quota-egress4 drop; seven rules like it }

Chains at the hooks forward, input and output jump to it.  So what passes the IP stack of the host counts:
packets to and from other networks, published ports, and the host itself, not the frames of a bridge.  The
cost of a packet does not depend on the number of containers.

The kernel's count is lost if another program flushes the table.  So the count is saved in a file at each
look, /run/cnihook/quota/DIGEST, and a repair continues from there.
"""

import os

from cnihook.fast import fastjson, statefile
from cnihook.fast.address import Address
from cnihook.linux import nft, nft_objects, nft_quota
from cnihook.linux.nft_objects import Rule
from cnihook.linux.nft_quota import Quota
from cnihook.nftables import table
from cnihook.nftables.table import FAMILY, NAME
from cnihook.nftables.table import QUOTA_KINDS as KINDS
from cnihook.protocol import locks
from cnihook.protocol.call import Call
from cnihook.types.errors import INTERNAL, INVALID_CONFIG, CniError
from cnihook.types.fields import MOST
from cnihook.types.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cnihook.linux.nft_objects import Message

FOLDER = "/run/cnihook/quota"
_CHAIN = "quota"
_BASE_CHAINS = {
    "quota-forward": nft_objects.FORWARD,
    "quota-input": nft_objects.INPUT,
    "quota-output": nft_objects.OUTPUT,
}
_KEYS = {4: nft_objects.IPV4_ADDR, 6: nft_objects.IPV6_ADDR}
MAPS = tuple(f"quota-{kind}{version}" for version in _KEYS for kind in KINDS)


def _rules() -> "dict[str, list[Rule]]":
    counts = [
        _count(version, address, kind)
        for version in _KEYS
        for address, direction in ((nft_objects.source, "egress"), (nft_objects.destination, "ingress"))
        for kind in (direction, "total")
    ]
    return {**{chain: [Rule(jump=_CHAIN)] for chain in _BASE_CHAINS}, _CHAIN: counts}


def _count(version: int, address: "Callable[[int], bytes]", kind: str) -> Rule:
    drop = nft_objects.verdict(nft_objects.DROP)
    return Rule(lambda: address(version) + nft_quota.count(f"quota-{kind}{version}") + drop)


def _declaration() -> "Iterator[Message]":
    yield nft_objects.table(NAME)
    for version, key in _KEYS.items():
        for kind in KINDS:
            yield nft_quota.quota_map(NAME, f"quota-{kind}{version}", key)
    yield nft_objects.chain(NAME, _CHAIN)
    for chain, hook in _BASE_CHAINS.items():
        yield nft_objects.chain(NAME, chain, "filter", hook, nft_objects.FILTER)
    for chain, rules in _rules().items():
        yield from nft_objects.replace_rules(NAME, chain, rules)


def _is_whole() -> bool:
    present = table.chains()
    return all(present.get(chain) == uses for chain, uses in nft_objects.use_counts(_rules()).items())


def _name(owner: str, kind: str) -> str:
    return f"quota-{kind}-{_digest(owner)}"


def _digest(owner: str) -> str:
    from _blake2 import blake2s

    return blake2s(owner.encode(), digest_size=8).hexdigest()


# What a container requests


def limits_of(call: Call) -> "dict[str, int]":
    """Return the requested limits in bytes, by kind.  Raises CniError for a malformed one."""
    conf = call.runtime_config.object("quota")
    limits = {kind: conf.integer(kind, default=0, low=0, high=MOST) for kind in KINDS}
    return {kind: limit for kind, limit in limits.items() if limit}


def _addresses(call: Call, result: "Result | None") -> "list[Address]":
    """Return the addresses of this call's interface."""
    if not result:
        return []
    own = [
        index
        for index, interface in enumerate(result.interfaces)
        if interface.name == call.ifname and interface.sandbox
    ]
    return [ip.net.address for ip in result.ips if ip.interface is None or ip.interface in own]


def _counted(call: Call, result: Result) -> "list[Address]":
    """Return the addresses whose packets pass the host.  Raises CniError if they do not."""
    inner = call.sandbox.find_link(call.ifname)
    kind = inner.kind if inner else ""
    if kind != "veth":
        raise CniError(
            INVALID_CONFIG,
            f"quota: {call.ifname} is of the kind {kind or 'unknown'}: its packets do not pass the host, "
            "which would count them",
            "use the quota on a network of the plugins bridge or ptp",
        )
    gateways = [ip.gateway for ip in result.ips if ip.gateway]
    hosts = {one.net.address for one in call.host.addresses()} if gateways else set()
    addresses = _addresses(call, result)
    if not addresses or not hosts.intersection(gateways):
        raise CniError(
            INVALID_CONFIG,
            f"quota: the host is not the gateway of {call.ifname}, so the packets of the container do not "
            "pass it",
            'set "isGateway": true in the plugin bridge, and addresses of the IPAM plugin host-local',
        )
    return addresses


# ADD, DEL, CHECK, GC and UPDATE


def add(call: Call, result: Result) -> None:
    _set(call, limits_of(call), _counted(call, result))


def update(call: Call, before: Call, result: Result) -> None:
    """Change the limits.  The count continues, unless `since` of the capability differs.

    It also continues if a failed change is undone.
    """
    limits = limits_of(call)
    if not limits:
        _delete(call, result, keeps_count=False)
        return
    restarts = _since(call) != _since(before) and not call.request.is_repair
    _set(call, limits, _counted(call, result), restarts=restarts)


def _since(call: Call) -> int:
    return call.runtime_config.object("quota").integer("since", default=0, low=0, high=MOST)


def check(call: Call, result: Result) -> None:
    """Raise CniError if a limit, or what it relies on, is missing."""
    if not _is_set(call, limits_of(call), _addresses(call, result)):
        where = f"{call.ifname} of container {call.container_id}"
        raise CniError(INTERNAL, f"{where}: its quota in table {table.TABLE} is missing or incomplete")


def _set(
    call: Call, limits: "dict[str, int]", addresses: "list[Address]", *, restarts: bool = False
) -> None:
    """Give the container these limits, by kind, in bytes, and no others.

    The count goes on: from the kernel, else from the file.  `restarts`: it begins with 0.
    """
    with locks.nft(f"quota {call.owner}"):
        used = {} if restarts else _count_of(call.owner)
        messages = [] if _is_whole() else [*_declaration()]
        messages += _removal(addresses, call.owner)
        for kind, limit in limits.items():
            quota = Quota(_name(call.owner, kind), limit, min(used.get(kind, 0), limit), call.owner)
            messages.append(nft_quota.add(NAME, quota))
            messages += [
                nft_quota.add_element(NAME, f"quota-{kind}{address.version}", address, quota)
                for address in addresses
            ]
        nft.change(FAMILY, messages, f"set the quota of {call.owner}")
        _save(call.owner, {kind: used.get(kind, 0) for kind in limits})


def delete(call: Call, result: "Result | None") -> None:
    """Remove what this attachment has.  `result`: None if its addresses are not known.

    If a repair runs this, the next ADD continues to count.
    """
    _delete(call, result, keeps_count=call.request.is_repair)


def _delete(call: Call, result: "Result | None", *, keeps_count: bool) -> None:
    addresses = _addresses(call, result)
    with locks.nft(f"quota {call.owner}"):
        if keeps_count:
            _save(call.owner, _count_of(call.owner))
        if _CHAIN in table.chains():
            messages = _removal(addresses, call.owner)
            if not addresses:
                messages += _elements(lambda owner: owner == call.owner)
            _remove(messages)
        if not keeps_count:
            _forget(call.owner)


def gc(call: Call, keep: "set[str]") -> None:
    """Remove those of every owner on this network that is not in `keep`; save the counts of the others."""
    with locks.nft(f"gc {call.network}"):

        def is_stale(owner: str) -> bool:
            return owner.startswith(call.owner_prefix) and owner not in keep

        quotas = nft_quota.all_of(FAMILY, NAME)
        stale = [quota for quota in quotas if is_stale(quota.owner)]
        messages = _elements(is_stale) if quotas else []
        if stale or messages:
            _remove(messages + [nft_quota.delete(NAME, quota.name) for quota in stale])
        for owner in {quota.owner for quota in stale}:
            _forget(owner)
    save_counts()


def _removal(addresses: "list[Address]", owner: str) -> "list[Message]":
    """Return the messages that remove the elements of these addresses, and the quotas of the owner.

    An element of another owner is from an attachment that is gone, because this one has the address now.
    """
    messages = [
        nft.delete_element(NAME, f"quota-{kind}{address.version}", address)
        for address in addresses
        for kind in KINDS
        if nft.comment_of(FAMILY, NAME, f"quota-{kind}{address.version}", address) is not None
    ]
    names = [_name(owner, kind) for kind in KINDS]
    return messages + [nft_quota.delete(NAME, name) for name in names if nft_quota.find(FAMILY, NAME, name)]


def _elements(is_chosen: "Callable[[str], bool]") -> "list[Message]":
    """Return the messages that remove the elements of the chosen owners."""
    return [
        nft.delete_element(NAME, name, key)
        for name in MAPS
        for key, owner in nft.elements(FAMILY, NAME, name)
        if is_chosen(owner)
    ]


def _remove(messages: "list[Message]") -> None:
    """Remove elements and quotas, and then the chains and maps if no container has a quota."""
    messages.sort(key=lambda message: message[0])  # a quota can be deleted only after its elements
    if messages:
        nft.change(FAMILY, messages, "remove quotas")
    if not nft_quota.all_of(FAMILY, NAME):
        table.remove(table.chains(), [*_BASE_CHAINS, _CHAIN], [f"map {name}" for name in MAPS])


# Look


def _is_set(call: Call, limits: "dict[str, int]", addresses: "list[Address]") -> bool:
    """Return True if the container has these limits, and all that they rely on is complete."""
    present = {kind: nft_quota.find(FAMILY, NAME, _name(call.owner, kind)) for kind in limits}
    return (
        all(quota is not None and quota.limit == limits[kind] for kind, quota in present.items())
        and all(
            nft.comment_of(FAMILY, NAME, f"quota-{kind}{address.version}", address) == call.owner
            for kind in limits
            for address in addresses
        )
        and _is_whole()
    )


def usage() -> "dict[str, dict[str, Quota]]":
    """Return the quotas of all containers, by owner and kind."""
    by_owner: dict[str, dict[str, Quota]] = {}
    for quota in nft_quota.all_of(FAMILY, NAME):
        kind = quota.name.split("-")[1] if quota.name.count("-") == 2 else ""
        if kind in KINDS:
            by_owner.setdefault(quota.owner, {})[kind] = quota
    return by_owner


# The count, outside the kernel


def _count_of(owner: str) -> "dict[str, int]":
    """Return the bytes that were counted, by kind: the kernel's count, else the saved one.

    What was dropped because a quota was used up does not count for the next one.
    """
    counts = _load(owner)
    for kind in KINDS:
        quota = nft_quota.find(FAMILY, NAME, _name(owner, kind))
        if quota:
            counts[kind] = min(quota.used, quota.limit)
    return counts


def save_counts() -> None:
    """Save what was counted, in case that another program flushes the table."""
    with locks.nft("save quotas"):
        for owner, kinds in usage().items():
            _save(owner, {kind: min(quota.used, quota.limit) for kind, quota in kinds.items()})


def _save(owner: str, counts: "dict[str, int]") -> None:
    try:
        os.makedirs(FOLDER, 0o755, exist_ok=True)
        statefile.replace(f"{FOLDER}/{_digest(owner)}", fastjson.dumps({"owner": owner, **counts}).encode())
    except OSError:
        pass  # the kernel has the count


def _load(owner: str) -> "dict[str, int]":
    try:
        raw = fastjson.loads((statefile.read(f"{FOLDER}/{_digest(owner)}") or b"{}").decode())
    except (OSError, ValueError):
        return {}
    if not isinstance(raw, dict) or raw.get("owner") != owner:
        return {}
    return {kind: raw[kind] for kind in KINDS if type(raw.get(kind)) is int and raw[kind] >= 0}


def _forget(owner: str) -> None:
    try:
        os.unlink(f"{FOLDER}/{_digest(owner)}")
        os.rmdir(FOLDER)
    except OSError:
        pass  # it does not exist, or other containers have a quota
