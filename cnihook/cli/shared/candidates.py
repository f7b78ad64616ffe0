# SPDX-License-Identifier: Apache-2.0
"""
What may come next on a command line, for the completion of every shell.

A value is completed by the name of its argument in the parser, or of its option in the option table, so a
new argument `network` of any command completes networks.
"""

import argparse
import os
from collections.abc import Callable, Iterable, Iterator, Mapping

from cnihook import log
from cnihook.cli import main as commands
from cnihook.cli.shared import containers, listing
from cnihook.linux import netns
from cnihook.oci import engines, runtimes
from cnihook.policy import store
from cnihook.protocol import invoke
from cnihook.request import option_table
from cnihook.runtime import networks
from cnihook.runtime.settings import Settings

Candidates = Iterable[tuple[str, str]]  # (word, its purpose)

PROGRAMS = (option_table.PRIV_NET_RUN, option_table.DOCKER_RUN)
FILES = ":files"  # the answer by which a script completes names of files


class Argument:
    """An option or an operand.  `name`: that of its value, for VALUES; empty if it takes none."""

    def __init__(self, name: str, purpose: str = "", choices: "Iterable[str] | None" = None) -> None:
        self.name = name
        self.purpose = purpose
        self.choices = choices


class Syntax:
    """The arguments of a command.

    `commands`: the commands of this command, which are an operand.  `repeats`: the last operand may be given
    again.
    """

    def __init__(self) -> None:
        self.commands: Mapping[str, argparse.ArgumentParser] = {}
        self.options: dict[str, Argument] = {}
        self.operands: list[Argument] = []
        self.repeats = False


def after(words: "list[str]") -> "Iterator[tuple[str, str]]":
    """Yield (word, its purpose) for each word that the last of `words` may become; FILES for any file.

    The first word is the program.
    """
    if len(words) < 2:
        return
    program, *before, word = _joined(words)
    is_split = len(words) > 2 and "=" in words[-2:]  # bash completes what comes after the =
    offered = _offered(os.path.basename(program), before, word)
    if offered is None:
        yield FILES, ""
        return
    for candidate, purpose in offered:
        if candidate.startswith(word):
            yield (candidate.rpartition("=")[2] if is_split else candidate), purpose


def _joined(words: "list[str]") -> "list[str]":
    """Return `words` with --option=value as one: bash splits a line at each =."""
    joined: list[str] = []
    is_open = False
    for word in words:
        if is_open or (word == "=" and len(joined) > 1):
            joined[-1] += word
        else:
            joined.append(word)
        is_open = word == "="
    return joined


def _offered(program: str, before: "list[str]", word: str) -> "Candidates | None":
    command = program
    if program not in PROGRAMS:
        if not before:
            return commands.COMMANDS.items()
        command, *before = before
        if command == "help" and not before:
            return commands.COMMANDS.items()
        if command not in commands.COMMANDS:
            return ()
    syntax = syntax_of(command)
    if program == option_table.DOCKER_RUN:
        before = _before_image(before)
    pending: Argument | None = None  # an option whose value comes next
    operands = 0
    takes_options = True
    for each in before:
        if pending:
            pending = None
        elif each == "--" and takes_options:
            takes_options = False
        elif each.startswith("-") and takes_options:
            option = syntax.options.get(each)
            pending = option if option and option.name else None
        elif each in syntax.commands:
            syntax = _of_parser(syntax.commands[each])
        else:
            operands += 1
            takes_options = takes_options and program not in PROGRAMS  # the rest is the command
    if pending:
        return _values(command, pending, word)
    if word.startswith("-") and takes_options:
        flag, equals, value = word.partition("=")
        if equals and (option := syntax.options.get(flag)):
            of_option = _values(command, option, value)
            return None if of_option is None else [(f"{flag}={one}", what) for one, what in of_option]
        return [(flag, one.purpose) for flag, one in syntax.options.items() if flag.startswith("--")]
    if syntax.repeats and syntax.operands:
        operands = min(operands, len(syntax.operands) - 1)
    return _values(command, syntax.operands[operands], word) if operands < len(syntax.operands) else ()


def _before_image(before: "list[str]") -> "list[str]":
    """Return what counts of docker-run's arguments: docker has more options than the table."""
    from cnihook.cli.docker import options

    try:
        return options.split(before)[1]
    except options.UsageError:
        return before[-1:]  # an option without its value


def syntax_of(command: str) -> Syntax:
    """Return the arguments of a command of cnihook, or of another program."""
    if command in (*commands.HOOK, *PROGRAMS):
        return _of_table(option_table.HOOK if command in commands.HOOK else command)
    return _of_parser(commands.load(command).parser())


def _of_parser(parser: argparse.ArgumentParser) -> Syntax:
    syntax = Syntax()
    for action in parser._actions:
        purpose = "" if action.help in (None, argparse.SUPPRESS) else str(action.help)
        is_complete = action.nargs == 0 or str(action.metavar).startswith("[=")
        name = "" if is_complete else action.dest
        for flag in action.option_strings:
            syntax.options[flag] = Argument(name, purpose, action.choices)
        if not action.option_strings:
            syntax.operands.append(Argument(name, purpose, action.choices))
            syntax.repeats = action.nargs in ("*", "+")
        if isinstance(action, argparse._SubParsersAction):
            syntax.commands = action.choices
    return syntax


