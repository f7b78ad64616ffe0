# SPDX-License-Identifier: Apache-2.0
"""cnihook network edit: change a network's file in an editor."""

import argparse
import os
import shlex
import subprocess
import tempfile

from cnihook.cli.networks import removal, store
from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.container.edited import Files
from cnihook.fast.errors_text import message
from cnihook.log import warn
from cnihook.protocol import locks
from cnihook.runtime import networks
from cnihook.runtime.networks import Network
from cnihook.runtime.settings import Settings
from cnihook.types.errors import IO_FAILURE, CniError, invalid_config

DESCRIPTION = """\
Open a copy of a network's file in $VISUAL or $EDITOR (default: vi).  If the copy is valid, it replaces the
file as a whole.  Otherwise the file stays as it is, and the path of the copy is printed.

Containers that run keep what they have.  Those that lack what the file has now are printed, with the
commands that show the differences, and that make them.
"""
_DEFAULT = "vi"


def add_arguments(parser: Parser) -> None:
    parser.add_argument("network", metavar="NETWORK", help="the name or the ID of a network")
    parser.add_conf_dir()
    parser.add_plugin_dirs()


def run(options: argparse.Namespace) -> int:
    settings = arguments.settings_of(options)
    network = store.find(options.network, *networks.load_folder(settings.conf_dir), settings.conf_dir)
    before = networks.read_file(network.source)
    # The ending makes editors colour it.
    fd, copy = tempfile.mkstemp(prefix=f"cnihook-{network.name}-", suffix=".json")
    with open(fd, "wb") as file:
        file.write(before)
    try:
        _edit(copy)
        text = networks.read_file(copy)
        if text == before:
            os.unlink(copy)
            arguments.say(f"{network.name}: not changed")
            return 0
        _replace(network, before, text, copy, settings)
    except CniError as error:
        error.add_note(f"{network.source} stays as it is")
        if networks.read_file(copy) == before:
            os.unlink(copy)
        else:
            error.add_note(f"the copy is {copy}")
        raise
    os.unlink(copy)
    arguments.say(network.name)
    used = removal.users({network.name}).get(network.name, ())
    files = Files(settings.conf_dir)
    late = [one for one in used if files.is_behind(one.record)]
    if late:
        names = ", ".join(removal.described(late))
        commands = f"`cnihook diff {network.name}`, `cnihook apply {network.name}`"
        warn(f"network edit: these keep the old network: {names}; {commands}")
    return 0


def _edit(path: str) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or _DEFAULT
    try:
        code = subprocess.run([*shlex.split(editor), path]).returncode
    except (OSError, ValueError) as error:
        problem = message(error) if isinstance(error, OSError) else str(error)
        raise CniError(
            IO_FAILURE, f"the editor {editor!r} cannot be started: {problem}", "set EDITOR"
        ) from None
    if code:
        raise CniError(IO_FAILURE, f"the editor {editor!r} ended with exit code {code}")


def _replace(network: Network, before: bytes, text: bytes, copy: str, settings: Settings) -> None:
    store.refuse_problems(copy, network.source, settings)
    name = networks.load_file(copy).name
    if name != network.name:
        raise invalid_config(f"the name is {name!r} instead of {network.name!r}", "create another network")
    with locks.networks(f"network edit {name}"):
        store.write(os.path.realpath(network.source), text, settings, instead_of=before)
