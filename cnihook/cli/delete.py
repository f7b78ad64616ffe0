# SPDX-License-Identifier: Apache-2.0
"""cnihook del: take a network namespace off one network, as `cnitool del` does."""

from cnihook.cli import target
from cnihook.cli.arguments import Parser
from cnihook.cli.target import Target

DESCRIPTION = """\
Take a network namespace off one network.  Works from the record of what was attached, also where
namespace or configuration are gone; without a record, from the configuration.  Twice is fine.
"""


def parser() -> Parser:
    made = Parser("del", DESCRIPTION, target.ENVIRONMENT)
    target.add_arguments(made, namespace="NETNS")
    target.add_attachment(made)
    return made


def main(argv: list[str]) -> int:
    found = parser().parse_args(argv)

    def work() -> None:
        wanted = Target(found, needs_namespace=True)
        wanted.cni.delete(
            wanted.network_or_name(),
            wanted.container_id,
            wanted.ifname,
            netns=wanted.netns,
            args=wanted.args,
            capability_args=wanted.capability_args,
        )

    return target.run("del", found, work)
