# SPDX-License-Identifier: Apache-2.0
"""cnihook plan: show what each plugin of a network would be given.  Nothing is run."""

import shlex

from cnihook.cli.list import served_by
from cnihook.cli.shared import arguments, cnitool_args
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.cnitool_args import CnitoolArgs
from cnihook.protocol import invoke
from cnihook.protocol.call import Invocation, args_text
from cnihook.runtime import chain, records
from cnihook.runtime.networks import Network
from cnihook.types.config import NetConf
from cnihook.types.errors import CniError
from cnihook.types.result import Result
from cnihook.types.versions import SINCE, at_least

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DESCRIPTION = """\
Show what each plugin of a network would be given on its stdin and in its environment, in the order of the
calls.  Nothing is run, nothing is changed.
"""

_RESULT_OF = "the result of {}"  # instead of a prevResult, which only a run would yield


def parser() -> Parser:
    usage = cnitool_args.usage("plan", namespace="[NETNS]")
    parser = Parser("plan", DESCRIPTION, cnitool_args.ENVIRONMENT, usage=usage)
    parser.add_argument(
        "--command",
        choices=["ADD", "DEL", "CHECK", "GC", "STATUS"],
        default="ADD",
        help="the operation (default: ADD)",
    )
    cnitool_args.add_arguments(parser)
    cnitool_args.add_attachment(parser)
    return parser


def main(argv: list[str]) -> int:
    usage = parser()
    options = usage.parse_args(argv)
    cnitool_args.check_operands(usage, options, needs_namespace=False)

    def work() -> None:
        operands = CnitoolArgs(options)
        network = operands.network()
        steps = _steps(options.command, network, operands)
        if options.json:
            arguments.print_json(steps)
            return
        if not steps:
            since = SINCE[options.command]
            version = f"{network.name} has version {network.version}"
            arguments.say(f"nothing: {version}, {options.command} needs {since}")
        for number, step in enumerate(steps, 1):
            arguments.say(f"{number}. {step['type']} {options.command}, {step['served_by']}")
            for key, value in step["environment"].items():
                arguments.say(f"   {key}={shlex.quote(value)}")
            arguments.say("   stdin: " + arguments.as_json(step["stdin"], indent=2).replace("\n", "\n   "))

    return cnitool_args.run("plan", options, work)


def _steps(command: str, network: Network, operands: CnitoolArgs) -> "list[dict[str, Any]]":
    if command in ("GC", "STATUS") and not at_least(network.version, SINCE[command]):
        return []
    about_container = command not in ("GC", "STATUS")
    netns = operands.netns or "/var/run/netns/NETNS"
    request = Invocation(
        (operands.container_id if operands.netns else "CONTAINERID") if about_container else "",
        netns if about_container else "",
        operands.ifname if about_container else "",
        args=args_text(operands.cni_args) if about_container else "",
        plugin_dirs=operands.cni.plugin_dirs,
    )
    prev_result = _known_result(network, operands)
    order = range(len(network.plugins))
    steps = []
    for index in reversed(order) if command == "DEL" else order:
        plugin_type = NetConf(network.plugins[index]).string("type")
        conf = chain.derive(network, index, operands.capability_args if about_container else {}, None)
        if command in ("DEL", "CHECK") and at_least(network.version, "0.4.0"):
            conf["prevResult"] = prev_result or _RESULT_OF.format("ADD")
        elif command == "ADD" and index:
            conf["prevResult"] = _RESULT_OF.format(network.plugins[index - 1].get("type"))
        elif command == "GC":
            conf |= chain.keep_list(operands.cni.live_attachments(network))
        variables = invoke.protocol_variables(command, request)
        steps.append(
            {
                "type": plugin_type,
                "served_by": served_by(plugin_type, operands.cni.plugin_dirs),
                "environment": variables,
                "stdin": conf,
            }
        )
    return steps


def _known_result(network: Network, operands: CnitoolArgs) -> "dict[str, Any] | None":
    """Return the result that a DEL would be given, if it is on record."""
    if not operands.netns:
        return None
    record = records.find(network.name, operands.container_id, operands.ifname, operands.cni.state_dir)
    try:
        result = Result.from_json(record.result, network.version) if record and record.result else None
    except CniError:
        return None
    return result.to_json(network.version) if result else None
