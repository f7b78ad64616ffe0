# SPDX-License-Identifier: Apache-2.0
"""Shared parts of update, publish and unpublish, which change the networks of a running container."""

import argparse

from cnihook.cli.shared import arguments, containers, spans, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.container import change
from cnihook.container.change import Place
from cnihook.container.edits import Change
from cnihook.container.engine import ContainerEngine
from cnihook.container.steps import Step
from cnihook.log import Log
from cnihook.runtime import records, temporary
from cnihook.types.errors import UNKNOWN_CONTAINER, CniError
from cnihook.types.names import check_ifname, check_network_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

EPILOG = """\
Prints a line for each difference that it makes, and nothing if nothing differs.  If anything fails,
everything is as before.

exit codes:
  0  done, or nothing differs
  1  rejected or failed: nothing is changed
  2  wrong usage; with --dry-run: something differs
"""
LASTS = """\
Established connections continue, except for those of UDP, which have no end.  --cut ends those of ports that
are no longer published, and those that a list denies.
"""
_LONGEST = 365 * 86400  # seconds


def add_arguments(parser: Parser, *, cuts: bool = False) -> None:
    """Add the options that these commands share.  `cuts`: the command has --cut."""
    parser.add_argument(
        "--network",
        metavar="NAME[:IFNAME]",
        type=checked_value(_place),
        default=Place(),
        help="the network to change (default: the first one that takes the change)",
    )
    if cuts:
        parser.add_argument(
            "--cut", action="store_true", help="end the connections that are no longer permitted"
        )
    parser.add_argument(
        "--for",
        dest="seconds",
        metavar="TIME",
        type=_time,
        default=0,
        help="undo the change after a time, such as 90s, 10m, 1h30m",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what differs; change nothing; exit with 2 if anything does",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the differences as a list of JSON objects"
    )
    parser.add_verbose()
    parser.add_plugin_dirs()


def checked_value(parse: "Callable[[str], Any]") -> "Callable[[str], Any]":
    """Return a converter for add_argument(type=): it returns what `parse` returns."""

    def convert(text: str) -> "Any":
        value: list[Any] = []
        arguments.checked(lambda each: value.append(parse(each)))(text)
        return value[0]

    return convert


def _place(text: str) -> Place:
    name, _, ifname = text.partition(":")
    check_network_name(name)
    if ifname:
        check_ifname(ifname)
    return Place(name, ifname)


def _time(text: str) -> int:
    seconds = spans.seconds(text)
    if not seconds or seconds > _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time, such as 90s, 10m or 1h30m")
    return seconds


def run(command: str, options: argparse.Namespace, wanted: Change) -> int:
    """Carry out a change, print the differences, and return the exit code."""
    differs = [False]

    def work() -> None:
        container_id = containers.on_record(options.id, is_changed=True)
        if not records.of_container(container_id):
            hint = containers.all_on_record()
            raise CniError(UNKNOWN_CONTAINER, "no network of this container is on record", hint)
        settings = arguments.settings_of(options)
        log = Log(container_id)
        with arguments.failures_in(log, command):
            steps = change.carry_out(
                container_id,
                wanted,
                settings,
                log,
                place=options.network,
                is_dry=options.dry_run,
                cuts=getattr(options, "cut", False),
                seconds=options.seconds,
            )
        if options.seconds and not options.dry_run:
            temporary.start(lambda log: ContainerEngine(settings, log))
        elif not options.dry_run:
            temporary.wake()  # a change that was temporary may be one to stay now
        differs[0] = bool(steps)
        _print(container_id, steps, options)

    code = arguments.work(f"{command} {options.id}", work, verbose=options.verbose)
    return 2 if not code and differs[0] and options.dry_run else code


def _print(container_id: str, steps: "list[Step]", options: argparse.Namespace) -> None:
    if options.json:
        arguments.print_json(
            [
                {
                    "container": container_id,
                    "network": step.network,
                    "ifname": step.ifname,
                    "change": step.what,
                    "value": step.value,
                }
                for step in steps
            ]
        )
        return
    for step in steps:
        arguments.say(step.planned if options.dry_run else step.done)
    if not steps:
        terminal.remark("nothing differs")
