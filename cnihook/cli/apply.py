# SPDX-License-Identifier: Apache-2.0
"""cnihook apply: change running containers as the files of their networks were edited."""

import argparse
import os
import select
import sys
import time

from cnihook.cli import validate
from cnihook.cli.shared import arguments, behind, spans, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.behind import Behind
from cnihook.container import apply
from cnihook.container.apply import Change
from cnihook.container.edited import Files
from cnihook.container.engine import ContainerEngine
from cnihook.fast.errors_text import message_with_notes
from cnihook.log import Log, warn
from cnihook.process import signals
from cnihook.runtime import records, temporary, update
from cnihook.runtime.networks import Network
from cnihook.runtime.records import Record
from cnihook.types.errors import INTERNAL, CniError, invalid_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

DESCRIPTION = f"""\
Change running containers as the files of their networks were edited.  `cnihook diff` shows the differences;
those that can be made in place are made.  Established connections continue.

Containers are changed one by one, each completely or not at all.  Each change is verified as by `cnihook
check`.  The first container that fails keeps what it had, and those after it are not tried.

With --try, the change is undone after a time, unless it is confirmed by Enter here, or by `cnihook apply
--confirm` from anywhere.  That does not depend on this session: a process in the background undoes the
change, and if that is killed, the next operation on the container does, as does `cnihook gc`.  Ctrl-C undoes
it at once.  If a container fails, all are changed back.

{behind.CHANGES}"""
EPILOG = """\
keys of an attachment with --json:
  container, network, ifname
  outcome   changed, kept, undone, failed, not-tried, left (nothing could be
            changed); with --dry-run: would-change, left
  revision  how often it was changed since it was attached
  keys      what was changed
  left      keys that still differ, each with its change

exit codes:
  0  nothing is behind its file any more
  1  rejected, failed, or not confirmed: stderr says what is as before
  2  wrong usage, or something is left that cannot be changed in place; with
     --dry-run: something differs
"""
_LONGEST = 86400  # seconds of a trial
_PAUSE = 0.2  # seconds between two looks at the records


def parser() -> Parser:
    parser = Parser("apply", DESCRIPTION, EPILOG)
    behind.add_network(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would change; change nothing; exit with 2 if anything differs",
    )
    how.add_argument(
        "--try",
        dest="timeout",
        metavar="TIME",
        type=_time,
        default=0,
        help="undo the change after a time, such as 60, 90s or 10m, unless it is confirmed",
    )
    how.add_argument("--confirm", action="store_true", help="keep the change of an earlier --try")
    parser.add_argument(
        "--json", action="store_true", help="print the attachments as a list of JSON objects"
    )
    parser.add_verbose()
    parser.add_conf_dir()
    parser.add_plugin_dirs()
    return parser


def _time(text: str) -> int:
    seconds = spans.seconds(f"{text}s" if text.isdigit() else text)
    if not seconds or not 2 <= seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time of 2 s to 24 h, such as 60, 90s or 10m")
    return seconds


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    report: _Confirmation | _Application = (
        _Confirmation(options) if options.confirm else _Application(options)
    )

    def work() -> None:
        try:
            report.run()
        finally:
            report.print()
            sys.stdout.flush()  # before the error, which is on stderr

    return arguments.work("apply", work, verbose=options.verbose) or report.code


