# SPDX-License-Identifier: Apache-2.0
"""The built-in plugins, each call a process that pytest forks.

As an executable, each starts Python and imports what it needs: half of all that a test of a plugin computes,
and in a guest, on an emulated processor, four fifths.  From reading the request on all is the executable's;
the executables themselves are for tests/netns/test_protocol.py and the suite that cnihook conformance is.
"""

import os
import pkgutil
import subprocess
import traceback
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import cnihook
from cnihook.sdk import executable
from tests.support.cni import Implementation, write_launchers

if TYPE_CHECKING:
    from tests.support.host import Host

PACKAGES = ("lean", "linux", "plugins", "sdk", "spec")


class Forked(Implementation):
    """`folder` has executables all the same; `path`, CNI_PATH, none: a delegate is not started either."""

    def __init__(self, folder: Path) -> None:
        super().__init__("builtin", folder, [])
        self.path = folder / "none"
        write_launchers(folder)
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
        os._exit(status)
