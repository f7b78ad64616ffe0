# SPDX-License-Identifier: Apache-2.0
"""cnihook sticky: list and remove what is kept for sticky names."""

from cnihook.cli.shared.subcommands import Subcommands
from cnihook.cli.sticky_names import ls, rm

DESCRIPTION = """\
List and remove what is kept for sticky names.  A container with --sticky NAME, or with the annotation
cnihook.sticky, gets the addresses and the MAC addresses that the container before it had with this name.
"""

_COMMANDS = Subcommands(
    "sticky",
    DESCRIPTION,
    {"ls": ls, "rm": rm},
    {"ls": ("list",), "rm": ("remove",)},
)
parser = _COMMANDS.parser
main = _COMMANDS.main
