# SPDX-License-Identifier: Apache-2.0
"""cnihook repair: put back what was taken from the networks of containers that run."""

from cnihook.cli import arguments, terminal
from cnihook.cli.arguments import Parser
from cnihook.lean.words import describe, printable
from cnihook.linux import netns
from cnihook.log import Log, complain
from cnihook.oci import hosts
from cnihook.runtime import attachment, cache, foreign, repair
from cnihook.runtime.foreign import OtherPlugins
from cnihook.settings import Settings
from cnihook.spec.errors import INTERNAL, CniError
from cnihook.spec.names import check_container_id

DESCRIPTION = """\
Put back what a reload of the firewall, `nft flush ruleset`, `ip link del` or the like took from containers
that run, and the names that a program removed from their /etc/hosts.  They keep running, and keep their
addresses.

Each attachment is compared with its record, as CHECK does.  What needs no new link is set up again in place;
else the container gets a new link.  Prints what was amiss, and nothing where all is as it should be.

Attachments of another runtime, such as CRI-O, are repaired in place only, and only if the plugins of cnihook
made them, or CNI_PATH names the plugins that did; others are left alone, with a line on stderr.
"""


def parser() -> Parser:
    made = Parser("repair", DESCRIPTION, "Exit code: 0 all is well now, 1 something is not, 2 usage.")
    which = made.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "id",
        metavar="ID",
        nargs="?",
        type=arguments.checked(check_container_id),
        help="the container's, as its runtime knows it",
    )
    which.add_argument("--all", action="store_true", help="all containers that run")
    made.add_plugin_folders()
    return made


def main(argv: list[str]) -> int:
    found = parser().parse_args(argv)
    settings = arguments.settings_of(found)
    if found.id:
        return arguments.work(f"repair {found.id}", lambda: _repair(found.id, settings))
    return arguments.work("repair", lambda: _repair_all(settings))


def _repair_all(settings: Settings) -> None:
    living = {record.container_id for record in cache.all_records() if not attachment.is_gone(record)}
    errors: list[CniError] = []
    for container_id in sorted(living):
        try:
            _repair(container_id, settings, leave_others=True)
        except (CniError, OSError) as error:
            if all(map(attachment.is_gone, cache.of_container(container_id))):
                continue  # it has ended just now
            errors.append(CniError(INTERNAL, f"{container_id}: {describe(error)}"))
    _raise(errors)


def _repair(container_id: str, settings: Settings, *, leave_others: bool = False) -> None:
    """`leave_others`: what other plugins attached is reported, and does not fail the repair."""
    log = Log(container_id)
    errors: list[CniError] = []
    with repair.container(container_id), log:
        records = repair.records_of(container_id)
        if repair.restore_name(records[0]):
            _tell(container_id, f"it had lost its name in {netns.NAMES}", log)
        for record in records:
            what = f"{record.network} {record.ifname}"
            try:
                for words in repair.attached(record, settings.plugin_path):
                    _tell(container_id, f"{what}: {words}", log)
            except OtherPlugins as error:
                if not leave_others:
                    raise
                complain(f"repair: {container_id}: {what}: {error.msg}")
            except (CniError, OSError) as error:
                if not foreign.is_foreign(record):  # its log would stay for ever
                    log.failure(f"repair of {what}", error)
                errors.append(CniError(INTERNAL, f"{what}: {describe(error)}"))
        try:
            if hosts.renew(container_id):
                _tell(container_id, "its /etc/hosts had lost its names", log)
        except OSError as error:
            log.failure("repair of its /etc/hosts", error)
            errors.append(CniError(INTERNAL, f"/etc/hosts of {container_id}: {describe(error)}"))
    if all(map(foreign.is_foreign, records)):
        log.discard()  # no detach by cnihook removes it
    _raise(errors)


def _tell(container_id: str, words: str, log: Log) -> None:
    log.event(f"repaired: {words}")
    try:
        print(printable(f"repaired {container_id}: {words}"), flush=True)
    except BrokenPipeError:
        terminal.read_no_more()  # which is no failure to repair what is amiss


def _raise(errors: list[CniError]) -> None:
    if errors:
        for another in errors[1:]:
            errors[0].add_note(str(another))
        raise errors[0]
