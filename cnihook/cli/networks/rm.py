# SPDX-License-Identifier: Apache-2.0
"""cnihook network rm: remove networks."""

import argparse

from cnihook.cli.networks import removal, store
from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.fast.errors_text import message_with_hint
from cnihook.ipam import block
from cnihook.log import warn
from cnihook.protocol import locks
from cnihook.runtime import networks
from cnihook.runtime.networks import Network, NetworkNotFoundError
from cnihook.runtime.settings import Settings
from cnihook.types.errors import IO_FAILURE, CniError

DESCRIPTION = """\
Remove networks, and print the names of those that are removed: the file, and what is left of the network on
the host, which is its bridge, its leases and its rules.

A network with containers is not removed.  With --force, its containers are detached first.
"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("networks", metavar="NETWORK", nargs="+", help="the name or the ID of a network")
    parser.add_argument(
        "-f",
        "--force",
        action="store_true",
        help="detach the containers first; a network that does not exist is not an error",
    )
    parser.add_conf_dir()
    parser.add_plugin_dirs()


def run(options: argparse.Namespace) -> int:
    settings = arguments.settings_of(options)
    with locks.networks("network rm"):
        present, problems = networks.load_folder(settings.conf_dir)
        selected, errors = store.select(options.networks, present, problems, settings.conf_dir)
        if options.force:
            errors = [one for one in errors if not isinstance(one, NetworkNotFoundError)]
        once = {network.name: network for network in selected}
        errors += remove(list(once.values()), settings, force=options.force)
    for one in errors:
        warn(f"network rm: {message_with_hint(one)}")
    return 1 if errors else 0


def remove(selected: "list[Network]", settings: Settings, *, force: bool = False) -> "list[CniError]":
    """Remove networks, and print each that is removed.  Returns the errors."""
    errors = []
    for network in list(selected):
        if block.is_joined(network.name):
            selected.remove(network)
            errors.append(
                CniError(
                    IO_FAILURE,
                    f"network {network.name}: this host shares it with others",
                    f"`cnihook cluster leave {network.name}` gives the host's block back and removes it",
                )
            )
    failures = removal.remove(selected, settings, force=force) if selected else {}
    for network in selected:
        if network.name not in failures:
            arguments.say(network.name)
    return [*errors, *failures.values()]
