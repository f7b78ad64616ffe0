# SPDX-License-Identifier: Apache-2.0
"""cnihook policy learn: write a policy of what was denied or audited."""

import argparse

from cnihook.cli.policies import since
from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.log import warn
from cnihook.policy import change, denied, target
from cnihook.types.errors import INVALID_CONFIG, CniError

DESCRIPTION = """\
Print a policy that allows a container what the kernel has on record for it: with a policy in the mode audit,
all that it did and no rule allows; in the mode enforce, all that was denied.  Read it before you apply it.
"""
EPILOG = """\
The record holds 24 hours, and the last 4096 connections of each direction.
"""


def add_arguments(parser: Parser) -> None:
    parser.add_container()
    since.add(parser, "1h")


def run(options: argparse.Namespace) -> int:
    world = change.world()
    endpoints = target.endpoints(options.id, world)
    own = {address for one in endpoints for address in one.addresses}
    entries = [one for one in denied.load() if one.age <= options.since and one.own in own]
    for one in entries:
        if not one.ports:
            # Without ports, a rule would allow every protocol.
            warn(f"policy learn: left out, because a rule cannot name it: {one.protocol} with {one.peer}")
    policy = denied.learned(endpoints, entries, world)
    if not policy.keys() & {"egress", "ingress"}:
        raise CniError(
            INVALID_CONFIG,
            f"nothing of container {options.id} is on record",
            'give it a policy in the mode "audit" with an empty list, and let it work',
        )
    arguments.print_json(policy)
    return 0