def _of_table(program: str) -> Syntax:
    syntax = Syntax()
    for entry in option_table.of(program):
        for flag in entry.flags.split(", "):
            syntax.options[flag] = Argument(
                entry.name.replace("-", "_") if entry.needs_value else "", entry.help
            )
    syntax.options["--help"] = Argument("", "print the help text")
    if program == option_table.PRIV_NET_RUN:
        syntax.options["--version"] = Argument("", "print the version")
        syntax.operands, syntax.repeats = [Argument("command")], True
    if program == option_table.DOCKER_RUN:
        from cnihook.cli.docker import options

        syntax.options |= {f"--{name}": Argument("") for name in sorted(options.SWITCHES)} | syntax.options
    return syntax


def _values(command: str, argument: Argument, word: str) -> "Candidates | None":
    """Return the values of an argument; None for files."""
    if argument.choices is not None:
        return [(str(choice), "") for choice in argument.choices]
    by_command = f"{command} {argument.name}"
    values = VALUES[by_command] if by_command in VALUES else VALUES.get(argument.name, _free)
    return values(word) if values else None


# Values


def _free(word: str) -> Candidates:
    return ()


def _networks(word: str) -> Candidates:
    """Return the networks that are configured, and those that only a record knows any more."""
    purposes = {one.network: "on record" for one in _rows()}
    for one in networks.load_folder(Settings.from_environment(os.environ).conf_dir)[0]:
        purposes[one.name] = " ".join(str(plugin["type"]) for plugin in one.plugins)
    return sorted(purposes.items())


def _networks_or_containers(word: str) -> Candidates:
    return [*_containers(word), *_networks(word)]


def _containers(word: str) -> Candidates:
    """Return the containers on record, with their networks."""
    on: dict[tuple[str, str], list[str]] = {}
    for one in _rows():
        on.setdefault((one.shown, one.container), []).append(one.network)
    return _by_name(word, ((*names, " ".join(of)) for names, of in on.items()))


def _logged(word: str) -> Candidates:
    """Return the containers that have a log."""
    names = _engine_names()
    ids = sorted({*log.names(), *log.finished()})
    return _by_name(word, ((names.get(each) or containers.short(each), each, "") for each in ids))


def _sticky_names(word: str) -> Candidates:
    from cnihook.ipam import sticky

    try:
        return [(name, "") for name in sticky.names()]
    except OSError:
        return ()  # only root may read them


def _policies(word: str) -> Candidates:
    return [(one.name, str(one.selection)) for one in store.load().all]


def _running(word: str) -> Candidates:
    """Return the containers of which runc or crun has a state."""
    names = _engine_names()
    places = engines.places().items()
    return _by_name(
        word,
        ((names.get(each) or containers.short(each), each, of[0][0]) for each, of in places),
    )


def _rows() -> "list[listing.Row]":
    try:
        return listing.load()
    except OSError:
        return []  # only root may read the records


def _engine_names() -> "dict[str, str]":
    return {one.network_of: one.name for one in engines.containers() if one.name}


def _by_name(word: str, named: "Iterable[tuple[str, str, str]]") -> Candidates:
    """Return (name, purpose) of each (name, ID, purpose); the ID, too, once a part of it is typed."""
    for name, container_id, purpose in named:
        yield name, purpose
        if word and name != container_id:
            yield container_id, purpose


def _namespaces(word: str) -> Candidates:
    try:
        return [(name, "") for name in sorted(os.listdir(netns.NAMES))]
    except OSError:
        return ()


def _pages(word: str) -> Candidates:
    from cnihook.cli import man

    return [(page, "") for page in man.PAGES]


def _plugins(word: str) -> Candidates:
    return [(plugin, "") for plugin in invoke.built_in_types()]


def _fields(word: str) -> Candidates:
    from cnihook.cli import ps

    return [(name, "") for name in ps.NAMES]


def _conditions(word: str) -> Candidates:
    return [(f"{name}=", "") for name, _ in _fields(word)]


def _forms(word: str) -> Candidates:
    return [("json", "a line of JSON each"), *((f"{{{name}}}", "") for name, _ in _fields(word))]


def _parts(word: str) -> Candidates:
    from cnihook.cli.installation import part_names

    before, comma, _ = word.rpartition(",")
    return [(f"{before}{comma}{name}", purpose) for name, purpose in part_names.PARTS.items()]


def _runtimes(word: str) -> Candidates:
    return [(runtime, "") for runtime in runtimes.KNOWN]


# By the name of an argument, or by its command and its name.  None: files.  Others have no candidates.
VALUES: "dict[str, Callable[[str], Candidates] | None]" = {
    "network": _networks,
    "networks": _networks,
    "sticky": _sticky_names,
    "sticky names": _sticky_names,
    "check network": _networks_or_containers,
    "id": _containers,
    "ids": _containers,
    "attach id": _running,
    "connect id": _running,
    "logs id": _logged,
    "container": _containers,
    "keep": _containers,
    "netns": _namespaces,
    "page": _pages,
    "subject": _plugins,
    "plugin": _plugins,
    "policy": _policies,
    "policy name": _policies,
    "policy names": _policies,
    "attach runtime": _runtimes,
    "connect runtime": _runtimes,
    "ps filter": _conditions,
    "ps sort": _fields,
    "ps format": _forms,
    "parts": _parts,
} | dict.fromkeys(
    (
        *(
            "bundle",
            "cni_path",
            "command",
            "conf_dir",
            "config",
            "destdir",
            "dir",
            "files",
            "folder",
            "install",
            "json",
        ),
        *("junit", "network_config", "output", "pcap", "plugins", "policy source", "prefix", "remove"),
        *("agent settings", "root", "socket"),
    )
)
