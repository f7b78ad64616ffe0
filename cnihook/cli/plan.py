# SPDX-License-Identifier: Apache-2.0
"""cnihook plan: what each plugin of a network would be given.  Nothing is run."""

import shlex

from cnihook.cli import arguments, target
from cnihook.cli.arguments import Parser
from cnihook.cli.list import served_by
from cnihook.cli.target import Target
from cnihook.runtime import cache, chain
from cnihook.runtime.networks import Network
from cnihook.sdk import invoke
from cnihook.sdk.call import Request
from cnihook.spec.config import NetConf
from cnihook.spec.errors import CniError
from cnihook.spec.result import Result
from cnihook.spec.version import SINCE, at_least

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DESCRIPTION = """\
Show what each plugin of a network would be given on its stdin and in its environment, in the order in which
they would be called.  Nothing is run, nothing is changed.
"""

_RESULT_OF = "the result of {}"  # in the place of a prevResult that only a run can tell


def parser() -> Parser:
    made = Parser("plan", DESCRIPTION, target.ENVIRONMENT)
    made.add_argument(
        "--command", choices=["ADD", "DEL", "CHECK", "GC", "STATUS"], default="ADD", help="(ADD)"
    )
    target.add_arguments(made, namespace="[NETNS]")
    target.add_attachment(made)
    return made


def main(argv: list[str]) -> int:
    found = parser().parse_args(argv)

    def work() -> None:
        wanted = Target(found, needs_namespace=False)
        network = wanted.network()
        steps = _steps(found.command, network, wanted)
        if found.json:
            arguments.print_json(steps)
            return
        if not steps:
            since = SINCE[found.command]
            version = f"{network.name} is of version {network.version}"
            arguments.say(f"nothing: {version}, {found.command} of {since}")
        for number, step in enumerate(steps, 1):
            arguments.say(f"{number}. {step['type']} {found.command}, {step['served_by']}")
            for key, value in step["environment"].items():
                arguments.say(f"   {key}={shlex.quote(value)}")
            arguments.say("   stdin: " + arguments.as_json(step["stdin"], indent=2).replace("\n", "\n   "))

    return target.run("plan", found, work)


def _steps(command: str, network: Network, wanted: Target) -> "list[dict[str, Any]]":
    if command in ("GC", "STATUS") and not at_least(network.version, SINCE[command]):
        return []
    about_container = command not in ("GC", "STATUS")
    netns = wanted.netns or "/var/run/netns/NETNS"
    request = Request(
        (wanted.container_id if wanted.netns else "CONTAINERID") if about_container else "",
        netns if about_container else "",
        wanted.ifname if about_container else "",
        args=wanted.args if about_container else "",
        plugin_path=wanted.cni.plugin_path,
    )
    known = _known_result(network, wanted)
    order = range(len(network.plugins))
    steps = []
    for index in reversed(order) if command == "DEL" else order:
        plugin_type = NetConf(network.plugins[index]).string("type")
        conf = chain.derive(network, index, wanted.capability_args if about_container else {}, None)
        if command in ("DEL", "CHECK") and at_least(network.version, "0.4.0"):
            conf["prevResult"] = known or _RESULT_OF.format("ADD")
        elif command == "ADD" and index:
            conf["prevResult"] = _RESULT_OF.format(network.plugins[index - 1].get("type"))
        elif command == "GC":
            conf |= chain.keep_list(wanted.cni.living(network.name))
        variables = invoke.protocol_variables(command, request)
        steps.append(
            {
                "type": plugin_type,
                "served_by": served_by(plugin_type, wanted.cni.plugin_path),
                "environment": variables,
                "stdin": conf,
            }
        )
    return steps


def _known_result(network: Network, wanted: Target) -> "dict[str, Any] | None":
    """What a DEL would have, where it is on record."""
    if not wanted.netns:
        return None
    record = cache.find(network.name, wanted.container_id, wanted.ifname, wanted.cni.cache_folder)
    try:
        result = Result.from_json(record.result, network.version) if record and record.result else None
    except CniError:
        return None
    return result.to_json(network.version) if result else None
