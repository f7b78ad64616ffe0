# SPDX-License-Identifier: Apache-2.0
"""Shared parts of the commands: parsing of arguments; start and failure of work on networks."""

import argparse
import json
import os
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from cnihook import log
from cnihook.cli.shared import containers, option_help
from cnihook.fast import similar
from cnihook.fast.errors_text import message_with_hint, printable
from cnihook.log import Log, warn
from cnihook.process import signals
from cnihook.request import bounds_file, option_table
from cnihook.request.options import OPTIONS
from cnihook.request.request import ContainerRequest
from cnihook.runtime.settings import Settings
from cnihook.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_BEGAN = time.monotonic()  # this is one of the first modules of a command
_ADMINISTRATORS = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # of runtimes, and of what plugins call


class Help(argparse.RawDescriptionHelpFormatter):
    """A formatter that keeps prose as written, and fills it if the terminal is narrower.  Examples stay."""

    def __init__(self, prog: str, width: int = 0) -> None:
        # Argparse makes a formatter for each option that is added, and would import shutil for the width.
        super().__init__(prog, width=width or option_help.default_width())

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return option_help.filled(super()._fill_text(text, width, indent), width)

    # A value that may be left out is [=VALUE] in --help, because the next argument is not the value.

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        metavar = str(action.metavar)
        return metavar if metavar.startswith("[=") else super()._format_args(action, default_metavar)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return super()._format_action_invocation(action).replace(" [=", "[=")

    def _format_usage(self, *parts: "Any") -> str:
        return super()._format_usage(*parts).replace(" [=", "[=")

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """An argparse parser that prints an error in one line, like every error of cnihook."""

    def __init__(self, command: str, description: str, epilog: str = "", usage: str | None = None) -> None:
        super().__init__(
            prog=f"cnihook {command}",
            usage=usage,
            description=description,
            epilog=epilog,
            formatter_class=Help,
            allow_abbrev=False,  # an abbreviation that is unique today may be ambiguous tomorrow
        )
        self._command = command
        self.commands: Mapping[str, argparse.ArgumentParser] = {}  # also by their other names
        self._group: "argparse._SubParsersAction[_Subcommand] | None" = None
        self._bare: set[str] = set()  # options that may have a value, but not as the next argument

    def error(self, message: str) -> "NoReturn":
        warn(f"{self._command}: {similar.ended(message)} see `cnihook {self._command} --help`")
        raise SystemExit(2)

    def add_command(self, name: str, purpose: str, module: "Any", aliases: "Sequence[str]" = ()) -> None:
        """Add a command of this command.  Its module has DESCRIPTION, maybe EPILOG, and add_arguments()."""
        if not self._group:
            self._group = self.add_subparsers(
                dest="command",
                metavar="COMMAND",
                required=True,
                parser_class=_Subcommand,
                title="commands",
                help="one of these",
            )
            self.commands = self._group.choices
        for each in (name, *aliases):
            listed: dict[str, Any] = {"help": purpose} if each == name else {}
            epilog = getattr(module, "EPILOG", "")
            parser = self._group.add_parser(each, description=module.DESCRIPTION, epilog=epilog, **listed)
            parser.set_defaults(command=name)
            module.add_arguments(parser)

    def add_container(
        self,
        to: "argparse._ActionsContainer | None" = None,
        *,
        nargs: "str | None" = None,
        default: str = "",
    ) -> None:
        """Add the argument `id`, or add it to a group.  `default`: what is meant without it."""
        (to or self).add_argument(
            "id",
            metavar="CONTAINER",
            nargs=nargs,
            type=checked(containers.check_name),
            help="its name, its ID or the beginning of that" + (f" (default: {default})" if default else ""),
        )

    def add_verbose(self) -> None:
        self.add_argument(
            "-v", "--verbose", action="store_true", help="print the time of each step on stderr"
        )

    def add_requests(self, program: str) -> None:
        """Add the requests of the option table that a program has.

        The parsed namespace has all of them as `request`, and each as (option, text) in `given`.
        """
        group = self.add_argument_group("requests, as options instead of annotations cnihook.*")
        self.set_defaults(request=ContainerRequest(), given=[])
        for entry in option_table.of(program):
            if entry.annotation:
                group.add_argument(
                    *entry.flags.split(", "),
                    nargs=None if entry.needs_value else "?" if entry.metavar else 0,
                    action=_AddOption,
                    **_help(entry),
                )
                if entry.metavar and not entry.needs_value:
                    self._bare.add(f"--{entry.name}")

    def add_bounds(self) -> None:
        """Add bounds on annotations.  bounds_of() turns them into arguments of the hook."""
        group = self.add_argument_group(option_table.BOUNDS)
        for name in ("allow", "ports"):
            check = checked(partial(bounds_file.set_flag, None, f"--{name}"))
            group.add_argument(f"--{name}", type=check, **_help(option_table.entry(name)))

    def parse_args(self, *arguments: "Any", **options: "Any") -> "Any":
        if "request" in self._defaults:
            self.set_defaults(request=ContainerRequest(), given=[])  # not those of an earlier call
            words, *others = arguments
            arguments = ([f"{word}=" if word in self._bare else word for word in words], *others)
        namespace, others = self.parse_known_args(*arguments, **options)
        if others:
            self.error(f"unrecognized arguments: {' '.join(others)}{self._like(others[0])}")
        return namespace

    def _like(self, argument: str) -> str:
        """Return a hint for a misspelled option; empty for an operand."""
        option = argument.partition("=")[0]
        options = [each for each in self._option_string_actions if each.startswith("--")]
        return f"; {similar.hint(option, options)}" if option.startswith("--") else ""

    def _check_value(self, action: argparse.Action, value: "Any") -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"no {value!r}; {similar.hint(value, action.choices)}")

    def add_conf_dir(self) -> None:
        self.add_argument("--conf-dir", type=path, **_help(option_table.entry("conf-dir")))

    def add_plugin_dirs(self) -> None:
        self.add_argument("--cni-path", **_help(option_table.entry("cni-path")))


