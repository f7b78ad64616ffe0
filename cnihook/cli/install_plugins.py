# SPDX-License-Identifier: Apache-2.0
"""cnihook install-plugins: install the built-in plugins as executables, for other CNI runtimes."""

import os
import sys

from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.fast import similar
from cnihook.fast.errors_text import message
from cnihook.protocol import invoke
from cnihook.types.errors import IO_FAILURE, CniError

DESCRIPTION = """\
Install an executable of each built-in plugin in DIR, for podman, containerd, CRI-O, or another program that
calls CNI plugins.  Each is a launcher of a few lines that uses this installation.
"""

EPILOG = """\
A file in DIR that cnihook did not write is reported and left as it is; --force replaces it.  --remove
removes only the launchers.
"""

_MARK = "# A built-in plugin of cnihook; `cnihook install-plugins --remove` takes it away."
_LAUNCHER = """\
#!{python} -IS
{mark}
import os
import sys
os.umask(os.umask(0o077) | 0o022)
cache = {folder!r} + "/cnihook/__pycache__"
if os.path.isdir(cache):
    status = os.stat(cache)
    if status.st_mode & 0o022 or status.st_uid not in (0, os.stat({folder!r}).st_uid):
        sys.pycache_prefix = os.devnull
sys.path.insert(0, {folder!r})
from cnihook import codecache
codecache.install_finder()
from cnihook.protocol.executable import main
main({plugin!r})
"""


def parser() -> Parser:
    parser = Parser("install-plugins", DESCRIPTION, EPILOG)
    parser.add_argument("folder", metavar="DIR", type=arguments.path, help="the folder")
    parser.add_argument(
        "--plugin",
        metavar="TYPE",
        action="append",
        help="a plugin to install or remove (default: all), repeatable",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--force", action="store_true", help="replace files that cnihook did not write")
    which.add_argument("--remove", action="store_true", help="remove the launchers from DIR")
    return parser


def main(argv: list[str]) -> int:
    usage = parser()
    options = usage.parse_args(argv)
    built_in = invoke.built_in_types()
    for plugin in options.plugin or ():
        if plugin not in built_in:
            usage.error(f"no built-in plugin {plugin!r}; {similar.hint(plugin, built_in)}")
    plugins = options.plugin or built_in

    def work() -> None:
        if options.remove:
            for plugin in plugins:
                _remove(f"{options.folder}/{plugin}")
        else:
            _install(options.folder, plugins, force=options.force)

    return arguments.work("install-plugins", work)


def _install(folder: str, plugins: list[str], *, force: bool) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise CniError(IO_FAILURE, message(error)) from None
    foreign = [p for p in plugins if os.path.lexists(f"{folder}/{p}") and not _is_ours(f"{folder}/{p}")]
    for plugin in plugins:
        if plugin not in foreign or force:
            _write(f"{folder}/{plugin}", plugin)
    if foreign and not force:
        raise CniError(
            IO_FAILURE,
            f"in {folder}, {', '.join(foreign)} was not written by cnihook, left as it is",
            "--force replaces it; or take another folder",
        )


def _write(path: str, plugin: str) -> None:
    """Write a launcher atomically, because a runtime may be about to call it."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    temporary = f"{path}.new"
    with open(temporary, "w") as file:
        file.write(_LAUNCHER.format(python=_python(), mark=_MARK, folder=package, plugin=plugin))
        os.fchmod(file.fileno(), 0o755)
    os.rename(temporary, path)


def _python() -> str:
    """Return the interpreter itself: a shim in front of it would delay every container's start."""
    return os.path.realpath(sys.executable)


def _is_ours(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return _MARK in file.read(1000)
    except OSError:
        return False


def _remove(path: str) -> None:
    if _is_ours(path):
        os.unlink(path)
