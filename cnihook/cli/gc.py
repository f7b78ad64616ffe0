# SPDX-License-Identifier: Apache-2.0
"""cnihook gc: release what containers that are gone left behind."""

import argparse

from cnihook.cli.shared import arguments, cnitool_args, containers, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.cnitool_args import CnitoolArgs
from cnihook.container import gc as container_gc
from cnihook.container.engine import ContainerEngine
from cnihook.log import Log, text_of
from cnihook.protocol.call import PLUGIN_TIMEOUT
from cnihook.runtime import gc
from cnihook.runtime.records import Record
from cnihook.types.errors import INTERNAL, CniError
from cnihook.types.names import check_container_id, check_ifname

DESCRIPTION = """\
Release the networks of containers that are gone: after a crash or a reboot, or if poststop did not run.

If a record is damaged or lost, its attachment is found by the names in the kernel and in leases.  It is
released once no process and no other namespace has it.

It returns when all is removed, also what a process in the background was about to remove.

Without NETWORK: all attachments that cnihook made and whose process or namespace has ended.  Attachments of
other CNI runtimes are never touched.

With NETWORK, like `cnitool gc`: all attachments of that network whose namespace has ended, whichever runtime
made them.  Then the network's plugins release what belongs to none of the attachments that are left.
"""


def parser() -> Parser:
    usage = "cnihook gc [OPTION]... [NETWORK [NETNS]]\n       cnihook gc [OPTION]... --network-config FILE"
    parser = Parser("gc", DESCRIPTION, usage=usage)
    parser.add_argument(
        "network",
        metavar="NETWORK",
        nargs="?",
        default="",
        help="a network (default: all that cnihook attached)",
    )
    parser.add_argument("netns", metavar="NETNS", nargs="?", default="", help=cnitool_args.NO_EFFECT)
    parser.add_argument("--network-config", metavar="FILE", help="the file of NETWORK's configuration")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be released; release nothing"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--keep",
        metavar="CONTAINER[/IFNAME]",
        action="append",
        type=_kept,
        help="an attachment to keep; all others of NETWORK are released (default IFNAME: eth0), repeatable",
    )
    which.add_argument(
        "--all", action="store_true", help="release all attachments of NETWORK, as cnitool does"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print what is released as a list of JSON objects, and an error as JSON, with its code",
    )
    parser.add_verbose()
    parser.add_conf_dir()
    parser.add_plugin_dirs()
    parser.set_defaults(timeout=PLUGIN_TIMEOUT)
    return parser


def _kept(text: str) -> "tuple[str, str]":
    """Return (container ID, ifname).  A container that is not on record is kept by its ID."""
    try:
        container_id, ifname = containers.on_record(text), ""
        if container_id == text:  # else NAMESPACE/NAME of a pod
            name, _, ifname = text.rpartition("/") if "/" in text else (text, "", "")
            container_id = containers.on_record(name)
        check_container_id(container_id)
        check_ifname(ifname or "eth0")
    except CniError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return container_id, ifname or "eth0"


def main(argv: list[str]) -> int:
    usage = parser()
    options = usage.parse_args(argv)
    if (options.keep or options.all) and not (options.network or options.network_config):
        usage.error("--keep and --all need a NETWORK")
    if options.network or options.network_config:
        cnitool_args.check_operands(usage, options, needs_namespace=False)
        return cnitool_args.run("gc", options, lambda: _of_network(options))
    return cnitool_args.run("gc", options, lambda: _of_all(options))


def _of_network(options: argparse.Namespace) -> None:
    operands = CnitoolArgs(options)
    network = operands.network()
    keep = [] if options.all else options.keep
    if options.dry_run:
        stale = operands.cni.stale_attachments(network, keep)
        _report(options, [attachment.record for attachment in stale])
    else:
        _report(options, [attachment.record for attachment in operands.cni.gc(network, keep)])


def _of_all(options: argparse.Namespace) -> None:
    failures = _Failures()
    settings = arguments.settings_of(options)
    engine = ContainerEngine(settings, failures)
    if options.dry_run:
        released = [record for gone in gc.find_gone(engine, []).values() for record in gone]
    else:
        released = container_gc.collect(engine)
    if not (options.json and failures.lines):  # one JSON value on stdout
        _report(options, released)
    if failures.lines:
        raise CniError(INTERNAL, "; ".join(failures.lines))


def _report(options: argparse.Namespace, released: list[Record]) -> None:
    verb = "would release" if options.dry_run else "released"
    if options.json:
        arguments.print_json(
            [
                {
                    "container": record.container_id,
                    "network": record.network,
                    "ifname": record.ifname,
                    "addresses": _addresses(record),
                }
                for record in released
            ]
        )
        return
    for record in released:
        what = f"{record.container_id}: {record.network} {record.ifname} {' '.join(_addresses(record))}"
        arguments.say(f"{verb} {what}".rstrip())
    if not released:
        terminal.remark("nothing to release: no attachment of a container that is gone")


class _Failures(Log):
    """A log that collects what could not be released, for the error message."""

    def __init__(self) -> None:
        super().__init__("gc")
        self.lines: list[str] = []

    def event(self, event: str, **fields: str) -> None:
        self.lines.append(text_of(event, fields))


def _addresses(record: Record) -> list[str]:
    """Return the addresses in a result of any version: `ips`, or `ip4` and `ip6` before 0.3.0."""
    result = record.result or {}
    ips = result.get("ips")
    addresses = [ip.get("address") for ip in ips if isinstance(ip, dict)] if isinstance(ips, list) else []
    addresses += [result[key].get("ip") for key in ("ip4", "ip6") if isinstance(result.get(key), dict)]
    return [str(address) for address in addresses]
