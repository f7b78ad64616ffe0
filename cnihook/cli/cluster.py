# SPDX-License-Identifier: Apache-2.0
"""cnihook cluster: networks that several hosts share."""

from cnihook.cli.clusters import forget, init, join, leave, status
from cnihook.cli.shared.subcommands import Subcommands

DESCRIPTION = """\
Networks that several hosts share.  Each host has a block of addresses, and its containers reach those of the
other hosts by routes between the blocks.  The hosts find each other in etcd.

`cnihook man many-hosts` describes them.
"""

_COMMANDS = Subcommands(
    "cluster",
    DESCRIPTION,
    {"init": init, "join": join, "leave": leave, "status": status, "forget": forget},
    {},
)
parser = _COMMANDS.parser
main = _COMMANDS.main
