# SPDX-License-Identifier: Apache-2.0
"""cnihook status: ask a network if it can attach another container, as `cnitool status` does."""

from cnihook.cli.shared import cnitool_args
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.cnitool_args import CnitoolArgs

DESCRIPTION = """\
Ask the plugins of a network if they are ready to attach another container.  Prints nothing if they are;
otherwise the reason.
"""
EPILOG = f"""\
{cnitool_args.ENVIRONMENT}
exit codes:
  0  the network is ready
  1  it is not ready
  2  wrong usage

codes of an error with --json:
  50  the network is not available
  51  the same, and attached containers may have limited connectivity
"""


def parser() -> Parser:
    parser = Parser("status", DESCRIPTION, EPILOG)
    cnitool_args.add_arguments(parser, namespace="[NETNS]")
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)

    def work() -> None:
        operands = CnitoolArgs(options, needs_namespace=False)
        operands.cni.status(operands.network())

    return cnitool_args.run("status", options, work)
