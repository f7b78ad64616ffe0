# SPDX-License-Identifier: Apache-2.0
"""cnihook install-plugins: install the built-in plugins as executables, for other CNI runtimes."""

import os

from cnihook.cli.shared import arguments, files, launcher
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
    foreign = [p for p in plugins if os.path.lexists(f"{folder}/{p}") and not is_ours(f"{folder}/{p}")]
    for plugin in plugins:
        if plugin not in foreign or force:
            files.write(f"{folder}/{plugin}", content(plugin), 0o755)
    if foreign and not force:
        raise CniError(
            IO_FAILURE,
            f"in {folder}, {', '.join(foreign)} was not written by cnihook, left as it is",
            "--force replaces it; or take another folder",
        )


def content(plugin: str) -> str:
    """Return the executable of a built-in plugin."""
    return launcher.text(_MARK, "protocol.executable", repr(plugin))


def is_ours(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return _MARK in file.read(1000)
    except OSError:
        return False


def _remove(path: str) -> None:
    if is_ours(path):
        os.unlink(path)
