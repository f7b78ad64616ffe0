# SPDX-License-Identifier: Apache-2.0
"""cnihook man: show or install the manual pages, which are made from the texts of --help."""

import argparse
import os
import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from functools import partial

from cnihook import __version__
from cnihook.cli import main as commands
from cnihook.cli.shared import arguments, files, plugin_options, roff, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.fast import similar
from cnihook.fast.errors_text import message
from cnihook.protocol import invoke
from cnihook.types.errors import IO_FAILURE, CniError

DEFAULT = "/usr/local/share/man"

DESCRIPTION = """\
Show the manual page of a command, of a plugin's options, or a guide.  Into a pipe or a file, plain text is
written.

  cnihook man ps
  cnihook man bridge
  cnihook man cookbook | grep -i ipv6
"""

_PROGRAMS = {
    "priv-net-run": "run a command in a network namespace of its own",
    "docker-run": "run `docker run` with CNI networks",
    "cni-runc": "run runc, with the hook in containers that request networks",
}
_GUIDES = {
    "cookbook": "fifteen tasks with container networks, step by step",
    "troubleshooting": "what may be wrong with container networks, by symptom",
    "live": "change the networks of a container that runs",
    "installing": "from a checkout, with pip, as a Debian package",
    "networks": "network files, and how plugins are found",
    "ways-in": "runc, crun, podman, docker, containerd, systemd",
    "kubernetes": "the plugins of a node, with containerd or CRI-O",
    "many-hosts": "one network over several hosts, whatever happens to etcd",
    "transports": "how containers of several hosts reach each other",
    "scale": "what a network of 5,000 hosts costs",
    "options": "what a container can request",
    "policies": "which connections containers may have",
    "policy-names": "DNS names in the policies of containers",
    "plugins": "the built-in plugins",
    "plugin-options": "all options of the built-in plugins",
    "commands": "all commands, by task",
    "library": "the CNI runtime in a Python program",
    "plugin-authors": "write a plugin",
    "conformance-suite": "checks of any plugin and any runtime",
    "differences": "where the built-in plugins differ from the reference",
    "peers": "the same features elsewhere",
    "tested-on": "versions that the tests ran with",
    "security": "what is promised to which party, and limits on requests",
    "host-settings": "what is changed on the host, when, and how to undo it",
    "design": "how the parts fit, and state on disk",
    "start-time": "the steps of a container's start, and their times",
    "contributing": "tests and tools",
    "changes": "versions",
}
_LISTED = {"other programs": _PROGRAMS, "guides": _GUIDES}
EPILOG = "\n".join(
    f"{title}:\n" + "".join(f"  {name:<17}  {purpose}\n" for name, purpose in pages.items())
    for title, pages in _LISTED.items()
)
_PLUGINS = invoke.built_in_types()
EPILOG += f"""
plugins:
{textwrap.fill(", ".join(_PLUGINS), 76, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)}

--install and --remove take no PAGE.  DIR is {DEFAULT} by default.  After --install,
`man cnihook-ps` and `man cnihook-cookbook` work.
"""
# page: the command, its own command and the purpose of that
_OWN = {
    f"{command}-{name}": (command, name, purpose)
    for command, own in commands.OWN_COMMANDS.items()
    for name, purpose in own.items()
}
PAGES = ["cnihook", *commands.COMMANDS, *_OWN, *_PROGRAMS, *_GUIDES, *_PLUGINS]
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_WIDE = 10_000  # columns: no line of the text is broken, so that man can break them


def parser() -> Parser:
    parser = Parser("man", DESCRIPTION, EPILOG)
    parser.add_argument(
        "page",
        metavar="PAGE",
        nargs="?",
        help="a command, program, guide or plugin (default: cnihook itself)",
    )
    for option, purpose in (
        ("--install", "write all pages below DIR"),
        ("--remove", "remove all pages below DIR"),
    ):
        parser.add_argument(
            option, metavar="DIR", nargs="?", const=DEFAULT, type=arguments.path, help=purpose
        )
    return parser


