# SPDX-License-Identifier: Apache-2.0
"""
The state of the kernel for all policies: what it must be, and the transactions that make it so.

sync() compares everything with the records, for `policy apply`, `repair` and GC, and for a start that finds
something missing.  A start or an end of a container changes its own elements only: one for each map,
whatever the number of containers.

    /run/cnihook/policy/member-83d2  a selector whose members are in sets
    /run/cnihook/policy/bridge-cni0  a bridge with guarded ports
    /run/cnihook/policy/host         the host has rules of policies
    /run/cnihook/policy/inside-c1    so has the namespace of a container: see policy.inside
"""

import errno
import os

from cnihook.fast import statefile
from cnihook.linux import nft, nft_objects
from cnihook.nftables.table import FAMILY, NAME
from cnihook.policy import bridges, guard, rules
from cnihook.policy.desired import Desired, changes
from cnihook.policy.rules import VERSIONS, Compiled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnihook.linux.nft_objects import Message
    from cnihook.policy.desired import Elements
    from cnihook.policy.endpoint import Endpoint

STATE = "/run/cnihook/policy"
INSIDE = "inside-"  # begins the name of a file there, for a container


def is_active() -> bool:
    """Return True if the host has rules of policies."""
    try:
        names = os.listdir(STATE)
    except FileNotFoundError:
        return False
    # An earlier version wrote no file for the host.
    return not all(name.startswith(INSIDE) for name in names) or not names


def has_inside() -> bool:
    """Return True if the namespace of a container has rules of policies: see policy.inside."""
    try:
        return any(name.startswith(INSIDE) for name in os.listdir(STATE))
    except FileNotFoundError:
        return False


# All at once


def sync(desired: Desired) -> None:
    """Make the kernel's state the desired one.  The caller holds the locks `policy` and `nft`."""
    if desired.is_empty:
        remove_all(desired.endpoints)
        return
    bridges.check(desired)
    before = bridges.marked(STATE)
    if desired.kept != set():
        desired.bridges |= before  # one may be of a container that is being attached
    _write_state(desired.selectors)
    messages: list[Message] = []
    present = nft.chains(FAMILY, NAME)
    is_whole = _is_whole(present)
    if not is_whole:
        messages += declaration()
    elements = desired.elements()
    own = [compiled for compiled in desired.compiled.values() if not _has(compiled, present)]
    for selector in sorted(desired.selectors):
        messages += rules.member_sets(NAME, selector)
    for compiled in own:
        # Left half-way by another program; no element can lead to it.
        messages += _removal_of_rest(compiled, present)
        messages += compiled.declaration(NAME)
    messages += changes(NAME, elements, present_elements(desired.selectors), desired)
    if messages:
        nft.change(FAMILY, messages, "put policies in force")
    bridges.sync(desired, before, STATE)
    _remove_unused({one.digest for one in desired.compiled.values()}, desired)


def differences(desired: Desired) -> "list[tuple[str, str]]":
    """Return (container ID, text) for each container whose rules in the kernel are not the desired ones.

    The ID is empty for what concerns all.
    """
    if desired.is_empty:
        return [("", "policies that no container has any more are in the kernel")] if is_active() else []
    present = nft.chains(FAMILY, NAME)
    if not _is_whole(present):
        return [("", "the rules that all policies share are missing: another program has removed them")]
    elements, actual = desired.elements(), present_elements(desired.selectors)
    lines = []
    for endpoint in desired.endpoints:
        if endpoint.is_inside:
            continue
        own = {key: value for key, value in elements.items() if value[0] == endpoint.owner}
        has_chains = all(_has(one, present) for one in desired.sides[endpoint.owner])
        missing = [key for key, value in own.items() if actual.get(key) != value]
        is_guarded = endpoint.bridge not in desired.bridges or endpoint.reason or bridges.has(endpoint)
        if missing or not has_chains or not is_guarded:
            where = f"{endpoint.network} {endpoint.ifname}"
            text = f"{where}: its policies are not in force as they should be"
            lines.append((endpoint.container_id, text))
    owners = {endpoint.owner for endpoint in desired.endpoints}
    others = {owner for owner, _chain in actual.values() if owner not in owners and not desired.keeps(owner)}
    return [
        *lines,
        *(("", f"policies of {owner}, which is gone, are in the kernel") for owner in sorted(others)),
    ]


def declaration() -> "list[Message]":
    return [nft_objects.table(NAME), *rules.base(NAME), *guard.inet_base(NAME)]


def _base_rules() -> "dict[str, int]":
    chains = {**rules.base_chains(), **guard.inet_chains()}
    return {name: len(content) for name, content in chains.items()}


def _is_whole(present: "dict[str, int]") -> bool:
    """Return True if the shared chains have all of their rules: a flush leaves the chains, and no rule."""
    return all(
        name in present and len(nft.rules(FAMILY, NAME, name)) == count
        for name, count in _base_rules().items()
    )


def _has(compiled: Compiled, present: "dict[str, int]") -> bool:
    return all(
        name in present and len(nft.rules(FAMILY, NAME, name)) == len(content)
        for name, content in compiled.chains.items()
    )


