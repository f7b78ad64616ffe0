# SPDX-License-Identifier: Apache-2.0
"""cnihook gc: release what containers that are gone left behind."""

import argparse

from cnihook import detach
from cnihook.cli import arguments, target
from cnihook.cli.arguments import Parser
from cnihook.cli.target import Target
from cnihook.log import Log
from cnihook.runtime.cache import Record
from cnihook.spec.errors import INTERNAL, CniError
from cnihook.spec.names import check_container_id, check_ifname

DESCRIPTION = """\
Release the networks of containers that are gone: after a crash, a reboot, a poststop that never ran.

An attachment whose record is damaged or lost is released by the names in the kernel and in leases, once no
process and no other namespace has it.

Without NETWORK: all that this tool attached, and whose process or namespace has ended; what other CNI
runtimes attached is never touched.  With NETWORK, as `cnitool gc`: all attachments of that network, whoever
made them, whose namespace has ended; then its plugins release what belongs to none of those that are left.
"""


def parser() -> Parser:
    made = Parser("gc", DESCRIPTION)
    made.add_argument(
        "network", metavar="NETWORK", nargs="?", default="", help="(default: what cnihook attached)"
    )
    made.add_argument("netns", metavar="NETNS", nargs="?", default="", help="makes no difference")
    made.add_argument("--network-config", metavar="FILE", help="NETWORK's configuration, not from a folder")
    made.add_argument("--dry-run", action="store_true", help="only tell what would be released")
    which = made.add_mutually_exclusive_group()
    which.add_argument(
        "--keep",
        metavar="ID[/IFNAME]",
        action="append",
        type=_kept,
        help="keep this attachment (eth0), repeatable, and release all others of NETWORK",
    )
    which.add_argument("--all", action="store_true", help="keep none of NETWORK, as cnitool does")
    made.add_argument("--json", action="store_true", help="print an error as JSON, its code kept")
    made.add_conf_folder()
    made.add_plugin_folders()
    made.set_defaults(timeout=60.0)
    return made


def _kept(text: str) -> "tuple[str, str]":
    container_id, _, ifname = text.partition("/")
    try:
        check_container_id(container_id)
        check_ifname(ifname or "eth0")
    except CniError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return container_id, ifname or "eth0"


def main(argv: list[str]) -> int:
    made = parser()
    found = made.parse_args(argv)
    if (found.keep or found.all) and not (found.network or found.network_config):
        made.error("--keep and --all need a NETWORK")
    if found.network or found.network_config:
        return target.run("gc", found, lambda: _of_network(found))
    return target.run("gc", found, lambda: _of_all(found))


def _of_network(found: argparse.Namespace) -> None:
    wanted = Target(found, needs_namespace=False)
    network = wanted.network()
    keep = [] if found.all else found.keep
    if found.dry_run:
        _tell("would release", wanted.cni.stale(network.name, keep))
    else:
        _tell("released", wanted.cni.gc(network, keep))


def _of_all(found: argparse.Namespace) -> None:
    failures = _Failures()
    settings = arguments.settings_of(found)
    released = detach.collect(settings, failures, dry_run=found.dry_run)
    _tell("would release" if found.dry_run else "released", released)
    if failures.lines:
        raise CniError(INTERNAL, "; ".join(failures.lines))


def _tell(verb: str, records: list[Record]) -> None:
    for record in records:
        what = f"{record.container_id}: {record.network} {record.ifname} {_addresses(record)}"
        arguments.say(f"{verb} {what}".rstrip())


class _Failures(Log):
    """What could not be released, for whoever asked for it."""

    def __init__(self) -> None:
        super().__init__("gc")
        self.lines: list[str] = []

    def event(self, text: str) -> None:
        self.lines.append(text)


def _addresses(record: Record) -> str:
    """The addresses in a result of any version: `ips`, or `ip4` and `ip6` before 0.3.0."""
    result = record.result or {}
    ips = result.get("ips")
    found = [ip.get("address") for ip in ips if isinstance(ip, dict)] if isinstance(ips, list) else []
    found += [result[key].get("ip") for key in ("ip4", "ip6") if isinstance(result.get(key), dict)]
    return " ".join(str(address) for address in found)