class _Subcommand(Parser):
    """The parser of a command of a command, as argparse makes it; newer Pythons pass more options."""

    def __init__(self, *, prog: str, description: str, epilog: str, **_options: object) -> None:
        super().__init__(prog.removeprefix("cnihook "), description, epilog)


def _help(entry: option_table.Entry) -> "dict[str, Any]":
    return {"metavar": entry.metavar or None, "help": entry.help.replace("%", "%%")}


class _AddOption(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: "Any",
        option: str | None = None,
    ) -> None:
        name = self.dest.replace("_", "-")
        text = values or ""
        try:
            OPTIONS[name].add(namespace.request, text)
            namespace.given.append((name, text))
        except CniError as error:
            raise argparse.ArgumentError(self, str(error)) from None


def checked(check: Callable[[str], object]) -> Callable[[str], str]:
    """Return a converter for add_argument(type=): it returns the text itself if `check` accepts it."""

    def convert(text: str) -> str:
        try:
            check(text)
        except CniError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return convert


def path(text: str) -> str:
    """Return an absolute path, for add_argument(type=).

    An empty path is rejected: it is a variable without a value, not the current folder.
    """
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return os.path.abspath(text)


def interval(text: str) -> float:
    """Return the seconds between two looks, for add_argument(type=)."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0.05 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time of 0.05 to 86400 seconds")
    return value


def settings_of(options: argparse.Namespace) -> Settings:
    settings = Settings.from_environment(os.environ)
    if getattr(options, "conf_dir", None):
        settings.conf_dir = options.conf_dir
    if options.cni_path:
        settings.plugin_dirs = [folder for folder in options.cni_path.split(":") if folder]
    return settings


def bounds_of(options: argparse.Namespace) -> list[str]:
    """Return the arguments of the hook that set the same bounds."""
    values = {name: getattr(options, name) for name in ("allow", "ports")}
    return [f"--{name}={value}" for name, value in values.items() if value is not None]


def environment_of(options: argparse.Namespace) -> dict[str, str]:
    """Return the environment, with NETCONFPATH and CNI_PATH replaced by the values of their options."""
    environment = dict(os.environ)
    if options.conf_dir:
        environment["NETCONFPATH"] = options.conf_dir
    if options.cni_path:
        environment["CNI_PATH"] = options.cni_path
    return environment


def work(what: str, function: Callable[[], None], *, verbose: bool = False) -> int:
    """Run `function`, which changes networks, and return the exit code.

    A failure, or a signal to end, is reported in a line on stderr.  A signal raises Interrupted in
    `function`, so that its steps so far are undone.  `verbose`: print the time of each step on stderr.
    """
    steps = log.measure_steps(_BEGAN) if verbose else None
    signals.reset()
    os.umask(0o022)
    folders = [folder for folder in os.environ.get("PATH", os.defpath).split(":") if folder]
    folders += [folder for folder in _ADMINISTRATORS if folder not in folders]
    os.environ["PATH"] = ":".join(folders)
    try:
        function()
        return 0
    except (Exception, signals.Interrupted) as error:
        if os.environ.get("CNIHOOK_DEBUG") and isinstance(error, Exception):
            raise
        warn(f"{what}: {message_with_hint(error)}")
        return 1
    finally:
        if steps:
            steps.end("the rest")
            for name, seconds in steps.seconds.items():
                warn(f"{what}: {seconds * 1000:.2f} ms: {name}")
            warn(f"{what}: {steps.total * 1000:.2f} ms in total")


def as_json(value: object, indent: "int | None" = 4) -> str:
    """Return `value` as JSON, in ASCII without control characters, because it may reach a terminal."""
    return json.dumps(value, indent=indent).replace("\x7f", "\\u007f")


def print_json(value: object) -> None:
    print(as_json(value))


def say(text: str) -> None:
    """Print lines that contain names and messages from elsewhere, with control characters escaped."""
    for line in text.split("\n"):
        print(printable(line))


@contextmanager
def failures_in(events: Log, operation: str) -> Iterator[None]:
    """Write any exception of the block to the container's log, and raise it again."""
    try:
        yield
    except BaseException as error:
        events.failure(operation, error)
        raise
