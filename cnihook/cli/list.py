# SPDX-License-Identifier: Apache-2.0
"""cnihook list: list the networks, and which plugin serves each of their parts."""

from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.log import warn
from cnihook.protocol import invoke
from cnihook.runtime import networks
from cnihook.runtime.networks import Network
from cnihook.types.config import NetConf
from cnihook.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DESCRIPTION = """\
List the networks of /etc/cni/net.d (or $NETCONFPATH) with their plugins, and what serves each: the built-in
plugin, or an executable.
"""
EPILOG = """\
exit codes:
  0  every file is a network
  1  a file is not a network; it is reported on stderr
  2  wrong usage
"""


def parser() -> Parser:
    parser = Parser("list", DESCRIPTION, EPILOG)
    parser.add_argument("--json", action="store_true", help="print all of it as JSON, with the problems")
    parser.add_conf_dir()
    parser.add_plugin_dirs()
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    settings = arguments.settings_of(options)
    present, problems = networks.load_folder(settings.conf_dir)
    default = not present and not problems
    if default:
        present = [networks.built_in()]
    described = [_describe(network, settings.plugin_dirs) for network in present]
    if options.json:
        arguments.print_json({"networks": described, "problems": [str(each) for each in problems]})
        return 1 if problems else 0
    if default:
        warn(f"no network configuration in {settings.conf_dir}: this is the built-in default")
    for each in described:
        arguments.say(f"{each['name']}  {each['cniVersion'] or '0.1.0'}  {each['file']}")
        for plugin in each["plugins"]:
            arguments.say(f"    {plugin['type']}: {plugin['served_by']}")
    for problem in problems:
        warn(str(problem))
    return 1 if problems else 0


def _describe(network: Network, plugin_dirs: "list[str] | None") -> "dict[str, Any]":
    plugins = []
    for plugin in network.plugins:
        conf = NetConf(plugin)
        for plugin_type in (conf.string("type"), conf.object("ipam").string("type")):
            if plugin_type:
                plugins.append({"type": plugin_type, "served_by": served_by(plugin_type, plugin_dirs)})
    return {
        "name": network.name,
        "cniVersion": network.version,
        "file": network.source,
        "plugins": plugins,
    }


def served_by(plugin_type: str, plugin_dirs: "list[str] | None") -> str:
    try:
        return invoke.find(plugin_type, plugin_dirs) or "built in"
    except CniError:
        return "missing"
