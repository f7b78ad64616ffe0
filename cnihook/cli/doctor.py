# SPDX-License-Identifier: Apache-2.0
"""cnihook doctor: report what is wrong on this host, why it matters, and the command that fixes it."""

import os
import re
import sys
from collections.abc import Callable, Iterator

from cnihook.cli import validate
from cnihook.cli.shared import arguments, containers, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.doctor import (
    addresses,
    advertisements,
    changes,
    cluster,
    foreign,
    kernel,
    leftovers,
    mtu,
    multicast,
    names,
    policies,
    programs,
    published,
    quotas,
    reachability,
    requests,
    resolver,
    ruleset,
    sharing,
    writable,
)
from cnihook.doctor.finding import Finding, Host, merged
from cnihook.fast.errors_text import message_with_notes, printable
from cnihook.log import warn
from cnihook.runtime import networks, records
from cnihook.types.errors import CniError

DESCRIPTION = """\
Report what is wrong with this host's container networks: kernel, nftables, forwarding, other firewalls,
routes, published ports, subnets, leases, records, names, hooks, bounds on annotations, configurations.  Each
finding says what is wrong, why it matters, and the command that corrects it.  One cause is one finding, with
all containers that it affects, by the names that `cnihook ps` prints; --json has their IDs.  Prints nothing
if nothing is wrong, except on a terminal.  Nothing is changed without --fix.
"""
EPILOG = """\
exit codes:
  0  no finding
  1  a finding
  2  something could not be checked, or wrong usage
"""

_LONG = 12  # characters of an ID that no user chose, so that it is not part of another text

Check = Callable[[Host], Iterator[Finding]]


