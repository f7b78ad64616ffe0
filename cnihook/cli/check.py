# SPDX-License-Identifier: Apache-2.0
"""cnihook check: whether an attachment is as it was set up, as `cnitool check` does."""

from cnihook.cli import target
from cnihook.cli.arguments import Parser
from cnihook.cli.target import Target

DESCRIPTION = """\
Have every plugin of a network compare what is there with what it set up.  Says nothing if all is as it was;
else the first difference, and exit code 1.
"""


def parser() -> Parser:
    made = Parser("check", DESCRIPTION, target.ENVIRONMENT)
    target.add_arguments(made, namespace="NETNS")
    target.add_attachment(made)
    return made


def main(argv: list[str]) -> int:
    found = parser().parse_args(argv)

    def work() -> None:
        wanted = Target(found, needs_namespace=True)
        wanted.cni.check(wanted.network_or_name(), wanted.container_id, wanted.ifname)

    return target.run("check", found, work)