def main(argv: list[str]) -> int:
    usage = parser()
    options = usage.parse_args(argv)
    if sum(map(bool, (options.page, options.install, options.remove))) > 1:
        usage.error("PAGE, --install and --remove can be used only one at a time")
    if options.install:
        return arguments.work("man --install", lambda: _install(options.install))
    if options.remove:
        return arguments.work("man --remove", lambda: _remove(options.remove))
    name = (options.page or "cnihook").removeprefix("cnihook-")
    if name not in PAGES:
        usage.error(f"no page {options.page!r}; {similar.hint(name, PAGES)}")
    viewer = shutil.which("man")
    argv = [viewer or "", "-l", "-"]
    if viewer and terminal.is_terminal():
        return subprocess.run(argv, input=page(name).encode()).returncode
    text = b""
    if viewer:  # man(1) writes plain text to a pipe, and nothing if it has no formatter
        text = subprocess.run(argv, input=page(name).encode(), capture_output=True).stdout
    print(text.decode(errors="replace") or source(name), end="")
    return 0


def file_name(name: str) -> str:
    """Return the name of a page's file: `cnihook-ps.8`; guides and plugins are in section 7."""
    whole = name if name == "cnihook" or name in _PROGRAMS else f"cnihook-{name}"
    return f"{whole}.{7 if _is_markdown(name) else 8}"


def _is_markdown(name: str) -> bool:
    return name in _GUIDES or name in _PLUGINS


def page(name: str) -> str:
    purposes = {"cnihook": "CNI networks for containers", **commands.COMMANDS, **_PROGRAMS, **_GUIDES}
    purposes |= {own: purpose for own, (_command, _name, purpose) in _OWN.items()}
    purpose = plugin_options.purpose(name) if name in _PLUGINS else purposes[name]
    title, _, section = file_name(name).rpartition(".")
    make = roff.from_markdown if _is_markdown(name) else roff.from_help
    others = ["cnihook", *_PROGRAMS, *_GUIDES]
    also = ", ".join(re.sub(r"\.(\d)$", r"(\1)", file_name(other)) for other in others if other != name)
    return roff.page(title, int(section), __version__, purpose, make(source(name)), also)


def source(name: str) -> str:
    """Return the text of a page: the output of --help, or a file."""
    if name in _GUIDES:
        with open(f"{_PACKAGE}/pages/{name}.md", encoding="utf-8") as file:
            return file.read()
    if name in _PLUGINS:
        return plugin_options.page_of(name)
    if name == "cnihook":
        return commands.usage()
    if name in commands.HOOK:
        from cnihook.cli import hook_help

        return hook_help.text(_WIDE)
    if name == "priv-net-run":
        from cnihook.cli.privnet import help as priv_net_run_help

        return priv_net_run_help.text(_WIDE)
    if name == "docker-run":
        from cnihook.cli.docker import help as docker_run_help

        return docker_run_help.text(_WIDE)
    if name == "cni-runc":  # its --help is that of runc
        from cnihook.cli import cni_runc

        return f"usage: cni-runc [OPTION]... COMMAND [ARGUMENT]...\n{cni_runc.__doc__}"
    parser = commands.load(name).parser() if name in commands.COMMANDS else _parser_of(name)
    parser.formatter_class = partial(arguments.Help, width=_WIDE)
    text: str = parser.format_help()
    return text


def _parser_of(name: str) -> "argparse.ArgumentParser":
    """Return the parser of a command's own command, such as network-create."""
    command, own, _purpose = _OWN[name]
    parser: argparse.ArgumentParser = commands.load(command).parser().commands[own]
    return parser


def paths(folder: str) -> Iterator[tuple[str, str]]:
    """Yield (page, path of its file)."""
    for name in PAGES:
        file = file_name(name)
        yield name, f"{folder}/man{file[-1]}/{file}"


def is_ours(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().rstrip("\n") == roff.MARK
    except OSError:
        return False


def _install(folder: str) -> None:
    foreign = [path for _, path in paths(folder) if os.path.lexists(path) and not is_ours(path)]
    if foreign:
        raise CniError(
            IO_FAILURE, f"{foreign[0]} was not written by cnihook", "choose another DIR, or remove it"
        )
    try:
        for name, path in paths(folder):
            files.make_folder(os.path.dirname(path))
            files.write(path, page(name))
    except OSError as error:
        raise CniError(IO_FAILURE, message(error)) from None


def _remove(folder: str) -> None:
    for _, path in paths(folder):
        if is_ours(path):
            os.unlink(path)
