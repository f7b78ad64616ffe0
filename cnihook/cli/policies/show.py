# SPDX-License-Identifier: Apache-2.0
"""cnihook policy show: print a policy."""

import argparse

from cnihook.cli.policies import delete
from cnihook.cli.shared import arguments, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.policy import change, store

DESCRIPTION = """\
Print a policy as JSON, as its file has it.  On a terminal, the containers that it selects follow.
"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="the name of a policy")


def run(options: argparse.Namespace) -> int:
    policies = store.load()
    for broken in policies.broken:
        if broken.path == store.path_of(options.name):
            raise broken.error
    policy = policies.by_name().get(options.name)
    if policy is None:
        raise delete.missing(options.name, delete.names())
    arguments.say(change.as_text(policy))
    endpoints = change.world().endpoints
    selected = sorted({one.container_id for one in endpoints if one.is_selected(policy.selection)})
    terminal.remark(f"selects {', '.join(selected)}" if selected else "selects no container at the moment")
    return 0