def parser() -> Parser:
    parser = Parser("doctor", DESCRIPTION, EPILOG)
    parser.add_argument(
        "--fix",
        action="store_true",
        help="apply the safe corrections (gc, forwarding, names), and print them",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="report also what may not be a fault: published ports on which no program listens, name servers"
        " without a route, pitfalls of runtimes, kernel features that are not in use",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as a list of JSON objects")
    parser.add_conf_dir()
    parser.add_plugin_dirs()
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    settings = arguments.settings_of(options)
    if os.geteuid() != 0:
        warn("doctor: only root can look at all of it")
        return 2
    outcome = 0
    findings: list[Finding] = []

    def look() -> None:
        nonlocal outcome
        findings.clear()
        outcome = 0
        host = Host(settings)
        present: list[Finding] = []
        for name, check in _checks(options.verbose).items():
            try:
                present.extend(check(host))
            except (OSError, CniError) as error:
                warn(f"doctor: could not look at {name}: {message_with_notes(error)}")
                outcome = 2
        findings.extend(merged(present))

    def work() -> None:
        look()
        fixable = [finding for finding in findings if finding.fix]
        if options.fix and fixable:
            _fix(fixable)
            look()
        if options.fix:
            _report_left(findings)

    code = arguments.work("doctor", work)
    shown = [finding for finding in findings if options.verbose or not finding.note]
    if options.json:
        arguments.print_json([finding.to_json() for finding in shown])
    else:
        _show(shown)
        if not (shown or code or outcome):
            terminal.remark("nothing wrong was found on this host")
    if code:
        return 2
    return outcome or int(any(not finding.note for finding in findings))


def _checks(verbose: bool) -> dict[str, Check]:
    """Return the checks by their subject."""
    checks: dict[str, Check] = {
        "the loopback link": reachability.check_loopback,  # the most urgent
        "the kernel": lambda host: kernel.check(host, verbose),
        "configurations": _check_configurations,
        "folders of plugins": programs.check_folders,
        "permissions": writable.check,
        "records": leftovers.check_records,
        "attachments": leftovers.check_attachments,
        "changes of running containers": changes.check,
        "edited networks": changes.check_edited,
        "networks of other runtimes": sharing.check,
        "damaged records": leftovers.check_damaged,
        "forwarding": reachability.check_forwarding,
        "router advertisements": advertisements.check,
        "firewalls": reachability.check_policies,
        "chains of nftables": ruleset.check_forward_chains,
        "routes": reachability.check_ways,
        "hairpins": reachability.check_hairpins,
        "published ports": published.check,
        "quotas": quotas.check,
        "MTUs": mtu.check,
        "subnets": addresses.check_overlaps,
        "ranges": addresses.check_ranges,
        "leases": addresses.check_leases,
        "files of leases": addresses.check_lease_files,
        "networks of several hosts": cluster.check,
        "names in /etc/hosts": names.check,
        "name servers": names.check_servers,
        "names in policies": resolver.check,
        "multicast DNS": multicast.check,
        "name servers of the host": names.check_host_servers,
        "lost records": leftovers.check_lost,
        "nftables": leftovers.check_elements,
        "rules of the reference plugins": foreign.check,
        "policies": policies.check,
        "hooks": leftovers.check_hooks,
        "programs": programs.check_programs,
        "bounds on annotations": requests.check_owner,
        "annotations of images": requests.check_images,
    }
    if verbose:
        checks["versions of runtimes"] = programs.check_versions
        checks["routes to name servers"] = names.check_ways
    return checks


def _check_configurations(host: Host) -> Iterator[Finding]:
    files = dict.fromkeys(
        networks.file_names(host.settings.conf_dir),
        "no container gets this network, or not as intended",
    )
    files |= dict.fromkeys(validate.bounds_files(), "no container that has annotations is attached")
    for path, why in files.items():
        for problem in validate.problems_of(path, host.settings.plugin_dirs):
            yield Finding(
                "configuration",
                problem["problem"],
                why,
                problem["hint"] or f"edit {path}, then: cnihook validate {path}",
            )


def _fix(findings: list[Finding]) -> None:
    remedies = set()
    named = _Names()
    for finding in findings:
        what = printable(named(f"fixing {finding.kind}: {finding.what}: {finding.suggestion}"))
        print(what, file=sys.stderr, flush=True)
        if finding.suggestion in remedies or not finding.fix:
            continue
        remedies.add(finding.suggestion)
        try:
            finding.fix()
        except (OSError, CniError) as error:
            warn(f"doctor: {finding.suggestion}: {message_with_notes(error)}")


def _report_left(findings: list[Finding]) -> None:
    left = sum(not finding.note for finding in findings)
    if left:
        number = f"{left} {'finding' if left == 1 else 'findings'}"
        warn(f"doctor: --fix leaves {number}; apply each remedy yourself")


class _Names:
    """The names of containers in a text, instead of the IDs that engines and programs chose."""

    def __init__(self) -> None:
        present = records.all_records(unreadable=[])
        shown = containers.shown(present, containers.names_of(present))
        self._by_id = {one: name for one, name in shown.items() if name != one and len(one) >= _LONG}
        self._pattern = re.compile(rf"(?<![\w./-])(?:{'|'.join(map(re.escape, self._by_id))})(?![\w.-])")

    def __call__(self, text: str) -> str:
        return self._pattern.sub(lambda match: self._by_id[match[0]], text) if self._by_id else text


def _show(findings: list[Finding]) -> None:
    """Print a line for each finding; on a terminal three."""
    if not findings:
        return
    named = _Names()
    if not sys.stdout.isatty():
        for finding in findings:
            kind = f"note {finding.kind}" if finding.note else finding.kind
            arguments.say(named(f"{kind}: {finding.what}; {finding.why}; remedy: {finding.suggestion}"))
        return
    style = terminal.style()
    for finding in findings:
        colour = "yellow" if finding.note else "red"
        print(f"{style(finding.kind, colour)}: {printable(named(finding.what))}")
        arguments.say(f"    why:    {named(finding.why)}")
        print(f"    remedy: {style(printable(named(finding.suggestion)), 'bold')}")
