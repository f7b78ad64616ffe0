# SPDX-License-Identifier: Apache-2.0
"""cnihook new-plugin: write a plugin project that works, as a start for a new plugin."""

import argparse
import os
import shutil

from cnihook import sdk
from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.protocol import invoke
from cnihook.types.errors import INVALID_CONFIG, CniError

DESCRIPTION = """\
Write a plugin project into a new folder NAME: the plugin, its tests (which pass), a network that uses it,
and a README that says how to run all three.  The plugin is a chained plugin with a small function.
"""

_PLACEHOLDER = "myplugin"
_TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(sdk.__file__)), "template")


def parser() -> Parser:
    parser = Parser("new-plugin", DESCRIPTION)
    parser.add_argument("name", metavar="NAME", type=_name, help="the plugin's type, such as mytype")
    parser.add_argument(
        "--dir",
        metavar="DIR",
        type=arguments.path,
        help="the folder to write to (default: NAME in the current folder)",
    )
    return parser


def _name(text: str) -> str:
    """Return `text` if it can name a CNI type, a file and, because a test is named after it, a module."""
    if not (text.isascii() and text.isidentifier() and text == text.lower()):
        raise argparse.ArgumentTypeError(
            f"{text!r} cannot be the name: lower-case letters, digits and _, a letter first"
        )
    if invoke.is_built_in(text):
        raise argparse.ArgumentTypeError(f"there is a built-in plugin {text}, which would go first")
    return text


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    folder = options.dir or os.path.abspath(options.name)

    def work() -> None:
        if os.path.exists(folder) and os.listdir(folder):
            raise CniError(INVALID_CONFIG, f"{folder} is not empty", "--dir names another folder")
        os.makedirs(folder, exist_ok=True)
        for name in sorted(os.listdir(_TEMPLATE)):
            if not name.startswith("__"):
                _copy(
                    f"{_TEMPLATE}/{name}",
                    f"{folder}/{name.replace(_PLACEHOLDER, options.name)}",
                    options.name,
                )
        arguments.say(f"{folder}: {', '.join(sorted(os.listdir(folder)))}; README.md says how to go on")

    return arguments.work(f"new-plugin {options.name}", work)


def _copy(source: str, target: str, name: str) -> None:
    with open(source) as file:
        text = file.read()
    with open(target, "w") as file:
        # The name of a bridge has at most 15 characters; that of a plugin may have more.
        file.write(text.replace(f"{_PLACEHOLDER}0", f"{name[:14]}0").replace(_PLACEHOLDER, name))
    shutil.copymode(source, target)
