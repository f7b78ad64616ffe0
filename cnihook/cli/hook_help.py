# SPDX-License-Identifier: Apache-2.0
"""The text of `cnihook createRuntime --help` and of `cnihook poststop --help`."""

from cnihook.cli.shared import option_help
from cnihook.request.option_table import HOOK

_BEGIN = """\
usage: cnihook createRuntime|poststop [OPTION]... < STATE

The OCI hook.  Register both events in config.json, then `runc run` gives the container its networks:

"hooks": {
  "createRuntime": [{
    "path": "/usr/bin/python3", "timeout": 60,
    "args": ["/usr/bin/python3", "-IS", "/DIR/scripts/cnihook", "createRuntime"]
  }],
  "poststop": [{
    "path": "/usr/bin/python3", "timeout": 60,
    "args": ["/usr/bin/python3", "-IS", "/DIR/scripts/cnihook", "poststop"]
  }]
}

"""
_END = """
An annotation cnihook.networks has the effect of --network; without both, the container gets all networks of
the folder (from cni-runc, it gets none).  Each request has an annotation as well, such as
cnihook.publish.  An option takes precedence over its annotation.

With "env": ["CNIHOOK_TIMING=1"] in its entry, an event logs the time of each step; `cnihook logs` shows it.
"""


def text(width: int = 0) -> str:
    options = option_help.sections(HOOK, width)
    return option_help.filled(_BEGIN, width) + options + option_help.filled(_END, width)
