# SPDX-License-Identifier: Apache-2.0
"""cnihook gc: release what containers that are gone left behind."""

from cnihook import attach
from cnihook.cli import arguments
from cnihook.log import Log
from cnihook.runtime.cache import Record
from cnihook.spec.errors import INTERNAL, CniError

DESCRIPTION = """\
Release the networks of containers that are gone: after a crash, a reboot, a poststop that never ran.

A container is gone when its process is.  What other CNI runtimes attached is never touched.
"""


def main(argv: list[str]) -> int:
    parser = arguments.Parser("gc", DESCRIPTION)
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be released")
    parser.add_plugin_folders()
    found = parser.parse_args(argv)

    def work() -> None:
        failures = _Failures()
        verb = "would release" if found.dry_run else "released"
        for record in attach.collect(arguments.settings_of(found), failures, dry_run=found.dry_run):
            what = f"{record.container_id}: {record.network} {record.ifname} {_addresses(record)}"
            print(f"{verb} {what}".rstrip())
        if failures.lines:
            raise CniError(INTERNAL, "; ".join(failures.lines))

    return arguments.work("gc", work)


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
