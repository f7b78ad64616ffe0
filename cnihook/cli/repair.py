# SPDX-License-Identifier: Apache-2.0
"""cnihook repair: restore what running containers lost of their networks."""

from cnihook.cli.shared import arguments, containers, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.container import repair
from cnihook.container.engine import ContainerEngine
from cnihook.fast.errors_text import message_with_notes, printable
from cnihook.fast.natural import natural
from cnihook.linux import netns
from cnihook.log import Log, warn
from cnihook.mdns import service as mdns
from cnihook.names import host_servers, hosts
from cnihook.policy import change, enforcement, resolving, store
from cnihook.protocol import locks
from cnihook.runtime import attachment, foreign, records, update
from cnihook.runtime.foreign import CannotCheckError
from cnihook.runtime.records import Record
from cnihook.runtime.settings import Settings
from cnihook.types.errors import INTERNAL, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DESCRIPTION = """\
Restore what running containers lost by a reload of the firewall, `nft flush ruleset`, `ip link del` or the
like, and the names that a program removed from their /etc/hosts.  If the host has new name servers, they
get these in /etc/resolv.conf, unless it was edited.  The containers keep running, and keep their addresses.

Each attachment is compared with its record, like CHECK does.  What needs no new link is set up again in
place; otherwise the container gets a new link.  Prints what was wrong.

Attachments of another runtime, such as CRI-O, are repaired in place only, and only if the plugins of cnihook
or those in CNI_PATH made them.  Others are left alone, with a line on stderr.
"""
EPILOG = """\
exit codes:
  0  nothing is wrong any more
  1  something is still wrong
  2  wrong usage
"""


def parser() -> Parser:
    parser = Parser("repair", DESCRIPTION, EPILOG)
    which = parser.add_mutually_exclusive_group(required=True)
    parser.add_container(which, nargs="?")
    which.add_argument("--all", action="store_true", help="repair all containers that run")
    parser.add_argument(
        "--name-servers",
        action="store_true",
        help="only write new name servers of the host into /etc/resolv.conf; nothing else is compared",
    )
    parser.add_argument(
        "--json", action="store_true", help="print what was restored as a list of JSON objects"
    )
    parser.add_verbose()
    parser.add_plugin_dirs()
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    settings = arguments.settings_of(options)
    report = _Report(options.json)
    repair_one = _renew_servers if options.name_servers else _repair

    def work() -> None:
        try:
            if options.id:
                repair_one(containers.on_record(options.id), settings, report)
                if repair_one is _repair:
                    _repair_policies(report)
            else:
                _repair_all(repair_one, settings, report)
        finally:
            report.print_json()
        if report.is_empty and not options.json:
            terminal.remark("nothing to repair")

    what = f"repair {options.id}" if options.id else "repair"
    return arguments.work(what, work, verbose=options.verbose)


