# SPDX-License-Identifier: Apache-2.0
"""The lists of a container that runs: which connections it may open (`egress`) and accept (`ingress`)."""

from cnihook.log import notice
from cnihook.policy import change, enforcement, store
from cnihook.protocol import locks
from cnihook.runtime.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ALL = "all"  # as a list: no limit


def of(own: "dict[str, Any]") -> "dict[str, str]":
    """Return the lists by direction.  `own`: the part of a record that is for policies."""
    return {direction: own.get(direction) or ALL for direction in ("egress", "ingress")}


def replaced(
    own: "dict[str, Any]", lists: "dict[str, str]", servers: "list[str]", own_servers: "list[str]"
) -> "dict[str, Any]":
    """Return the part of a record that is for policies, with other lists.

    `servers`: those in the container's resolv.conf, which `dns` means if the record has none.
    `own_servers`: those that are not the host's; the resolver asks them.
    """
    usual = {"servers": own_servers} if own_servers else {}
    return change.with_lists({**usual, **own}, lists, [] if own.get("dns") else servers)


def put_in_force() -> None:
    """Put the lists on record in force, for all containers.

    If the process is killed before, the records count: `check` and `doctor` report it, and `repair` goes on.
    """
    with locks.policy("change of a container's lists"):
        enforcement.sync_all()


def end_denied(attachments: "list[Record]", *, cuts: bool) -> None:
    """End the connections of the container that its policies deny, or report how many there are."""
    own = {record.container_id for record in attachments}
    world, policies = change.world(), store.load()
    denied = [
        (flow, connection)
        for flow, connection in change.denied_flows(policies, world)
        if any(
            (endpoint := world.by_address.get(address)) and endpoint.container_id in own
            for address in (connection.source, connection.destination)
        )
    ]
    if denied:
        notice(change.denied_text(denied, policies, world, is_cut=cuts))
    if cuts:
        change.cut(flow for flow, _connection in denied)
