# SPDX-License-Identifier: Apache-2.0
"""cnihook network: create, list, change and remove networks."""

from cnihook.cli import main as main_command
from cnihook.cli.networks import create, edit, inspect, ls, prune, rm
from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser

DESCRIPTION = """\
Create, list, change and remove networks: the files of /etc/cni/net.d (or $NETCONFPATH).

The commands are those of docker and podman.  A network that another program wrote can be listed, changed and
removed, too.
"""
EPILOG = "`cnihook network COMMAND --help` describes a command.\n"

_NAME = "network"
_MODULES = {"create": create, "ls": ls, "inspect": inspect, "edit": edit, "rm": rm, "prune": prune}
_ALIASES = {"ls": ("list",), "rm": ("remove",)}


def parser() -> Parser:
    parser = Parser(_NAME, DESCRIPTION, EPILOG)
    for name, purpose in main_command.OWN_COMMANDS[_NAME].items():
        parser.add_command(name, purpose, _MODULES[name], _ALIASES.get(name, ()))
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    code = 0

    def work() -> None:
        nonlocal code
        code = _MODULES[options.command].run(options)

    return arguments.work(f"{_NAME} {options.command}", work) or code
