# SPDX-License-Identifier: Apache-2.0
"""cnihook del: detach a network namespace from one network, as `cnitool del` does."""

from cnihook.cli.shared import cnitool_args
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.cnitool_args import CnitoolArgs

DESCRIPTION = """\
Detach a network namespace from one network.  Works from the record of the attachment, even if the namespace
or the configuration is gone; without a record, from the configuration.  A second `del` succeeds.
"""


def parser() -> Parser:
    parser = Parser("del", DESCRIPTION, cnitool_args.ENVIRONMENT, usage=cnitool_args.usage("del"))
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
        operands.cni.delete(
            operands.network_of_record(),
            operands.container_id,
            operands.ifname,
            netns=operands.netns,
            cni_args=operands.cni_args,
            capability_args=operands.capability_args,
        )

    return cnitool_args.run("del", options, work)