class _Report:
    """The outcome for each attachment, in the order of the work."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.settings = arguments.settings_of(options)
        self.code = 0
        self._lines: "dict[tuple[str, str, str], dict[str, Any]]" = {}
        self._shown: dict[tuple[str, str, str], str] = {}
        self._printed: list[str] = []

    def add(self, outcome: str, one: "Change | Record", shown: str = "") -> None:
        """Add an attachment, or replace its outcome."""
        identity = one.network, one.container_id, one.ifname
        revision = one.revision if isinstance(one, Change) else update.revision_of(one)
        line = self._lines.setdefault(
            identity,
            {"container": one.container_id, "network": one.network, "ifname": one.ifname},
        )
        line |= {"outcome": outcome, "revision": revision}
        if isinstance(one, Change):
            line["keys"] = one.keys
            line["left"] = [{"key": each.key, "change": each.change} for each in one.left]
        self._shown.setdefault(identity, shown or one.container_id)

    def add_again(self, outcome: str, record: Record, shown: str = "") -> None:
        """Add what became of an attachment, with its present revision."""
        self.add(outcome, records.find(*record.identity) or record, shown)

    def keep(self, trial: "list[Record]") -> None:
        """Keep changes on trial.  Raises CniError if the time of one is over."""
        undone = []
        for record in trial:
            is_kept = apply.keep(record, self.settings)
            self.add_again("kept" if is_kept else "undone", record)
            undone += [] if is_kept else [record.container_id]
        temporary.wake()  # so that it ends
        if undone:
            raise CniError(INTERNAL, f"the time was over, so undone for {', '.join(undone)}")

    def print(self) -> None:
        """Print the outcomes, except those that are printed already."""
        if self.options.json:
            arguments.print_json(list(self._lines.values()))
            return
        before, self._printed = self._printed, list(self._texts())
        for text in self._printed:
            if text not in before:
                arguments.say(text)

    def _texts(self) -> "Iterator[str]":
        for identity, line in self._lines.items():
            attachment = f"{self._shown[identity]} {line['network']} {line['ifname']}"
            where = f"{attachment}, revision {line['revision']}"
            keys = line.get("keys")
            if line["outcome"] != "left":
                yield f"{line['outcome']} {where}" + (f": {', '.join(keys)}" if keys else "")
            left = [f"{each['key']} ({each['change']})" for each in line.get("left", ())]
            if left:
                yield f"left {where}: {', '.join(left)}"


class _Application(_Report):
    def run(self) -> None:
        for record in apply.on_trial(self.options.network):
            if not update.is_overdue(record):
                raise CniError(
                    INTERNAL,
                    f"container {record.container_id} has a change on trial until {record.extra['until']}",
                    "`cnihook apply --confirm` keeps it",
                )
            apply.end(record, self.settings)
        present = behind.load(self.options)
        self._refuse_problems(present)
        if self.options.dry_run:
            self._preview(present)
        elif not self.options.timeout:
            self._apply_all(present, 0.0)
        else:
            self._try(present)
        if not self._lines:
            terminal.remark("nothing to apply: no container is behind the file of its network")

    def _refuse_problems(self, present: "list[Behind]") -> None:
        """Raise CniError if a file has a problem that `cnihook validate` reports."""
        folders = {one.file: one.row.record.plugin_dirs or self.settings.plugin_dirs for one in present}
        for file, plugin_dirs in folders.items():
            for problem in validate.problems_of(file, plugin_dirs) if os.path.exists(file) else ():
                raise invalid_config(problem["problem"], problem["hint"] or f"`cnihook validate {file}`")

    def _preview(self, present: "list[Behind]") -> None:
        for one in present:
            change = Change(one.row.record, one.differences)
            if change.keys or change.left:
                self.add("would-change" if change.keys else "left", change, one.row.shown)
                self.code = 2

    def _apply_all(self, present: "list[Behind]", until: float) -> "list[Change]":
        """Change all containers, up to the first one that fails.  Returns the attachments on trial."""
        networks = {network.name: network for network in self._networks(present)}
        shown = {one.row.container: one.row.shown for one in present}
        rest = {each: [one for one in present if one.row.container == each] for each in shown}
        changed: list[Change] = []
        try:
            for container_id in shown:
                names = dict.fromkeys(one.row.network for one in rest[container_id])
                own = [networks[name] for name in names]
                log = Log(container_id)
                try:
                    with arguments.failures_in(log, "apply"):
                        changes = apply.apply(container_id, own, self.settings, log, until=until)
                except (CniError, OSError) as error:
                    error.add_note(f"container {shown[container_id]} is as before")
                    raise
                del rest[container_id]
                for change in changes:
                    if change.keys or change.left:
                        self.add("changed" if change.keys else "left", change, shown[container_id])
                    if change.left:
                        self.code = 2
                    changed += [change] if change.keys else []
                if until and changed:
                    temporary.start(lambda log: ContainerEngine(self.settings, log))
        except BaseException:
            for number, own_rest in enumerate(rest.values()):
                for one in own_rest:
                    self.add_again("not-tried" if number else "failed", one.row.record, one.row.shown)
            raise
        return changed

    def _networks(self, present: "list[Behind]") -> "list[Network]":
        files = Files(self.settings.conf_dir)
        return [files.networks[name] for name in dict.fromkeys(one.row.network for one in present)]

    # The trial

    def _try(self, present: "list[Behind]") -> None:
        until = time.time() + self.options.timeout
        try:
            changed = self._apply_all(present, until)
            if changed:
                self._wait(until, changed)
        except (Exception, signals.Interrupted) as error:
            # A session that ends is not an answer: the change can still be confirmed from another one.
            if not isinstance(error, signals.Interrupted) or error.signum == signals.SIGINT:
                self._undo(error)
            else:
                error.add_note("until its end, `cnihook apply --confirm` keeps the change")
            raise

    def _on_trial(self) -> "list[Record]":
        """Return the attachments that this process has changed, and that are still on trial."""
        return [record for record in apply.on_trial(self.options.network) if record.identity in self._lines]

    def _undo(self, error: BaseException) -> None:
        for record in self._on_trial():
            try:
                if apply.end(record, self.settings):
                    self.add_again("undone", record)
            except (CniError, OSError) as another:
                error.add_note(f"container {record.container_id}: {message_with_notes(another)}")
        temporary.wake()  # so that it ends

    def _wait(self, until: float, changed: "list[Change]") -> None:
        """Wait for a confirmation.  Raises CniError if there is none."""
        if not self.options.json:
            self.print()
            sys.stdout.flush()
        left = round(until - time.time())
        warn(f"apply: Enter or `cnihook apply --confirm` keeps the change; it is undone in {left} s")
        reads = sys.stdin is not None and sys.stdin.isatty()
        while time.time() < until:
            if not self._on_trial():
                break
            if not reads:
                time.sleep(_PAUSE)
            elif select.select([sys.stdin], [], [], _PAUSE)[0]:
                reads = bool(sys.stdin.readline())  # empty: the terminal is gone
                if reads:
                    self.keep(self._on_trial())
                    return
        for record in self._on_trial():
            apply.end(record, self.settings)  # unless the process in the background was faster
        temporary.wake()  # so that it ends
        self._report_end(changed)

    def _report_end(self, changed: "list[Change]") -> None:
        """Report for each attachment if it was kept elsewhere, or undone, which is another revision."""
        undone = []
        for change in changed:
            record = records.find(change.network, change.container_id, change.ifname)
            is_kept = record is not None and update.revision_of(record) == change.revision
            if record:
                self.add("kept" if is_kept else "undone", record)
            if not is_kept:
                undone.append(change.container_id)
        if undone:
            raise CniError(INTERNAL, f"not confirmed in time, so undone for {', '.join(undone)}")


class _Confirmation(_Report):
    def run(self) -> None:
        trial = apply.on_trial(self.options.network)
        if not trial:
            raise CniError(
                INTERNAL,
                "no change is on trial, or its time is over",
                "`cnihook diff` shows what containers have",
            )
        self.keep(trial)
