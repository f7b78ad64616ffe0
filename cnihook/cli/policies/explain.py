# SPDX-License-Identifier: Apache-2.0
"""cnihook policy explain: say if a connection is allowed."""

import argparse

from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.log import warn
from cnihook.policy import change, matcher, store, target

DESCRIPTION = """\
Say if a container may open a connection (to), or accept one (from), and which rule decides.

PEER is an address, a DNS name, a container, or `host`, with :PORT[/PROTOCOL] of the destination, or :icmp
behind it.  Without a port it is ICMP.  For IPv6 with a port, write [ADDRESS]:PORT.  A DNS name is not looked
up; it is allowed if a rule lists it.
"""
EPILOG = """\
exit codes:
  0  allowed
  1  denied, or failed
  2  wrong usage
"""


def add_arguments(parser: Parser) -> None:
    parser.add_container()
    parser.add_argument("words", metavar="[to|from] PEER", nargs="+", help="the other end of the connection")
    parser.add_argument("--json", action="store_true", help="print a list of JSON objects")


def run(options: argparse.Namespace) -> int:
    way, *rest = options.words if len(options.words) > 1 else ["to", *options.words]
    if way not in ("to", "from") or len(rest) != 1:
        warn(
            "policy explain: PEER is one argument, after `to` or `from`; see `cnihook policy explain --help`"
        )
        return 2
    world = change.world()
    if way == "to":
        connections = target.connections(options.id, rest[0], world)
    else:
        host, _protocol, _port = target.split(rest[0])
        port = rest[0].removeprefix(f"[{host}]").removeprefix(host)
        connections = target.connections(host, f"{options.id}{port}", world)
    policies = store.load().all
    verdicts = [(one, matcher.decide(one, world, policies)) for one in connections]
    if options.json:
        arguments.print_json(
            [
                {
                    "from": str(one.source),
                    "to": one.to,
                    "protocol": one.protocol,
                    "port": one.port,
                    "allowed": verdict.is_allowed,
                    "audited": verdict.is_audited,
                    "reason": verdict.reason,
                }
                for one, verdict in verdicts
            ]
        )
    else:
        for one, verdict in verdicts:
            arguments.say(f"{one.source} -> {one}: {verdict}")
    return 0 if all(verdict.is_allowed for _one, verdict in verdicts) else 1
