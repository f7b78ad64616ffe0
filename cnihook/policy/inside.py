# SPDX-License-Identifier: Apache-2.0
"""
Policies in the namespaces of containers whose packets the host does not route, such as those of macvlan.

    /run/cnihook/policy/inside-c1   {"netns": path, "id": [device, inode], "selectors": [...]}

A namespace with rules ends with its container, and its rules with it.  A change replaces all rules of one in
a transaction, except the record of what was denied.  If its policies have selectors, a start or an end of
another container that they select changes the addresses there, too.
"""

import os

from cnihook.fast import fastjson, statefile
from cnihook.linux import nft, nft_objects
from cnihook.linux.netlink import OtherNetfilter
from cnihook.linux.netns import NetNS
from cnihook.nftables.table import FAMILY, NAME
from cnihook.policy import inside_rules, rules
from cnihook.policy.endpoint import OF_ALL
from cnihook.policy.inside_rules import TABLE_FAMILY
from cnihook.policy.kernel import INSIDE, STATE, remove_folder
from cnihook.policy.rules import VERSIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeVar

    from cnihook.linux.nft_objects import Message
    from cnihook.policy.desired import Desired, Elements
    from cnihook.policy.endpoint import Endpoint
    from cnihook.policy.rules import Compiled

    T = TypeVar("T")


class Inside:
    """The rules that one namespace must have."""

    def __init__(
        self, own: "list[tuple[Endpoint, list[Compiled]]]", every: "Iterable[Endpoint]", host: "list[bytes]"
    ) -> None:
        """Compute them.  `every`: all containers.  `host`: the addresses of the host."""
        self._own = own
        sides_of_all = [each for _one, sides in own for each in sides]
        self._compiled = {f"{each.side.direction} {each.digest}": each for each in sides_of_all}
        self.selectors = sorted({name for each in self._compiled.values() for name in each.selectors})
        self._sets = [inside_rules.LINKS, inside_rules.CLOSED]
        for version in VERSIONS:
            self._sets += [inside_rules.receivers(version)]
            self._sets += [f"{name}{version}" for name in rules.MAPS]
            self._sets += [rules.member_set(selector, version) for selector in self.selectors]
        self._elements: Elements = {}
        self._senders: Elements = {}
        for endpoint, sides in own:
            self._add_own(endpoint, sides)
        # Not compared by is_in_force(), because the host may get and lose addresses at any time.
        self._hosts: Elements = {
            (inside_rules.hosts(4 if len(address) == 4 else 6), address): ("", "") for address in host
        }
        for endpoint in every:
            for selector in self.selectors:
                if not endpoint.reason and (selector == OF_ALL or endpoint.matches(selector)):
                    for address in endpoint.addresses:
                        name = rules.member_set(selector, address.version)
                        self._elements[name, address] = endpoint.owner, ""

    def _add_own(self, endpoint: "Endpoint", sides: "list[Compiled]") -> None:
        link = nft_objects.interface(endpoint.ifname)
        self._elements[inside_rules.LINKS, link] = endpoint.owner, ""
        if any(each.side.direction == "ingress" for each in sides):
            self._elements[inside_rules.CLOSED, link] = endpoint.owner, ""
        for address in endpoint.addresses:
            self._elements[inside_rules.receivers(address.version), link + address] = endpoint.owner, ""
            self._senders[inside_rules.senders(address.version), link + address] = endpoint.owner, ""
            for each in sides:
                for name, chain in each.jumps().items():
                    self._elements[f"{name}{address.version}", address] = endpoint.owner, chain

    @property
    def _links(self) -> "list[str]":
        return [endpoint.ifname for endpoint, _sides in self._own]

    def _chains(self) -> "dict[str, int]":
        chains = {name: len(content) for name, content in inside_rules.chains().items()}
        for each in self._compiled.values():
            chains |= {name: len(content) for name, content in each.chains.items()}
        return chains

    def is_in_force(self) -> bool:
        """Compare the namespace that this process is in."""
        guards = {name: len(content) for name, content in inside_rules.guard_chains().items()}
        links = inside_rules.link_chains(self._links)
        guards |= dict.fromkeys(links, 1)
        return (
            # Some kernels keep the chain of a link that is gone, and then it is called for no link.
            nft.chain_devices(TABLE_FAMILY, NAME) == links
            and _counted(FAMILY) == self._chains()
            and _counted(TABLE_FAMILY) == guards
            and _present(FAMILY, self._sets) == self._elements
            and _present(TABLE_FAMILY, map(inside_rules.senders, VERSIONS)) == self._senders
        )

    def put_in_force(self) -> None:
        """Change the namespace that this process is in."""
        if self.is_in_force() and _present(FAMILY, map(inside_rules.hosts, VERSIONS)) == self._hosts:
            return
        owner = self._own[0][0].owner
        # First the table that knows no connection: with it alone, no packet of another address leaves.
        messages = [nft_objects.delete_table(NAME)] if nft.chains(TABLE_FAMILY, NAME) else []
        messages += inside_rules.guard_declaration(NAME, self._links)
        messages += [nft.add_element(NAME, *key, value[0]) for key, value in self._senders.items()]
        nft.change(TABLE_FAMILY, messages, f"guard the links of {owner} in its namespace")
        nets = [net for endpoint, _sides in self._own for net in endpoint.nets if net.address.version == 6]
        messages = [*_removal(), *inside_rules.declaration(NAME, nets)]
        for selector in self.selectors:
            messages += rules.member_sets(NAME, selector)
        for each in self._compiled.values():
            messages += each.declaration(NAME)
        messages += [
            nft.add_element(NAME, *key, owner, jump=chain)
            for key, (owner, chain) in (*self._elements.items(), *self._hosts.items())
        ]
        nft.change(FAMILY, messages, f"put policies in force in the namespace of {owner}")


