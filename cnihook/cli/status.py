# SPDX-License-Identifier: Apache-2.0
"""cnihook status: ask a network if it can attach another container, as `cnitool status` does."""

from cnihook.cli.shared import cnitool_args, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.cnitool_args import CnitoolArgs
from cnihook.doctor import kernel
from cnihook.log import warn
from cnihook.runtime.networks import Network
from cnihook.types.errors import PLUGIN_NOT_AVAILABLE, CniError

DESCRIPTION = """\
Ask the plugins of a network if they are ready to attach another container.  Prints nothing if they are,
except on a terminal; otherwise the reason.  If the host has policies, the kernel must be able to enforce
them on the network.  A line on stderr names what containers may request and this kernel cannot do.
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
    usage = cnitool_args.usage("status", namespace="[NETNS]")
    parser = Parser("status", DESCRIPTION, EPILOG, usage=usage)
    cnitool_args.add_arguments(parser, namespace=cnitool_args.NO_EFFECT)
    parser.add_verbose()
    return parser


def main(argv: list[str]) -> int:
    usage = parser()
    options = usage.parse_args(argv)
    cnitool_args.check_operands(usage, options, needs_namespace=False)

    def work() -> None:
        operands = CnitoolArgs(options)
        network = operands.network()
        operands.cni.status(network)
        _check_kernel(network)
        if not options.json:
            terminal.remark(f"{network.name} is ready")

    return cnitool_args.run("status", options, work)


def _check_kernel(network: Network) -> None:
    """Raise CniError if the kernel cannot enforce policies on the network; report what it cannot do else."""
    try:
        findings = kernel.of_network(network)
    except OSError:
        return  # without privilege, the kernel cannot be tried
    for one in findings:
        if not one.note:
            raise CniError(PLUGIN_NOT_AVAILABLE, f"{one.what}; {one.why}", one.suggestion)
        warn(f"status {network.name}: {one.what}; {one.why}; `{one.suggestion}`")
