# SPDX-License-Identifier: Apache-2.0
"""The built-in plugins, each call a fork of one process that has them in memory.

An executable would start Python and import its modules each time.  This is half of the processor time of a
plugin's test, and four fifths in a guest on an emulated processor.  After the fork, the code is the same as
in the executable.  tests/netns/test_protocol.py and test_conformance.py test the executables themselves.
"""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.host.forks import Forks
from tests.support.plugins.cni import Implementation, write_launchers

if TYPE_CHECKING:
    from tests.support.host.host import Host

SECONDS = 60


class Forked(Implementation):
    """`folder` has the executables; `path`, for CNI_PATH, has none, so delegates are not started either."""

    def __init__(self, folder: Path) -> None:
        super().__init__("builtin", folder, [])
        self.path = folder / "none"
        write_launchers(folder)
        self._forks = Forks([sys.executable, "-m", "tests.support.plugins.forkserver"])

    def close(self) -> None:
        self._forks.close()

    def run(
        self, host: "Host", plugin: str, conf: str, environment: dict[str, str], failing_step: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Call a plugin once.  `failing_step`: see cut_short.fail_at()."""
        request = [plugin, environment, failing_step]
        return self._forks.call(host, [plugin], request, conf.encode(), SECONDS)