def _counted(family: str) -> "dict[str, int]":
    """Return the number of rules of each chain."""
    return {name: len(nft.rules(family, NAME, name)) for name in nft.chains(family, NAME)}


def _present(family: str, names: "Iterable[str]") -> "Elements":
    return {
        (name, key): (owner, chain) for name in names for key, owner, chain in nft.jumps(family, NAME, name)
    }


def _removal() -> "list[Message]":
    """Return the messages that remove everything but the record of what was denied."""
    chains = nft.chains(FAMILY, NAME)
    sets = [name for name in nft.sets(FAMILY, NAME) if not name.startswith("policy-denied-")]
    maps = [name for name in sets if name.startswith(rules.MAPS)]  # refer to chains by their elements
    return [
        *(nft_objects.flush(NAME, name) for name in chains),
        *(nft_objects.delete_set(NAME, name) for name in maps),
        *(nft_objects.delete_chain(NAME, name) for name in chains),
        *(nft_objects.delete_set(NAME, name) for name in sets if name not in maps),
    ]


def _remove() -> None:
    for family in (FAMILY, TABLE_FAMILY):
        if nft.chains(family, NAME):
            nft.change(family, [nft_objects.delete_table(NAME)], "remove the policies of a container")


# Namespaces


def _within(space: NetNS, work: "Callable[[], T]") -> "T":
    """Return what `work` returns in a namespace."""
    with space.entered(), OtherNetfilter():
        return work()


def _opened(endpoint: "Endpoint") -> "NetNS | None":
    """Open the namespace of a container; None if it is gone, or its path leads to another one."""
    space = NetNS.find(endpoint.netns) if endpoint.netns else None
    if space and endpoint.process and endpoint.process.netns_id != space.identity:
        space.close()
        return None
    return space


def _namespaces(desired: "Desired") -> "list[tuple[NetNS, list[Endpoint]]]":
    """Return the namespaces that have rules or need them, each with its endpoints.  Close each."""
    marked, needing = set(_files()), {one.owner for one in desired.inside()}
    by_identity: dict[tuple[int, int], tuple[NetNS, list[Endpoint]]] = {}
    for endpoint in desired.endpoints:
        if not endpoint.is_inside or not (endpoint.owner in needing or _file(endpoint) in marked):
            continue
        space = _opened(endpoint)
        if space is None:
            continue
        if space.identity in by_identity:
            by_identity[space.identity][1].append(endpoint)
            space.close()
        else:
            by_identity[space.identity] = space, [endpoint]
    return list(by_identity.values())


def _of(desired: "Desired", endpoints: "list[Endpoint]", host: "list[bytes]") -> "Inside | None":
    own = [(one, desired.sides[one.owner]) for one in endpoints if desired.sides[one.owner]]
    return Inside(own, desired.endpoints, host) if own else None


def _host_addresses() -> "list[bytes]":
    host = NetNS.current()
    try:
        every = {one.net.address for one in host.rtnl.addresses()}
        return sorted(one for one in every if not (one.is_loopback or one.is_link_local))
    finally:
        host.close()


# All at once


def sync(desired: "Desired", own: "Endpoint | None" = None) -> None:
    """Make the state of all namespaces the desired one.  The caller holds the lock `policy`.

    That of a container that is being attached stays as it is, unless `own` is of it.
    """
    host = _host_addresses()
    kept = None if desired.kept is None else {owner.split()[1] for owner in desired.kept}
    own_file = _file(own) if own else ""
    files = set()
    for space, endpoints in _namespaces(desired):
        try:
            names = {_file(one) for one in endpoints}
            is_kept = kept is not None and any(name.removeprefix(INSIDE) in kept for name in names)
            if is_kept and own_file not in names:
                files |= names
            elif inside := _of(desired, endpoints, host):
                for one in endpoints:
                    _write(one, space, inside.selectors)
                _within(space, inside.put_in_force)
                files |= names
            else:
                _within(space, _remove)
        finally:
            space.close()
    for name in _files():
        if name not in files and kept is not None and name.removeprefix(INSIDE) not in kept:
            os.unlink(f"{STATE}/{name}")
    remove_folder()


