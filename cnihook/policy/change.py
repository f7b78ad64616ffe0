# SPDX-License-Identifier: Apache-2.0
"""
A change of the host's policies: what it changes, if its tests pass, and which connections it denies.

Everything is computed and checked before anything is written.  Then the files are written, and the kernel
changes in one transaction.  If that fails, the files and the kernel are restored.
"""

import os
from functools import partial

from cnihook.fast import fastjson
from cnihook.fast.errors_text import message
from cnihook.linux import conntrack
from cnihook.linux.netns import NetNS
from cnihook.log import warn
from cnihook.policy import (
    bridges,
    endpoint,
    enforcement,
    kernel,
    kubernetes,
    matcher,
    peers,
    store,
    target,
)
from cnihook.policy.document import Policy, decode
from cnihook.policy.endpoint import World
from cnihook.policy.matcher import Connection
from cnihook.policy.store import Policies
from cnihook.runtime import records
from cnihook.types.config import json_name
from cnihook.types.errors import CniError, invalid_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from cnihook.linux.conntrack import Flow

    DeniedFlows = list[tuple[Flow, Connection]]

_PROTOCOLS = {1: "icmp", 58: "icmp", 6: "tcp", 17: "udp", 132: "sctp"}


class Change:
    """The policies before and after."""

    def __init__(self, new: "list[Policy]", removed: "Iterable[str]" = ()) -> None:
        self.before = store.load()
        for one in new:
            store.check_json(one.name)
        self.new = new
        self.removed = sorted(set(removed) - {one.name for one in new})
        self.after = self.before.replaced(new, set(self.removed))

    def lines(self) -> "list[str]":
        """Return a line for each policy that changes."""
        present = {one.name: one.raw for one in self.before.all}
        lines = []
        for one in self.new:
            if one.name not in present:
                lines.append(f"new policy {one.name}: {one.selection}")
            elif present[one.name] != one.raw:
                lines.append(f"changed policy {one.name}: {one.selection}")
        return [*lines, *(f"removed policy {name}" for name in self.removed if name in present)]

    def new_bridges(self) -> "list[str]":
        """Return the bridges whose traffic the host begins to see."""
        return sorted(enforcement.desired_now(self.after).bridges - bridges.marked(kernel.STATE))

    def apply(self) -> None:
        """Write the files, and change the kernel.  The caller holds the lock `policy`."""
        enforcement.desired_now(self.after)  # raises what would prevent it
        names = [*(one.name for one in self.new), *self.removed]
        try:
            for name in names:
                store.keep(name)
            self._put_in_force(names)
        finally:
            for name in names:
                store.discard(name)

    def _put_in_force(self, names: "list[str]") -> None:
        try:
            for one in self.new:
                store.save(one)
            for name in self.removed:
                store.delete(name)
            enforcement.sync_all(self.after)
        except BaseException:
            self._restore(names)
            raise

    def _restore(self, names: "list[str]") -> None:
        for name in names:
            store.restore(name)
        try:
            enforcement.sync_all(self.before)
        except (CniError, OSError) as error:
            warn(
                f"policy: the kernel may have the new policies; run `cnihook policy apply`: {message(error)}"
            )


def _endpoints() -> "list[endpoint.Endpoint]":
    return endpoint.of_records(records.all_records())


def world() -> World:
    """Return the attachments and the host's addresses as they are now."""
    host = NetNS.current()
    try:
        addresses = [one.net.address for one in host.rtnl.addresses()]
    finally:
        host.close()
    return World(_endpoints(), addresses)


# What is written


def read(path: str, text: bytes) -> "tuple[list[Policy], list[str]]":
    """Return the policies in a text, one or a list, of cnihook or of Kubernetes, and warnings."""
    value = decode(text, path)
    warnings: list[str] = []
    items = value if isinstance(value, list) else [value]
    if isinstance(value, dict) and value.get("kind") in ("NetworkPolicyList", "List"):
        listed = value.get("items")
        items = listed if isinstance(listed, list) else []
    policies = []
    for index, item in enumerate(items):
        where = path if len(items) == 1 else f"{path}: [{index}]"
        if not isinstance(item, dict):
            raise invalid_config(f"{where}: a policy is an object, not {json_name(item)}")
        if kubernetes.is_one(item):
            item = kubernetes.translated(item, where, warnings)
        policies.append(Policy(item, where))
    _refuse_twice(policies, path)
    return policies, warnings


def _refuse_twice(policies: "list[Policy]", path: str) -> None:
    names = [one.name for one in policies]
    for name in names:
        if names.count(name) > 1:
            raise invalid_config(f"{path}: has policy {name} more than once")


