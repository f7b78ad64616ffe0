# SPDX-License-Identifier: Apache-2.0
"""cnihook network: create, list, change and remove networks."""

from cnihook.cli.networks import create, edit, inspect, ls, prune, rm
from cnihook.cli.shared.subcommands import Subcommands

DESCRIPTION = """\
Create, list, change and remove networks: the files of /etc/cni/net.d (or $NETCONFPATH).

The commands are those of docker and podman.  A network that another program wrote can be listed, changed and
removed, too.
"""

_COMMANDS = Subcommands(
    "network",
    DESCRIPTION,
    {"create": create, "ls": ls, "inspect": inspect, "edit": edit, "rm": rm, "prune": prune},
    {"ls": ("list",), "rm": ("remove",)},
)
parser = _COMMANDS.parser
main = _COMMANDS.main