def is_ready(compiled: "Iterable[Compiled]") -> bool:
    """Return True if the chains that these policies need are in the kernel, by their use counts.

    One request, whatever the number of containers.  A chain with fewer uses than rules has lost some.
    """
    present = nft.chains(FAMILY, NAME)
    chains = _base_rules()
    for one in compiled:
        chains.update((name, len(content)) for name, content in one.chains.items())
    return all(present.get(name, -1) >= count for name, count in chains.items())


def _removal_of_rest(compiled: Compiled, present: "dict[str, int]") -> "Iterable[Message]":
    for name in compiled.chains:
        if name in present:
            yield nft_objects.flush(NAME, name)


def _containers(selectors: "Iterable[str]") -> "list[str]":
    names = [f"{name}{version}" for name in rules.MAPS for version in VERSIONS]
    names += [guard.LINKS, *(guard.senders(version) for version in VERSIONS)]
    return names + [rules.member_set(one, version) for one in selectors for version in VERSIONS]


def present_elements(selectors: "Iterable[str]") -> "Elements":
    """Return the elements that there are, each with its owner; the chain is not known."""
    return {
        (name, key): (owner, chain)
        for name in _containers(selectors)
        for key, owner, chain in nft.jumps(FAMILY, NAME, name)
    }


def _remove_unused(digests: "set[str]", desired: Desired) -> None:
    """Remove the chains and sets of effective policies that no container has, and sets of selectors."""
    if desired.kept != set():
        return  # what is needed for the others is not known
    present = nft.chains(FAMILY, NAME)
    chains = [name for name in present if (digest := digest_of(name)) and digest not in digests]
    sets = [name for name in nft.sets(FAMILY, NAME) if (digest := digest_of(name)) and digest not in digests]
    unused = [(name, selector) for name, selector in _members() if selector not in desired.selectors]
    sets += [rules.member_set(selector, version) for _name, selector in unused for version in VERSIONS]
    remove(chains, sets)
    for name, _selector in unused:
        os.unlink(f"{STATE}/{name}")


def digest_of(name: str) -> str:
    """Return the digest in the name of a chain or a set of an effective policy; empty for another name."""
    parts = name.replace(".", "-").split("-")
    if len(parts) < 3 or parts[0] != "policy" or parts[1] not in ("out", "host", "in"):
        return ""
    return parts[2]


def remove(chains: "list[str]", sets: "list[str]") -> None:
    """Remove chains of policies and sets to which only these refer."""
    messages = [nft_objects.flush(NAME, name) for name in chains]
    messages += [nft_objects.delete_chain(NAME, name) for name in chains]
    messages += [nft_objects.delete_set(NAME, name) for name in sets]
    if messages:
        nft.change(FAMILY, messages, "remove a policy that no container has")


def remove_all(endpoints: "Iterable[Endpoint]" = ()) -> None:
    """Remove everything of policies from the kernel.  `endpoints`: the containers that stay."""
    present = nft.chains(FAMILY, NAME)
    own = [name for name in present if name.startswith(rules.PREFIX)]
    sets = [name for name in nft.sets(FAMILY, NAME) if name.startswith(rules.PREFIX)]
    messages = [nft_objects.flush(NAME, name) for name in own]
    # A map refers to chains by its elements.
    messages += [nft_objects.delete_set(NAME, name) for name in sets if name.startswith(rules.MAPS)]
    messages += [nft_objects.delete_chain(NAME, name) for name in own]
    messages += [nft_objects.delete_set(NAME, name) for name in sets if not name.startswith(rules.MAPS)]
    if own and len(own) == len(present):
        messages = [nft_objects.delete_table(NAME)]
    if messages:
        nft.change(FAMILY, messages, "remove all policies")
    bridges.remove_all(STATE, endpoints)
    remaining = os.listdir(STATE) if os.path.isdir(STATE) else []
    for name in remaining:
        if not name.startswith(INSIDE):
            os.unlink(f"{STATE}/{name}")
    remove_folder()


def remove_folder() -> None:
    """Remove the folder of the state if nothing is in force any more."""
    try:
        os.rmdir(STATE)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
            raise


# State


def _write_state(selectors: "Iterable[str]") -> None:
    os.makedirs(STATE, mode=0o700, exist_ok=True)
    if not os.path.exists(f"{STATE}/host"):
        os.close(statefile.create(f"{STATE}/host"))
    for selector in selectors:
        path = f"{STATE}/{rules.member_set(selector, 4).removeprefix(rules.PREFIX)}"
        if not os.path.exists(path):
            with open(statefile.create(path), "wb") as file:
                file.write(selector.encode())


def _members() -> "list[tuple[str, str]]":
    """Return (file, selector) of the selectors whose members are in sets."""
    try:
        names = sorted(os.listdir(STATE))
    except FileNotFoundError:
        return []
    contents = [(name, statefile.read(f"{STATE}/{name}")) for name in names if name.startswith("member-")]
    return [(name, (content or b"").decode(errors="replace")) for name, content in contents]


def selectors_in_use() -> "list[str]":
    return [selector for _name, selector in _members()]
