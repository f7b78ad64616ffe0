# SPDX-License-Identifier: Apache-2.0
"""cnihook add: attach a network namespace to one network, as `cnitool add` does."""

from cnihook.cli import arguments, target
from cnihook.cli.arguments import Parser
from cnihook.cli.target import Target

DESCRIPTION = """\
Attach a network namespace to one network, and print the CNI result.  If it fails, nothing of it stays.
"""


def parser() -> Parser:
    made = Parser("add", DESCRIPTION, target.ENVIRONMENT)
    target.add_arguments(made, namespace="NETNS")
    target.add_attachment(made)
    return made


def main(argv: list[str]) -> int:
    found = parser().parse_args(argv)

    def work() -> None:
        wanted = Target(found, needs_namespace=True)
        network = wanted.network()
        result = wanted.cni.add(
            network,
            wanted.container_id,
            wanted.netns,
            wanted.ifname,
            args=wanted.args,
            capability_args=wanted.capability_args,
            pid=wanted.pid,
        )
        arguments.print_json(result.to_json(network.version))

    return target.run("add", found, work)
