# SPDX-License-Identifier: Apache-2.0
"""cnihook schema: print a JSON Schema of network files, or of a plugin's options."""

from cnihook.cli.shared import arguments, json_schema
from cnihook.cli.shared.arguments import Parser
from cnihook.fast import similar
from cnihook.protocol import invoke

DESCRIPTION = """\
Print the JSON Schema (draft 2020-12) of network files, or of the options of a built-in plugin.  An editor
that reads it completes keys and reports wrong values.  `cnihook validate` checks more.

  cnihook schema > cni-network.schema.json
  cnihook schema bridge
"""
_NETWORK = "network"


def parser() -> Parser:
    parser = Parser("schema", DESCRIPTION)
    parser.add_argument(
        "subject",
        metavar="PLUGIN",
        nargs="?",
        default=_NETWORK,
        help="a built-in plugin, or `network` (default: network)",
    )
    return parser


def main(argv: list[str]) -> int:
    usage = parser()
    subject = usage.parse_args(argv).subject
    types = invoke.built_in_types()
    if subject == _NETWORK:
        arguments.print_json(json_schema.of_network())
    elif subject in types:
        arguments.print_json(json_schema.of_plugin(subject))
    else:
        usage.error(f"no plugin {subject!r}; {similar.hint(subject, [_NETWORK, *types])}")
    return 0
