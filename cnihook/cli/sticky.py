# SPDX-License-Identifier: Apache-2.0
"""cnihook sticky: list and remove what is kept for sticky names."""

from cnihook.cli import main as main_command
from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.sticky_names import ls, rm

DESCRIPTION = """\
List and remove what is kept for sticky names.  A container with --sticky NAME, or with the annotation
cnihook.sticky, gets the addresses and the MAC addresses that the container before it had with this name.
"""
EPILOG = "`cnihook sticky COMMAND --help` describes a command.\n"

_NAME = "sticky"
_MODULES = {"ls": ls, "rm": rm}
_ALIASES = {"ls": ("list",), "rm": ("remove",)}


def parser() -> Parser:
    parser = Parser(_NAME, DESCRIPTION, EPILOG)
    for name, purpose in main_command.OWN_COMMANDS[_NAME].items():
        parser.add_command(name, purpose, _MODULES[name], _ALIASES[name])
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    code = 0

    def work() -> None:
        nonlocal code
        code = _MODULES[options.command].run(options)

    return arguments.work(f"{_NAME} {options.command}", work) or code
