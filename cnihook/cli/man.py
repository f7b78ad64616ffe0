# SPDX-License-Identifier: Apache-2.0
"""cnihook man: the manual pages, made from the same texts as --help."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

from cnihook import __version__
from cnihook.cli import arguments, roff
from cnihook.cli import main as commands
from cnihook.cli.arguments import Parser
from cnihook.lean.words import in_words
from cnihook.spec.errors import IO_FAILURE, CniError

DEFAULT = "/usr/local/share/man"

DESCRIPTION = """\
Show the manual page of a command, or write it to a pipe or file, in the language of man(7).

  cnihook man ps
  cnihook man ps > cnihook-ps.8

Other pages: priv-net-run, docker-run, cni-runc; cookbook, troubleshooting by symptom, security,
and host-settings.
"""
EPILOG = f"""\
--install and --remove go without PAGE; DIR is {DEFAULT} unless said otherwise.  After --install,
`man cnihook-ps` and `man cnihook-cookbook` work.
"""

_PROGRAMS = {
    "priv-net-run": "a command in a network of its own",
    "docker-run": "docker run with networks from CNI",
    "cni-runc": "runc, with the hook in each container that asks for networks",
}
_GUIDES = {
    "cookbook": "twelve tasks with container networks, step by step",
    "troubleshooting": "what may be wrong with container networks, by symptom",
    "security": "what is promised, to which party, and how requests are bounded",
    "host-settings": "what is changed on the host, when, and how to undo it",
}
PAGES = ["cnihook", *commands.COMMANDS, *_PROGRAMS, *_GUIDES]
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_WIDE = 10_000  # columns: no line of the text is broken, so that man can break them


def parser() -> Parser:
    made = Parser("man", DESCRIPTION, EPILOG)
    made.add_argument("page", metavar="PAGE", nargs="?", help="a command (default: cnihook itself)")
    for option, purpose in (("--install", "write all pages below DIR"), ("--remove", "remove them again")):
        made.add_argument(option, metavar="DIR", nargs="?", const=DEFAULT, type=arguments.path, help=purpose)
    return made


def main(argv: list[str]) -> int:
    made = parser()
    found = made.parse_args(argv)
    if sum(map(bool, (found.page, found.install, found.remove))) > 1:
        made.error("PAGE, --install and --remove go one at a time")
    if found.install:
        return arguments.work("man --install", lambda: _install(found.install))
    if found.remove:
        return arguments.work("man --remove", lambda: _remove(found.remove))
    name = (found.page or "cnihook").removeprefix("cnihook-")
    if name not in PAGES:
        made.error(f"no page {found.page!r}; there are: {', '.join(PAGES)}")
    text = page(name)
    if not sys.stdout.isatty():
        print(text, end="")
        return 0
    viewer = shutil.which("man")
    if not viewer:
        print(source(name), end="")
        return 0
    return subprocess.run([viewer, "-l", "-"], input=text.encode()).returncode


def file_name(name: str) -> str:
    """`cnihook-ps.8`; those for reading are in section 7."""
    whole = name if name == "cnihook" or name in _PROGRAMS else f"cnihook-{name}"
    return f"{whole}.{7 if name in _GUIDES else 8}"


def page(name: str) -> str:
    purposes = {"cnihook": "CNI networks for containers", **commands.COMMANDS, **_PROGRAMS, **_GUIDES}
    title, _, section = file_name(name).rpartition(".")
    make = roff.from_markdown if name in _GUIDES else roff.from_help
    others = ["cnihook", *_PROGRAMS, *_GUIDES]
    also = ", ".join(re.sub(r"\.(\d)$", r"(\1)", file_name(other)) for other in others if other != name)
    return roff.page(title, int(section), __version__, purposes[name], make(source(name)), also)


def source(name: str) -> str:
    """What the page is made of: the answer to --help, or a file."""
    if name in _GUIDES:
        with open(f"{_PACKAGE}/pages/{name}.md", encoding="utf-8") as file:
            return file.read()
    if name == "cnihook":
        return commands.usage()
    if name in commands.HOOK:
        from cnihook import hook

        return hook.HELP
    if name == "priv-net-run":
        from cnihook.cli import priv_options

        return priv_options.HELP
    if name == "docker-run":
        from cnihook.cli import docker_run

        return docker_run.HELP
    if name == "cni-runc":  # its --help is that of runc
        from cnihook.cli import cni_runc

        return f"usage: cni-runc [OPTION]... COMMAND [ARGUMENT]...\n{cni_runc.__doc__}"
    made = commands.load(name).parser()
    made.formatter_class = partial(arguments.Help, width=_WIDE)
    text: str = made.format_help()
    return text


def _paths(folder: str) -> Iterator[tuple[str, str]]:
    """(page, path of its file)."""
    for name in PAGES:
        file = file_name(name)
        yield name, f"{folder}/man{file[-1]}/{file}"


def _is_ours(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().rstrip("\n") == roff.MARK
    except OSError:
        return False


def _install(folder: str) -> None:
    foreign = [path for _, path in _paths(folder) if os.path.lexists(path) and not _is_ours(path)]
    if foreign:
        raise CniError(IO_FAILURE, f"{foreign[0]} is somebody else's", "another DIR, or remove it")
    try:
        for name, path in _paths(folder):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(page(name))
    except OSError as error:
        raise CniError(IO_FAILURE, in_words(error)) from None


def _remove(folder: str) -> None:
    for _, path in _paths(folder):
        if _is_ours(path):
            os.unlink(path)
