# SPDX-License-Identifier: Apache-2.0
"""cnihook add: attach a network namespace to one network, as `cnitool add` does."""

from cnihook.cli.shared import arguments, cnitool_args
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.cnitool_args import CnitoolArgs

DESCRIPTION = """\
Attach a network namespace to one network, and print the CNI result.  A failed ADD is undone.
"""


def parser() -> Parser:
    parser = Parser("add", DESCRIPTION, cnitool_args.ENVIRONMENT)
    cnitool_args.add_arguments(parser, namespace="NETNS")
    cnitool_args.add_attachment(parser)
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)

    def work() -> None:
        operands = CnitoolArgs(options, needs_namespace=True)
        network = operands.network()
        result = operands.cni.add(
            network,
            operands.container_id,
            operands.netns,
            operands.ifname,
            args=operands.args,
            capability_args=operands.capability_args,
            pid=operands.pid,
        )
        arguments.print_json(result.to_json(network.version))

    return cnitool_args.run("add", options, work)
