# SPDX-License-Identifier: Apache-2.0
"""The lists of a container that runs: which connections it may open (`egress`) and accept (`ingress`)."""

from cnihook.fast.undo import Undo
from cnihook.log import notice
from cnihook.names import host_servers, resolv_conf
from cnihook.policy import change, enforcement, store
from cnihook.protocol import locks
from cnihook.runtime import attachment, update
from cnihook.runtime.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ALL = "all"  # as a list: no limit


def of(record: Record) -> "dict[str, str]":
    """Return the lists of an attachment by direction."""
    own = record.extra.get("policy") or {}
    return {direction: own.get(direction) or ALL for direction in ("egress", "ingress")}


def differing(attachments: "list[Record]", lists: "dict[str, str]") -> "list[tuple[Record, str, str]]":
    """Return (record, direction, list) of each list that is new.  Raises CniError for a malformed one.

    Loopback is left out, because no list limits it.
    """
    change.with_lists({}, lists)
    return [
        (record, direction, text)
        for record in attachments
        for direction, text in lists.items()
        if of(record)[direction] != text and not attachment.network_of(record).is_loopback
    ]


def carry_out(attachments: "list[Record]", lists: "dict[str, str]", *, cuts: bool) -> None:
    """Write the lists into the records and put them in force, or neither.

    `cuts`: the connections that they deny are ended.  The caller holds the container's lock.  If the process
    is killed in between, the records count: `check` and `doctor` report it, and `repair` goes on.
    """
    with Undo() as undo:
        undo.push(_put_in_force)  # after all records are as before
        for record in attachments:
            own = record.extra.get("policy")
            undo.push(update.set_key, record, "policy", own)
            update.set_key(record, "policy", change.with_lists(own or {}, lists, _servers(record, own)))
        _put_in_force()
        _end_denied(attachments, cuts=cuts)


def _put_in_force() -> None:
    with locks.policy("change of a container's lists"):
        enforcement.sync_all()


def _servers(record: Record, own: "dict[str, Any] | None") -> "list[str]":
    """Return the servers that `dns` means if the record has none: those of the container's resolv.conf."""
    if own and own.get("dns"):
        return []
    text, _is_link = host_servers.read(host_servers.process_of(record))
    return resolv_conf.servers_of(text or "")


def _end_denied(attachments: "list[Record]", *, cuts: bool) -> None:
    """End the connections of the container that its policies deny, or report how many there are."""
    own = {record.container_id for record in attachments}
    world = change.world()
    denied = [
        (flow, connection)
        for flow, connection in change.denied_flows(store.load(), world)
        if any(
            (endpoint := world.by_address.get(address)) and endpoint.container_id in own
            for address in (connection.source, connection.destination)
        )
    ]
    if denied:
        notice(change.denied_text(len(denied), is_cut=cuts))
    if cuts:
        change.cut(flow for flow, _connection in denied)