class _Report:
    """The report of what was restored: a line as soon as it is, or JSON at the end."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._repaired: list[dict[str, str]] = []

    def add(self, container_id: str, text: str, log: "Log | None") -> None:
        if log:
            log.event(f"repaired: {text}")
        self._repaired.append({"container": container_id, "repaired": text})
        if not self._as_json:
            self._print(printable(f"repaired {container_id}: {text}"))

    def print_json(self) -> None:
        if self._as_json:
            self._print(arguments.as_json(self._repaired))

    @property
    def is_empty(self) -> bool:
        return not self._repaired

    def _print(self, text: str) -> None:
        try:
            print(text, flush=True)
        except BrokenPipeError:
            terminal.read_no_more()  # the repair itself has not failed


def _repair_all(repair_one: "Callable[..., None]", settings: Settings, report: _Report) -> None:
    living = {record.container_id for record in records.all_records() if not attachment.is_gone(record)}
    errors: list[CniError] = []
    for container_id in sorted(living, key=natural):
        try:
            repair_one(container_id, settings, report, leave_others=True)
        except (CniError, OSError) as error:
            if all(map(attachment.is_gone, records.of_container(container_id))):
                continue  # it has ended just now
            errors.append(CniError(INTERNAL, f"{container_id}: {message_with_notes(error)}"))
    try:
        _repair_policies(report)
    except (CniError, OSError) as error:
        errors.append(CniError(INTERNAL, f"policies: {message_with_notes(error)}"))
    _raise(errors)


def _repair_policies(report: _Report) -> None:
    """Put the policies of all containers in force again."""
    if enforcement.exists():
        with locks.policy("repair"):
            differences = change.differences(store.load())
            enforcement.sync_all()
        for container_id, text in differences:
            report.add(container_id or "policies", text, Log(container_id) if container_id else None)


def _repair(container_id: str, settings: Settings, report: _Report, *, leave_others: bool = False) -> None:
    """Repair a container.  `leave_others`: report what other plugins attached, without an error."""
    log = Log(container_id)
    errors: list[CniError] = []
    with locks.container(container_id, "repair"), log:
        attachments = repair.records_of(container_id)
        if repair.restore_name(attachments[0]):
            report.add(container_id, f"it had lost its name in {netns.NAMES}", log)
        for record in attachments:
            what = f"{record.network} {record.ifname}"
            try:
                if record.has_open_change:
                    for text in update.settle(ContainerEngine(settings, log), record):
                        report.add(container_id, f"{what}: {text}", log)
                for difference in repair.repair_attachment(record, settings.plugin_dirs):
                    report.add(container_id, f"{what}: {difference}", log)
                for difference in mdns.restore(record):
                    report.add(container_id, f"{what}: {difference}", log)
            except (CniError, OSError) as error:
                is_foreign = foreign.is_foreign(record)
                if leave_others and is_foreign and isinstance(error, CannotCheckError):
                    warn(f"repair: {container_id}: {what}: {error.msg}")
                    continue
                if not is_foreign:  # no program would remove its log
                    log.failure("repair", error, f"of {what}")
                errors.append(CniError(INTERNAL, f"{what}: {message_with_notes(error)}"))
        try:
            if hosts.renew(container_id):
                report.add(container_id, "its /etc/hosts had lost its names", log)
        except OSError as error:
            log.failure("repair", error, "of its /etc/hosts")
            errors.append(CniError(INTERNAL, f"/etc/hosts of {container_id}: {message_with_notes(error)}"))
        try:
            for what in resolving.restore(container_id):
                report.add(container_id, what, log)
        except (CniError, OSError) as error:
            log.failure("repair", error, "of the names in its policy")
            errors.append(CniError(INTERNAL, f"names in its policy: {message_with_notes(error)}"))
        _renew_from(attachments, report, log, errors)
    if all(map(foreign.is_foreign, attachments)):
        log.discard()  # no detach by cnihook removes it
    _raise(errors)


def _renew_servers(
    container_id: str, _settings: Settings, report: _Report, *, leave_others: bool = False
) -> None:
    """Write new name servers of the host into a container's file."""
    log = Log(container_id)
    errors: list[CniError] = []
    with locks.container(container_id, "repair"), log:
        attachments = repair.records_of(container_id)
        _renew_from(attachments, report, log, errors)
    if all(map(foreign.is_foreign, attachments)):
        log.discard()
    _raise(errors)


def _renew_from(attachments: "list[Record]", report: _Report, log: Log, errors: list[CniError]) -> None:
    container_id = attachments[0].container_id
    try:
        if servers := host_servers.renew(attachments[0]):
            what = f"its /etc/resolv.conf has the host's new name servers: {', '.join(servers)}"
            report.add(container_id, what, log)
    except OSError as error:
        log.failure("repair", error, "of its /etc/resolv.conf")
        errors.append(CniError(INTERNAL, f"/etc/resolv.conf of {container_id}: {message_with_notes(error)}"))


def _raise(errors: list[CniError]) -> None:
    if errors:
        for another in errors[1:]:
            errors[0].add_note(str(another))
        raise errors[0]
