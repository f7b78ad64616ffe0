# SPDX-License-Identifier: Apache-2.0
"""cnihook cluster status: show the hosts of a network, and what is wrong."""

import argparse

from cnihook.cli.clusters import access
from cnihook.cli.shared import arguments, table, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.table import Cell, Column
from cnihook.cluster import local, state
from cnihook.cluster.report import Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DESCRIPTION = """\
Show the hosts of a network, their blocks and if their agents run, and what is wrong on this host.

If etcd does not answer, the hosts are those that this host's agent has seen last.
"""
EPILOG = """\
exit codes:
  0  nothing is wrong
  1  something is wrong; a line names it
  2  wrong usage
"""
_COLUMNS = (
    Column("HOST", low=8),
    Column("ADDRESS", low=12),
    Column("BLOCK", low=14),
    Column("STATE"),
)


def add_arguments(parser: Parser) -> None:
    access.add_network(parser, optional=True)
    parser.add_argument("--json", action="store_true", help="print a list of JSON objects")


def run(options: argparse.Namespace) -> int:
    names = [options.name] if options.name else state.networks()
    if options.name:
        access.membership(options.name)
    reports = [Report(name).read() for name in names]
    if options.json:
        arguments.print_json(reports)
    elif not reports:
        terminal.remark("this host has joined no network of several hosts")
    else:
        for report in reports:
            _show(report)
    return int(any(report["problems"] for report in reports))


def _show(report: "dict[str, Any]") -> None:
    settings = report["settings"]
    about = (
        f"{' '.join(settings['subnets'])} {settings['transport']} MTU {settings['mtu']}" if settings else ""
    )
    arguments.say(f"{report['name']}: {about or 'settings unknown'}")
    if report["hosts"]:
        rows = [
            [Cell(host["name"]), Cell(host["address"]), Cell(host["block"]), Cell(_state(host))]
            for host in report["hosts"]
        ]
        table.show(_COLUMNS, rows)
    for problem in report["problems"]:
        arguments.say(f"! {problem}")


def _state(host: "dict[str, Any]") -> str:
    if not host["confirmed"]:
        return local.UNCONFIRMED
    return {True: local.LIVE, False: local.NOT_LIVE, None: local.UNKNOWN}[host["live"]]
