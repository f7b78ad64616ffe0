# SPDX-License-Identifier: Apache-2.0
"""cnihook del: detach a network namespace from one network, as `cnitool del` does."""

from cnihook.cli import target
from cnihook.cli.arguments import Parser
from cnihook.cli.target import Target

DESCRIPTION = """\
Detach a network namespace from one network.  Works from the record of the attachment, even if the namespace
or the configuration is gone; without a record, from the configuration.  A second `del` succeeds.
"""


def parser() -> Parser:
    parser = Parser("del", DESCRIPTION, target.ENVIRONMENT)
    target.add_arguments(parser, namespace="NETNS")
    target.add_attachment(parser)
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)

    def work() -> None:
        operands = Target(options, needs_namespace=True)
        operands.cni.delete(
            operands.network_or_name(),
            operands.container_id,
            operands.ifname,
            netns=operands.netns,
            args=operands.args,
            capability_args=operands.capability_args,
        )

    return target.run("del", options, work)
