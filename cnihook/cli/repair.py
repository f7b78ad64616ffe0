# SPDX-License-Identifier: Apache-2.0
"""cnihook repair: restore what running containers lost of their networks."""

from cnihook.cli.shared import arguments, containers, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.container import repair
from cnihook.fast.errors_text import message_with_notes, printable
from cnihook.linux import netns
from cnihook.log import Log, warn
from cnihook.names import hosts
from cnihook.protocol import locks
from cnihook.runtime import attachment, foreign, records
from cnihook.runtime.foreign import OtherPluginsError
from cnihook.runtime.settings import Settings
from cnihook.types.errors import INTERNAL, CniError

DESCRIPTION = """\
Restore what running containers lost by a reload of the firewall, `nft flush ruleset`, `ip link del` or the
like, and the names that a program removed from their /etc/hosts.  The containers keep running, and keep
their addresses.

Each attachment is compared with its record, like CHECK does.  What needs no new link is set up again in
place; otherwise the container gets a new link.  Prints what was wrong, and nothing if nothing was wrong.

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
    parser.add_plugin_dirs()
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    settings = arguments.settings_of(options)
    if options.id:
        return arguments.work(
            f"repair {options.id}", lambda: _repair(containers.on_record(options.id), settings)
        )
    return arguments.work("repair", lambda: _repair_all(settings))


def _repair_all(settings: Settings) -> None:
    living = {record.container_id for record in records.all_records() if not attachment.is_gone(record)}
    errors: list[CniError] = []
    for container_id in sorted(living):
        try:
            _repair(container_id, settings, leave_others=True)
        except (CniError, OSError) as error:
            if all(map(attachment.is_gone, records.of_container(container_id))):
                continue  # it has ended just now
            errors.append(CniError(INTERNAL, f"{container_id}: {message_with_notes(error)}"))
    _raise(errors)


def _repair(container_id: str, settings: Settings, *, leave_others: bool = False) -> None:
    """Repair a container.  `leave_others`: report what other plugins attached, without an error."""
    log = Log(container_id)
    errors: list[CniError] = []
    with locks.container(container_id, "repair"), log:
        attachments = repair.records_of(container_id)
        if repair.restore_name(attachments[0]):
            _tell(container_id, f"it had lost its name in {netns.NAMES}", log)
        for record in attachments:
            what = f"{record.network} {record.ifname}"
            try:
                for words in repair.repair_attachment(record, settings.plugin_dirs):
                    _tell(container_id, f"{what}: {words}", log)
            except OtherPluginsError as error:
                if not leave_others:
                    raise
                warn(f"repair: {container_id}: {what}: {error.msg}")
            except (CniError, OSError) as error:
                if not foreign.is_foreign(record):  # no program would remove its log
                    log.failure("repair", error, f"of {what}")
                errors.append(CniError(INTERNAL, f"{what}: {message_with_notes(error)}"))
        try:
            if hosts.renew(container_id):
                _tell(container_id, "its /etc/hosts had lost its names", log)
        except OSError as error:
            log.failure("repair", error, "of its /etc/hosts")
            errors.append(CniError(INTERNAL, f"/etc/hosts of {container_id}: {message_with_notes(error)}"))
    if all(map(foreign.is_foreign, attachments)):
        log.discard()  # no detach by cnihook removes it
    _raise(errors)


def _tell(container_id: str, words: str, log: Log) -> None:
    log.event(f"repaired: {words}")
    try:
        print(printable(f"repaired {container_id}: {words}"), flush=True)
    except BrokenPipeError:
        terminal.read_no_more()  # the repair itself has not failed


def _raise(errors: list[CniError]) -> None:
    if errors:
        for another in errors[1:]:
            errors[0].add_note(str(another))
        raise errors[0]
