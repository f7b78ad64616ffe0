# SPDX-License-Identifier: Apache-2.0
"""cnihook status: whether a network can take another container, as `cnitool status` does."""

from cnihook.cli import target
from cnihook.cli.arguments import Parser
from cnihook.cli.target import Target

DESCRIPTION = """\
Ask the plugins of a network whether they are ready to attach another container.  Says nothing if they are;
else why not, and exit code 1.  With --json, code 50: not available, 51: those attached are in trouble, too.
"""


def parser() -> Parser:
    made = Parser("status", DESCRIPTION, target.ENVIRONMENT)
    target.add_arguments(made, namespace="[NETNS]")
    return made


def main(argv: list[str]) -> int:
    found = parser().parse_args(argv)

    def work() -> None:
        wanted = Target(found, needs_namespace=False)
        wanted.cni.status(wanted.network())

    return target.run("status", found, work)
