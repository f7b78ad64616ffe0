# SPDX-License-Identifier: Apache-2.0
"""cnihook network inspect: print all about networks, as JSON."""

import argparse

from cnihook.cli.networks import ls, store
from cnihook.cli.shared import arguments, template
from cnihook.cli.shared.arguments import Parser
from cnihook.fast.errors_text import message_with_hint
from cnihook.log import warn

DESCRIPTION = """\
Print networks as a list of JSON objects: what docker prints, and in addition File and CNI, the file and its
content.
"""
EPILOG = """\
TEMPLATE is a template of Go: '{{.Driver}}', '{{.IPAM.Driver}}', '{{json .Containers}}'.
"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("networks", metavar="NETWORK", nargs="+", help="the name or the ID of a network")
    parser.add_argument(
        "-f",
        "--format",
        metavar="json|TEMPLATE",
        help="print a line of JSON, or of a template, for each network",
    )
    parser.add_conf_dir()
    parser.add_plugin_dirs()


def run(options: argparse.Namespace) -> int:
    settings = arguments.settings_of(options)
    present, problems = ls.load(settings)
    selected, errors = store.select(options.networks, present, problems, settings.conf_dir)
    for error in errors:
        warn(f"network inspect: {message_with_hint(error)}")
    details = [view.details() for view in ls.views(selected)]
    if options.format in (None, "json"):
        print(arguments.as_json(details, 4 if options.format is None else None))
    else:
        template.show(options.format, details)
    return 1 if errors else 0
