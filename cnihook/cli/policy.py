# SPDX-License-Identifier: Apache-2.0
"""cnihook policy: which connections containers may have."""

from cnihook.cli import main as main_command
from cnihook.cli.policies import apply, delete, diff, explain, learn, listed, show, test
from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser

DESCRIPTION = """\
Policies: which connections containers may open and accept.  They are the files of /etc/cnihook/policy.d.

`cnihook man policies` describes them.
"""
EPILOG = "`cnihook policy COMMAND --help` describes a command.\n"

_NAME = "policy"
_MODULES = {
    "apply": apply,
    "test": test,
    "diff": diff,
    "list": listed,
    "show": show,
    "delete": delete,
    "learn": learn,
    "explain": explain,
}
_ALIASES = {"list": ("ls",), "delete": ("rm",)}


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
