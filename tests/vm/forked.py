# SPDX-License-Identifier: Apache-2.0
"""The built-in plugins in a guest, each call a process that pytest forks.

As an executable, a plugin starts Python and imports what it needs: a third of a second on an emulated
processor, four fifths of a guest's time.  That the executables work the other kernel's tests see.
"""

import os
import pkgutil
import subprocess
import sys
import traceback
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import cnihook
from cnihook.sdk import executable
from tests.support.cni import Implementation

if TYPE_CHECKING:
    from tests.support.host import Host

PACKAGES = ("lean", "linux", "plugins", "sdk", "spec")


class Forked(Implementation):
    """`folder`, the plugins' CNI_PATH, has none in it, so that a delegate is not started either."""

    def __init__(self, folder: Path) -> None:
        super().__init__("builtin", folder, [])
        for package in PACKAGES:
            (path,) = cnihook.__path__
            for module in pkgutil.iter_modules([f"{path}/{package}"], f"cnihook.{package}."):
                if not module.ispkg:
                    import_module(module.name)

    def run(
        self, host: "Host", plugin: str, conf: str, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return host.run(
            plugin,
            input=conf,
            env=environment,
            check=False,
            timeout=20,
            preexec_fn=partial(serve, plugin, environment),
        )


def serve(plugin: str, environment: dict[str, str]) -> NoReturn:
    """What the child does with its request, in place of executing a program."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # the pipe with it that tells the parent of exec
    os.environ.clear()
    os.environ.update(environment)
    status = 1
    try:
        executable.main(plugin)
    except SystemExit as end:
        status = int(str(end.code or 0))
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        sys.stdout = sys.stderr = None  # pytest's
        os._exit(status)
