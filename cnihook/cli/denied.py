# SPDX-License-Identifier: Apache-2.0
"""cnihook denied: list the connections that policies denied."""

import sys
import time

from cnihook.cli.policies import since
from cnihook.cli.shared import arguments, listing, table, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.table import Cell, Column
from cnihook.policy import change, denied, store, target
from cnihook.policy.denied import Denied, DeniedName

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cnihook.policy.endpoint import World
    from cnihook.policy.store import Policies

DESCRIPTION = """\
List the connections that policies denied, or recorded in the mode audit: which container, to or from where,
how many packets, and how long ago the last one was.
"""
EPILOG = """\
The kernel holds the record: of 24 hours, and of the last 4096 connections of each direction and IP version.
A name that no rule lists has the port "dns", and as packets the number of lookups; 256 of each container are
kept, until its end.
"""
_PAUSE = 0.5  # seconds between two reads of --follow
_COLUMNS = (
    Column("CONTAINER", low=9),
    Column("DIRECTION"),
    Column("PEER", low=15),
    Column("PORT"),
    Column("PACKETS", right=True),
    Column("LAST", right=True),
    Column("MODE"),
)


def parser() -> Parser:
    parser = Parser("denied", DESCRIPTION, EPILOG)
    parser.add_container(nargs="?", default="all")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="print a line for each that is denied from now on"
    )
    since.add(parser, "10m")
    parser.add_argument(
        "--json", action="store_true", help="print a list of JSON objects; with -f, an object per line"
    )
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)

    def work() -> None:
        chosen = set(target.endpoints(options.id, change.world())) if options.id else None
        own = {address for one in chosen for address in one.addresses} if chosen is not None else None

        def entries() -> "list[Denied | DeniedName]":
            every: list[Denied | DeniedName] = [*denied.load(), *denied.names()]
            mine = [one for one in every if own is None or one.own in own]
            return sorted(mine, key=lambda one: one.age)

        if options.follow:
            _follow(entries, options.json)
        else:
            _list([one for one in entries() if one.age <= options.since], as_json=options.json)

    return arguments.work("denied", work)


def _list(entries: "list[Denied | DeniedName]", *, as_json: bool) -> None:
    world, policies = change.world(), store.load()
    fields = [_fields(one, world, policies) for one in entries]
    if as_json:
        arguments.print_json(fields)
        return
    if not fields:
        terminal.remark("nothing was denied")
        return
    table.show(_COLUMNS, [_row(one) for one in fields])


def _row(one: "dict[str, Any]") -> "list[Cell]":
    port = one["protocol"] if not one["port"] else f"{one['port']}/{one['protocol']}"
    texts = [one["container"] or "-", one["direction"], one["peer"], port]
    texts += [str(one["packets"]), listing.span(one["age"]), one["mode"]]
    return [Cell(text) for text in texts]


def _fields(one: "Denied | DeniedName", world: "World", policies: "Policies") -> "dict[str, Any]":
    endpoint = world.by_address.get(one.own)
    if isinstance(one, DeniedName):
        text, name = one.name, one.name
    else:
        peer = world.by_address.get(one.peer)
        text = str(one.peer)
        name = "host" if world.is_host(one.peer) else peer.container_id if peer else ""
    return {
        "container": endpoint.container_id if endpoint else None,
        "direction": one.direction,
        "address": str(one.own),
        "peer": text,
        "peer_name": name or None,
        "protocol": one.protocol,
        "port": one.port,
        "packets": one.packets,
        "age": round(one.age, 3),
        "mode": "audit" if denied.is_audited(one, world, policies) else "enforce",
    }


def _follow(entries: "Any", as_json: bool) -> None:
    before = {one.key: one.packets for one in entries()}
    while True:
        time.sleep(_PAUSE)
        present = entries()
        changed = [one for one in reversed(present) if one.packets > before.get(one.key, 0)]
        if changed:
            world, policies = change.world(), store.load()
            for one in changed:
                fields = _fields(one, world, policies)
                if as_json:
                    arguments.say(arguments.as_json(fields, None))
                else:
                    arguments.say("  ".join(cell.text for cell in _row(fields)))
            sys.stdout.flush()  # into a pipe, too
        before = {one.key: one.packets for one in present}
