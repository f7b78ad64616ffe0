# SPDX-License-Identifier: Apache-2.0
"""cnihook check: compare attachments with what was set up."""

import argparse

from cnihook.cli.shared import arguments, cnitool_args, containers, listing, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.cnitool_args import CnitoolArgs
from cnihook.cli.shared.listing import Row
from cnihook.container import repair
from cnihook.fast.errors_text import message_with_notes
from cnihook.linux.netns import NetNS
from cnihook.policy import change, enforcement, store
from cnihook.protocol import locks
from cnihook.protocol.call import PLUGIN_TIMEOUT
from cnihook.runtime import attachment, foreign, records, update
from cnihook.runtime.cni import CNI
from cnihook.runtime.foreign import CannotCheckError
from cnihook.runtime.settings import Settings
from cnihook.types import versions
from cnihook.types.errors import INTERNAL, CniError

DESCRIPTION = """\
Compare all attachments of CONTAINER, or with --all of every container, with what was set up.  Prints a line
for each.  The exit code is for monitoring.

With NETWORK and NETNS, as `cnitool check` does, have every plugin of the network compare the present state
with what it set up.  Prints nothing if they are equal, except on a terminal; otherwise the first difference,
with exit code 1.
"""

EPILOG = f"""\
{cnitool_args.ENVIRONMENT}
exit codes with CONTAINER or --all:
  0  no difference
  1  a difference
  2  no difference, but not everything could be checked

The causes of code 2: privilege is missing, a record is damaged, another runtime attached the container
with plugins that are neither those of cnihook nor in CNI_PATH, or the network's version of the specification
has no CHECK for a plugin that is an executable.
"""

_WELL, _DIFFERENT, _UNKNOWN = "well", "different", "unknown"
_CODES = {_WELL: 0, _DIFFERENT: 1, _UNKNOWN: 2}
_PATIENCE = 5.0  # seconds to wait for another operation on the container


def parser() -> Parser:
    usage = cnitool_args.usage("check", more="CONTAINER|--container CONTAINER|--all")
    parser = Parser("check", DESCRIPTION, EPILOG, usage=usage)
    cnitool_args.add_arguments(parser, or_container=True)
    cnitool_args.add_attachment(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--container",
        metavar="CONTAINER",
        type=arguments.checked(containers.check_name),
        help="as CONTAINER",
    )
    which.add_argument("--all", action="store_true", help="check all attachments of all containers")
    return parser


def main(argv: list[str]) -> int:
    usage = parser()
    options = usage.parse_args(argv)
    hint = ""
    others = (options.netns, options.network_config, options.container_id, options.container, options.all)
    if options.network and not any(others):
        options.network, options.container = "", options.network  # the only operand
        hint = f"`cnihook check {options.container} NETNS` checks an attachment to a network"
    if options.container or options.all:
        if options.network or options.network_config or options.container_id:
            usage.error("--container and --all take neither NETWORK nor --container-id")
        return _of_many(options, hint)
    cnitool_args.check_operands(usage, options, needs_namespace=True)

    def work() -> None:
        operands = CnitoolArgs(options)
        operands.cni.check(operands.network_of_record(), operands.container_id, operands.ifname)
        if not options.json:
            terminal.remark("nothing differs from what was set up")

    return cnitool_args.run("check", options, work)


def _of_many(options: argparse.Namespace, hint: str) -> int:
    """Check and report many attachments.  `hint`: for the error if the container is not on record."""
    outcome = [_UNKNOWN]

    def work() -> None:
        listed = _listed(options, hint)
        reports = [_report(one, options) for one in listed]
        _add_policies(reports)
        container = listed[0].container if options.container else ""
        reports += [{"record": path, "state": _UNKNOWN, "why": "is damaged"} for path in _damaged(container)]
        if options.json:
            arguments.print_json(reports)
        else:
            shown = {one.container: one.shown for one in listed}
            for report in reports:
                arguments.say(_line(report, shown))
            if not reports:
                terminal.remark("nothing to check: no container is attached")
        states = [report["state"] for report in reports]
        outcome[0] = next((state for state in (_DIFFERENT, _UNKNOWN) if state in states), _WELL)

    code = arguments.work("check", work)
    return _CODES[_UNKNOWN] if code else _CODES[outcome[0]]