def read_folder(path: str) -> "tuple[list[Policy], list[str], set[str]]":
    """Return the policies in a folder, warnings, and the names of those that have left it."""
    path = os.path.abspath(path)
    policies: list[Policy] = []
    warnings: list[str] = []
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise invalid_config(message(error)) from None
    for name in names:
        if name.endswith(store.ENDINGS) and not name.startswith("."):
            file = f"{path}/{name}"
            more, others = read(file, store.content(file))
            policies += [Policy(one.raw | {"managedBy": path}, file) for one in more]
            warnings += others
    _refuse_twice(policies, path)
    managed = {one.name for one in store.load().all if one.raw.get("managedBy") == path}
    return policies, warnings, managed - {one.name for one in policies}


# Tests


def failures(policies: Policies, present: World) -> "list[str]":
    """Return a line for each test in the policies that fails."""
    lines = []
    for policy in policies.all:
        for number, test in enumerate(policy.tests):
            where = f"policy {policy.name}: tests[{number}]: from {test.source} to {test.to}"
            try:
                connections = target.connections(test.source, test.to, present)
            except CniError as error:
                lines.append(f"{where}: {error}")
                continue
            for one in connections:
                verdict = matcher.decide(one, present, policies.all)
                if verdict.is_allowed != (test.expect == "allow"):
                    lines.append(f"{where}: expected {test.expect}, but {one} is {verdict}")
                    break
    return lines


# Connections


def denied_flows(policies: Policies, present: World) -> "DeniedFlows":
    """Return the connections of containers that the policies deny, after translation of the destination."""
    addresses = frozenset(present.by_address)
    denied = []
    # One between two containers is listed for each of them.
    flows = {flow.identity: flow for flow in conntrack.of(addresses)} if addresses else {}
    if addresses and kernel.has_inside():
        from cnihook.policy import inside  # few networks need it

        for path, own in inside.in_each(lambda: conntrack.of(addresses)):
            for flow in own:
                same = flows.setdefault(flow.identity, flow)
                same.places = [path] if same is flow else [*same.places, path]
    for flow in flows.values():
        protocol = _PROTOCOLS.get(flow.protocol, str(flow.protocol))
        port = 0 if protocol == "icmp" else flow.answerer_port
        connection = Connection(flow.source, flow.answerer, protocol, port)
        if flow.is_established and not matcher.decide(connection, present, policies.all).is_allowed:
            denied.append((flow, connection))
    return denied


def differences(policies: Policies) -> "list[tuple[str, str]]":
    """Return (container ID, text) for each container whose policies are not in force."""
    desired = enforcement.desired_now(policies)
    for problem in desired.unreadable:
        raise problem
    lines = kernel.differences(desired)
    if desired.inside() or kernel.has_inside():
        from cnihook.policy import inside  # few networks need it

        lines += inside.differences(desired)
    return lines


def lines_of(differences: "list[tuple[str, str]]") -> "list[str]":
    return [f"container {each}: {text}" if each else text for each, text in differences]


def with_lists(
    own: "dict[str, Any]", lists: "dict[str, str]", servers: "list[str] | None" = None
) -> "dict[str, Any]":
    """Return the part of a record that is for policies with other lists, such as {"egress": "dns,host:80"}.

    `own`: that part as it is.  `all` removes a list.  `servers`: the addresses that `dns` means.  When the
    record is written, enforcement.sync_all() puts it in force.  Raises CniError for a malformed list.
    """
    for direction, text in lists.items():
        peers.parse_short(text, direction)
    changed = {**own, **lists, **({"dns": servers} if servers else {})}
    return {key: value for key, value in changed.items() if value != "all"}


def denied_text(denied: "DeniedFlows", policies: Policies, present: World, *, is_cut: bool) -> str:
    count = len(denied)
    number = "1 established connection is" if count == 1 else f"{count} established connections are"
    if not is_cut:
        return f"{number} denied from now on, and kept; --cut ends them"
    open_again = sum(_may_go_on(flow, connection, policies, present) for flow, connection in denied)
    more = f"; {open_again} can go on, because the other end may open it" if open_again else ""
    return f"{number} denied from now on, and ended{more}"


def _may_go_on(flow: "Flow", connection: Connection, policies: Policies, present: World) -> bool:
    """Return True if the next packet of the other end can make a connection known again."""
    if flow.is_masqueraded:
        return False
    port = 0 if connection.protocol == "icmp" else flow.source_port
    back = Connection(flow.answerer, flow.source, connection.protocol, port)
    return matcher.decide(back, present, policies.all).is_allowed


def cut(flows: "Iterable[Flow]") -> None:
    for flow in flows:
        for path in flow.places:
            if path:
                from cnihook.policy import inside  # few networks need it

                inside.within(path, partial(conntrack.delete, flow))
            else:
                conntrack.delete(flow)


def as_text(policy: Policy) -> str:
    return fastjson.dumps(policy.raw, indent=2)
