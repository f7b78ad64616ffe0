# SPDX-License-Identifier: Apache-2.0
"""cnihook check: whether attachments are as they were set up."""

import argparse

from cnihook.cli import arguments, attached, target
from cnihook.cli.arguments import Parser
from cnihook.cli.attached import Attached
from cnihook.cli.target import Target
from cnihook.lean.words import describe
from cnihook.linux.netns import NetNS
from cnihook.runtime import attachment, cache, foreign
from cnihook.runtime.cni import CNI
from cnihook.runtime.foreign import OtherPlugins
from cnihook.settings import Settings
from cnihook.spec import version as versions
from cnihook.spec.errors import INTERNAL, CniError
from cnihook.spec.names import check_container_id

DESCRIPTION = """\
Have every plugin of a network compare what is there with what it set up, as `cnitool check` does.  Says
nothing if all is as it was; else the first difference, and exit code 1.

With --container or --all, all attachments of one container, or of every container, a line for each.  Made
for monitoring, the exit code is then 0 if all is well, 1 if anything is different, else 2 if anything could
not be looked at: without the privilege, in a record that is damaged, or because another runtime attached it,
with other plugins than those of cnihook or CNI_PATH.
"""

_WELL, _DIFFERENT, _UNKNOWN = "well", "different", "unknown"
_CODES = {_WELL: 0, _DIFFERENT: 1, _UNKNOWN: 2}
_PATIENCE = 5.0  # seconds to wait for who is at work on a container


def parser() -> Parser:
    made = Parser("check", DESCRIPTION, target.ENVIRONMENT)
    target.add_arguments(made, namespace="NETNS")
    target.add_attachment(made)
    which = made.add_mutually_exclusive_group()
    which.add_argument(
        "--container",
        metavar="ID",
        type=arguments.checked(check_container_id),
        help="all attachments of this container, from the record",
    )
    which.add_argument("--all", action="store_true", help="all attachments of all containers")
    return made


def main(argv: list[str]) -> int:
    made = parser()
    found = made.parse_args(argv)
    if found.container or found.all:
        if found.network or found.network_config or found.container_id:
            made.error("--container and --all take neither NETWORK nor --container-id")
        return _of_many(found)

    def work() -> None:
        wanted = Target(found, needs_namespace=True)
        wanted.cni.check(wanted.network_or_name(), wanted.container_id, wanted.ifname)

    return target.run("check", found, work)


def _of_many(found: argparse.Namespace) -> int:
    outcome = [_UNKNOWN]

    def work() -> None:
        listed = attached.of_container(found.container) if found.container else attached.load()
        reports = [_report(one, found) for one in listed]
        reports += [
            {"record": path, "state": _UNKNOWN, "why": "is damaged"} for path in _damaged(found.container)
        ]
        if found.json:
            arguments.print_json(reports)
        else:
            for report in reports:
                arguments.say(_line(report))
        states = [report["state"] for report in reports]
        outcome[0] = next((state for state in (_DIFFERENT, _UNKNOWN) if state in states), _WELL)

    code = arguments.work("check", work)
    return _CODES[_UNKNOWN] if code else _CODES[outcome[0]]


def _damaged(container: "str | None") -> "list[str]":
    return [one.path for one in cache.damaged() if f"-{container or ''}" in one.path]


def _report(one: Attached, found: argparse.Namespace) -> "dict[str, str]":
    report = {"container": one.container, "network": one.network, "ifname": one.ifname, "state": _WELL}
    state, why = _difference(one, found)
    return report | ({"state": state, "why": why} if why else {})


def _difference(one: Attached, found: argparse.Namespace) -> "tuple[str, str]":
    if one.state == attached.ATTACHING:
        return _WELL, ""
    if one.state == attached.RETRY:
        return _DIFFERENT, f"its attaching was cut short; `cnihook detach {one.container}` takes it back"
    if one.state == attached.DEAD:
        network = f" {one.network}" if foreign.is_foreign(one.record) else ""
        return _DIFFERENT, f"its container is gone; `cnihook gc{network}` releases it"
    if one.conf is None:
        return _UNKNOWN, "its record holds no configuration that could be read"
    settings = arguments.settings_of(found)
    cni = CNI(settings.conf_folder, settings.plugin_path, timeout=found.timeout, lock_timeout=_PATIENCE)
    try:
        _check_plugins(one, settings)
        if not one.conf.disable_check and versions.at_least(one.conf.version, versions.SINCE["CHECK"]):
            cni.check(one.network, one.container, one.ifname)
        else:
            _look(one)
    except OtherPlugins as error:
        return _UNKNOWN, describe(error)
    except CniError as error:
        if cache.find(*one.record.identity) is None:
            return _WELL, ""  # it was detached just now
        return _DIFFERENT, describe(error)
    except OSError as error:
        return _UNKNOWN, describe(error)
    return _WELL, ""


def _check_plugins(one: Attached, settings: Settings) -> None:
    if foreign.is_foreign(one.record):
        network, request = attachment.restore(one.record, settings.plugin_path, attachment.TIMEOUT)
        try:
            foreign.check_plugins(one.record, network, request, one.result, settings.plugin_path)
        finally:
            request.close()


def _look(one: Attached) -> None:
    """What can be said without the plugins, where the network's version knows no CHECK, or it wants none."""
    namespace = NetNS.open(attachment.living_path(one.record))
    try:
        link = namespace.rtnl.find_link(one.ifname)
        if not link:
            raise CniError(INTERNAL, f"{one.ifname} does not exist")
        present = [address.net for address in namespace.rtnl.addresses(link)]
    finally:
        namespace.close()
    for ip in one.result.ips:
        if ip.net not in present:
            raise CniError(INTERNAL, f"{one.ifname} has not the address {ip.net}")


def _line(report: "dict[str, str]") -> str:
    if "record" in report:
        return f"{report['state']} {report['record']}: {report['why']}"
    why = f": {report['why']}" if "why" in report else ""
    return f"{report['state']} {report['container']} {report['network']} {report['ifname']}{why}"
