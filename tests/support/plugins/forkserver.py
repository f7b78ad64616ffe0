# SPDX-License-Identifier: Apache-2.0
"""The process that forks for each call of a built-in plugin.

    python3 -m tests.support.plugins.forkserver SOCKET

It has only the plugins in memory, because the cost of a fork grows with the memory of the process.  pytest
with its tests is five times as large.
"""

import pkgutil
import socket
import sys
from importlib import import_module

import cnihook
from cnihook import codecache
from cnihook.protocol import executable
from tests.support.host import forkserver
from tests.support.plugins import cut_short

PACKAGES = ("fast", "ipam", "links", "linux", "nftables", "plugins", "process", "protocol", "sdk", "types")


def main() -> None:
    """Serve requests: a plugin's name, its environment, and the number of a step that fails, or 0."""
    load()
    forkserver.serve(socket.socket(fileno=int(sys.argv[1])), run)


def load() -> None:
    (path,) = cnihook.__path__
    for package in PACKAGES:
        import_module(f"cnihook.{package}")
        for module in pkgutil.iter_modules([f"{path}/{package}"], f"cnihook.{package}."):
            if not module.ispkg:
                import_module(module.name)
    codecache.install_finder()  # otherwise each call would read the list of the modules: 0.6 ms


def run(request: tuple[str, dict[str, str], int]) -> None:
    """Run the plugin as its executable does after its imports."""
    plugin, environment, failing_step = request
    forkserver.set_environment(environment)
    if failing_step:
        cut_short.fail_at(failing_step)
    executable.main(plugin)


if __name__ == "__main__":
    main()
