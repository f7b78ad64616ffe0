# SPDX-License-Identifier: Apache-2.0
"""A command with commands below it: cnihook network, policy and the like."""

from cnihook.cli import main as main_command
from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


class Subcommands:
    """The commands below `name`: a module for each, and other names for some of them.

    The purpose of each command is in cnihook.cli.main.
    """

    def __init__(
        self,
        name: str,
        description: str,
        modules: "dict[str, ModuleType]",
        aliases: "dict[str, tuple[str, ...]]",
    ) -> None:
        self._name = name
        self._description = description
        self._modules = modules
        self._aliases = aliases

    def parser(self) -> Parser:
        epilog = f"`cnihook {self._name} COMMAND --help` describes a command.\n"
        parser = Parser(self._name, self._description, epilog)
        for name, purpose in main_command.OWN_COMMANDS[self._name].items():
            parser.add_command(name, purpose, self._modules[name], self._aliases.get(name, ()))
        return parser

    def main(self, argv: list[str]) -> int:
        options = self.parser().parse_args(argv)
        code = 0

        def work() -> None:
            nonlocal code
            code = self._modules[options.command].run(options)

        return arguments.work(f"{self._name} {options.command}", work) or code