def differences(desired: "Desired") -> "list[tuple[str, str]]":
    """Return (container ID, text) for each container whose namespace does not have the desired rules."""
    host = _host_addresses()
    lines = []
    for space, endpoints in _namespaces(desired):
        try:
            inside = _of(desired, endpoints, host)
            if inside and not _within(space, inside.is_in_force):
                lines += [
                    (
                        one.container_id,
                        f"{one.network} {one.ifname}: its policies are not in force as they should be, "
                        "in its namespace",
                    )
                    for one in endpoints
                ]
        finally:
            space.close()
    return lines


# One container


def admit(own: "Endpoint", sides: "list[Compiled]", desired: "Callable[[], Desired]") -> None:
    """Put the policies of an attachment in force, and make it known to those that select it.

    `desired` is called if others are concerned.
    """
    is_selected = any(_selects(one, own) for one in _contents())
    space = _opened(own) if sides else None
    try:
        if is_selected or (space and (any(one.selectors for one in sides) or _within(space, _is_used))):
            sync(desired(), own)
        elif space:
            inside = Inside([(own, sides)], [], _host_addresses())
            _write(own, space, [])
            _within(space, inside.put_in_force)
    finally:
        if space:
            space.close()


def release(own: "Endpoint", desired: "Callable[[], Desired]") -> None:
    """Remove the policies of an attachment that ends, and its addresses from those that select it."""
    if any(_selects(one, own) for one in _contents() if one["file"] != _file(own)):
        sync(desired())
        return
    if _file(own) not in _files():
        return
    if not (own.process and own.process.pid and not own.process.is_alive()):  # else they end with it
        space = _opened(own)
        try:
            owners = _within(space, _owners) if space else set()
            if owners - {own.owner}:
                sync(desired(), own)
                return
            if space:
                _within(space, _remove)
        finally:
            if space:
                space.close()
    os.unlink(f"{STATE}/{_file(own)}")
    remove_folder()


def _is_used() -> bool:
    return bool(nft.chains(FAMILY, NAME))


def _owners() -> "set[str]":
    return {owner for _key, owner in nft.elements(FAMILY, NAME, inside_rules.LINKS)}


def within(path: str, work: "Callable[[], object]") -> None:
    """Call `work` in the namespace at a path, unless it is gone."""
    if space := NetNS.find(path):
        try:
            _within(space, work)
        finally:
            space.close()


def in_each(work: "Callable[[], T]") -> "list[tuple[str, T]]":
    """Return (path, what `work` returns there) of each namespace with policies."""
    results: dict[tuple[int, int], tuple[str, T]] = {}
    for one in _contents():
        space = NetNS.find(one["netns"])
        if space is None:
            continue
        try:
            if space.identity == tuple(one["id"]) and space.identity not in results:
                results[space.identity] = one["netns"], _within(space, work)
        finally:
            space.close()
    return list(results.values())


# State


def _file(endpoint: "Endpoint") -> str:
    return f"{INSIDE}{endpoint.owner.split()[1]}"


def _files() -> "list[str]":
    try:
        return [name for name in os.listdir(STATE) if name.startswith(INSIDE)]
    except FileNotFoundError:
        return []


def _contents() -> "list[dict[str, Any]]":
    """Return what the files have; one that is damaged selects nothing and is replaced by `policy apply`."""
    contents = []
    for name in _files():
        try:
            raw = fastjson.loads((statefile.read(f"{STATE}/{name}") or b"").decode())
            contents.append({"file": name, **{key: raw[key] for key in ("netns", "id", "selectors")}})
        except (ValueError, KeyError, TypeError):
            continue
    return contents


def _selects(content: "dict[str, Any]", endpoint: "Endpoint") -> bool:
    return not endpoint.reason and any(
        selector == OF_ALL or endpoint.matches(selector) for selector in content["selectors"]
    )


def _write(endpoint: "Endpoint", space: NetNS, selectors: "list[str]") -> None:
    os.makedirs(STATE, mode=0o700, exist_ok=True)
    content = {"netns": endpoint.netns, "id": list(space.identity), "selectors": selectors}
    statefile.replace(f"{STATE}/{_file(endpoint)}", fastjson.dumps(content).encode())