def _add_policies(reports: "list[dict[str, str]]") -> None:
    """Add the policies that are not in force to the reports of attachments without another difference."""
    if not enforcement.exists():
        return
    with locks.policy("check"):
        differences = change.differences(store.load())
    for container_id, text in differences:
        for report in reports:
            if report["state"] == _WELL and container_id in ("", report["container"]):
                report |= {"state": _DIFFERENT, "why": f"{text}; `cnihook policy apply` corrects it"}


def _listed(options: argparse.Namespace, hint: str) -> "list[Row]":
    if not options.container:
        return listing.load()
    containers.check_name(options.container)
    try:
        return listing.of_container(options.container)
    except CniError as error:
        if hint:
            error.add_note(hint)
        raise


def _damaged(container_id: str) -> "list[str]":
    return [one.path for one in records.damaged() if f"-{container_id}" in one.path]


def _report(one: Row, options: argparse.Namespace) -> "dict[str, str]":
    state, why = _difference(one, options)
    report = {"container": one.container, "network": one.network, "ifname": one.ifname, "state": state}
    return report | ({"name": one.name} if one.name else {}) | ({"why": why} if why else {})


def _difference(one: Row, options: argparse.Namespace) -> "tuple[str, str]":
    if one.state == listing.ATTACHING:
        return _WELL, ""
    if one.state == listing.RETRY:
        return _DIFFERENT, f"its attach was interrupted; `cnihook detach {one.container}` undoes it"
    if one.state == listing.DEAD:
        network = f" {one.network}" if foreign.is_foreign(one.record) else ""
        return _DIFFERENT, f"its container is gone; `cnihook gc{network}` releases it"
    if one.conf is None:
        return _UNKNOWN, "its record has no valid configuration"
    if update.is_overdue(one.record, _PATIENCE):
        return (
            _DIFFERENT,
            f"a temporary change has not ended in time; `cnihook repair {one.container}` ends it",
        )
    settings = arguments.settings_of(options)
    cni = CNI(settings.conf_dir, settings.plugin_dirs, timeout=options.timeout, lock_timeout=_PATIENCE)
    try:
        _check_plugins(one, settings)
        if one.conf.disable_check or one.is_loopback:  # containerd's is of 0.3.1, without CHECK
            _look(one)
        elif versions.at_least(one.conf.version, versions.SINCE["CHECK"]):
            cni.check(one.network, one.container, one.ifname)
        else:
            _look(one)
            with locks.container(one.container, "check", _PATIENCE):
                problems = repair.find_problems(one.record, settings.plugin_dirs, timeout=options.timeout)
            return (_DIFFERENT, problems[0]) if problems else (_WELL, "")
    except CannotCheckError as error:
        return _UNKNOWN, message_with_notes(error)
    except CniError as error:
        if records.find(*one.record.identity) is None:
            return _WELL, ""  # it was detached just now
        return _DIFFERENT, message_with_notes(error)
    except OSError as error:
        return _UNKNOWN, message_with_notes(error)
    return _WELL, ""


def _check_plugins(one: Row, settings: Settings) -> None:
    if foreign.is_foreign(one.record):
        network, request = attachment.restore(one.record, settings.plugin_dirs, PLUGIN_TIMEOUT)
        try:
            foreign.check_plugins(one.record, network, request, one.result, settings.plugin_dirs)
        finally:
            request.close()


def _look(one: Row) -> None:
    """Check the link and its addresses without the plugins, which cannot or must not run CHECK."""
    namespace = NetNS.open(attachment.live_netns_path(one.record))
    try:
        link = namespace.rtnl.find_link(one.ifname)
        if not link:
            raise CniError(INTERNAL, f"{one.ifname} does not exist")
        present = [address.net for address in namespace.rtnl.addresses(link)]
    finally:
        namespace.close()
    for ip in one.result.ips:
        if ip.net not in present:
            raise CniError(INTERNAL, f"{one.ifname} does not have the address {ip.net}")


def _line(report: "dict[str, str]", shown: "dict[str, str]") -> str:
    if "record" in report:
        return f"{report['state']} {report['record']}: {report['why']}"
    why = f": {report['why']}" if "why" in report else ""
    return f"{report['state']} {shown[report['container']]} {report['network']} {report['ifname']}{why}"
