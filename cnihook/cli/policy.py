# SPDX-License-Identifier: Apache-2.0
"""cnihook policy: which connections containers may have."""

from cnihook.cli.policies import apply, delete, diff, explain, learn, listed, show, test
from cnihook.cli.shared.subcommands import Subcommands

DESCRIPTION = """\
Policies: which connections containers may open and accept.  They are the files of /etc/cnihook/policy.d.

`cnihook man policies` describes them.
"""

_COMMANDS = Subcommands(
    "policy",
    DESCRIPTION,
    {
        "apply": apply,
        "test": test,
        "diff": diff,
        "list": listed,
        "show": show,
        "delete": delete,
        "learn": learn,
        "explain": explain,
    },
    {"list": ("ls",), "delete": ("rm",)},
)
parser = _COMMANDS.parser
main = _COMMANDS.main
