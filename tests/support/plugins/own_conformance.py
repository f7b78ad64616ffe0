# SPDX-License-Identifier: Apache-2.0
"""The command `cnihook conformance` for the built-in plugins, which are forks of this process."""

import os
import sys

from cnihook.cli import conformance
from cnihook.protocol import executable
from tests.support.plugins import forkserver
from tests.support.plugins.forked_conformance import fork_plugins


def main() -> None:
    forkserver.load()
    fork_plugins(lambda path: executable.main(os.path.basename(path)))
    sys.exit(conformance.main(sys.argv[1:]))
