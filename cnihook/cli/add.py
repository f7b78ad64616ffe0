# SPDX-License-Identifier: Apache-2.0
"""cnihook add: attach a network namespace to one network, as `cnitool add` does."""

from cnihook.cli.shared import arguments, cnitool_args
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.cnitool_args import CnitoolArgs

DESCRIPTION = """\
Attach a network namespace to one network, and print the CNI result.  A failed ADD is undone.
"""


def parser() -> Parser:
    parser = Parser("add", DESCRIPTION, cnitool_args.ENVIRONMENT, usage=cnitool_args.usage("add"))
    cnitool_args.add_arguments(parser)
    cnitool_args.add_attachment(parser)
    parser.add_verbose()
    return parser


def main(argv: list[str]) -> int:
    usage = parser()
    options = usage.parse_args(argv)
    cnitool_args.check_operands(usage, options, needs_namespace=True)

    def work() -> None:
        operands = CnitoolArgs(options)
        network = operands.network()
        attachment = operands.cni.add(
            network,
            operands.container_id,
            operands.ifname,
            netns=operands.netns,
            pid=operands.pid,
            cni_args=operands.cni_args,
            capability_args=operands.capability_args_for(network),
        )
        arguments.print_json(attachment.result.to_json(attachment.network.version))

    return cnitool_args.run("add", options, work)
