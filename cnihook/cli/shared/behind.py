# SPDX-License-Identifier: Apache-2.0
"""Shared parts of diff and apply: the attachments that differ from the files of their networks."""

import argparse

from cnihook.cli.shared import arguments, listing
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.listing import Row
from cnihook.container.edited import REFUSED, Difference, Files
from cnihook.types.fields import IN_PLACE, NEW_ONLY, REATTACH
from cnihook.types.names import check_network_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COLOURS = {IN_PLACE: "green", REATTACH: "yellow", NEW_ONLY: "dim", REFUSED: "red"}

CHANGES = """\
changes:
  in-place   `cnihook apply` makes it, while the container runs
  re-attach  it takes `cnihook detach` and `cnihook attach`
  new-only   only new containers use it: a range of addresses, a route
  refused    the list of plugins changed, which takes the same as re-attach; or
             another runtime attached the container, and has to do that
"""


class Behind:
    """An attachment that differs from its network's file."""

    def __init__(self, row: Row, differences: "list[Difference]", file: str) -> None:
        self.row = row
        self.differences = differences
        self.file = file

    def to_json(self) -> "dict[str, Any]":
        revision = self.row.record.extra.get("revision")
        return {
            "container": self.row.container,
            "name": self.row.name or None,
            "network": self.row.network,
            "ifname": self.row.ifname,
            "file": self.file,
            "revision": revision if isinstance(revision, int) else 0,
            "differences": [_as_json(one) for one in self.differences],
        }


def _as_json(one: Difference) -> "dict[str, Any]":
    return {
        "plugin": one.index if one.index >= 0 else None,
        "type": one.plugin or None,
        "key": ".".join(one.path),
        "record": one.record,
        "file": one.file,
        "change": one.change,
    }


def add_network(parser: Parser) -> None:
    parser.add_argument(
        "network",
        metavar="NETWORK",
        nargs="?",
        type=arguments.checked(check_network_name),
        help="the network (default: all)",
    )


def load(options: argparse.Namespace) -> "list[Behind]":
    """Return the attachments that differ, by network.

    Raises CniError if the network does not exist, and OSError if a record cannot be read.
    """
    files = Files(arguments.settings_of(options).conf_dir)
    if options.network:
        files.networks[options.network]
    attached = []
    for row in listing.load(complete=True):
        if row.state == listing.ATTACHED and options.network in (None, row.network):
            differences = files.differences(row.record)
            if differences:
                attached.append(Behind(row, differences, files.networks[row.network].source))
    return sorted(attached, key=lambda one: one.row.network)
