# SPDX-License-Identifier: Apache-2.0
"""cnihook network prune: remove the networks that no container uses."""

import argparse
import sys

from cnihook.cli.networks import removal, rm
from cnihook.cli.networks.filters import Filters
from cnihook.cli.networks.view import View
from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.fast.errors_text import message_with_hint
from cnihook.log import warn
from cnihook.protocol import locks
from cnihook.runtime import networks
from cnihook.types.errors import IO_FAILURE, CniError

DESCRIPTION = """\
Remove the networks that `cnihook network create` made and that no container uses, and print their names.
Files that another program wrote are kept.
"""
_QUESTION = """\
WARNING! This will remove all networks of `cnihook network create` that no container uses.
Are you sure you want to continue? [y/N] """
_KEYS = ("label", "label!", "until")


def add_arguments(parser: Parser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")
    parser.add_argument(
        "--filter",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="only networks with: label=KEY[=VALUE], label!=KEY[=VALUE], until=TIME or AGE, repeatable",
    )
    parser.add_conf_dir()
    parser.add_plugin_dirs()


def run(options: argparse.Namespace) -> int:
    settings = arguments.settings_of(options)
    filters = Filters(options.filter, _KEYS)
    if not options.force and not _is_confirmed():
        raise CniError(IO_FAILURE, "nothing is removed", "--force does not ask")
    with locks.networks("network prune"):
        candidates = [network for network in networks.load_folder(settings.conf_dir)[0] if network.created]
        used = removal.users({network.name for network in candidates})
        unused = [one for one in candidates if one.name not in used and filters.match(View(one, []))]
        if unused:
            print("Deleted Networks:")
        errors = rm.remove(unused, settings)
    for error in errors:
        warn(f"network prune: {message_with_hint(error)}")
    return 1 if errors else 0


def _is_confirmed() -> bool:
    print(_QUESTION, end="", flush=True)
    answer = sys.stdin.readline() if sys.stdin else ""
    if not answer.endswith("\n"):
        print()
    return answer.strip().lower() in ("y", "yes")
