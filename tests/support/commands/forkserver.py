# SPDX-License-Identifier: Apache-2.0
"""The process that forks for each call of `cnihook`: it has the modules of all commands in memory."""

import os
import pkgutil
import socket
import sys
import time
from importlib import import_module

import cnihook
from cnihook import codecache
from cnihook.cli import main as program
from cnihook.cli import ps
from cnihook.cli.shared import arguments
from tests.support.host import forkserver

# A command by itself, and the tests of a new plugin, which need pytest.
NOT_LOADED = ("cnihook.__main__", "cnihook.sdk.template")


def main() -> None:
    """Serve requests: the argv of a call, its environment and its working directory."""
    for module in pkgutil.walk_packages(cnihook.__path__, "cnihook."):
        if not module.name.startswith(NOT_LOADED):
            import_module(module.name)
    codecache.install_finder()
    # Have what every command needs in memory: compiled expressions, and the texts of argparse.  1.2 of 7 ms.
    ps.parser().parse_args([])
    forkserver.serve(socket.socket(fileno=int(sys.argv[1])), run)


def run(request: tuple[list[str], dict[str, str], str]) -> None:
    """Run the command as its executable does after its imports."""
    argv, environment, folder = request
    forkserver.set_environment(environment)
    time.tzset()
    os.chdir(folder)
    sys.argv[:] = argv
    arguments._BEGAN = time.monotonic()
    program.main()
