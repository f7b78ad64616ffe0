# SPDX-License-Identifier: Apache-2.0
"""cnihook conformance: check any plugin, or any runtime, against the CNI specification."""

import argparse
import os
import sys
from collections.abc import Sequence

from cnihook.cli.shared import arguments, terminal
from cnihook.conformance import plugin_checks, runtime_checks
from cnihook.conformance.case import Subject
from cnihook.conformance.check import Check, Outcome, Register
from cnihook.conformance.profiles import CHAINED, KNOWN, Profile, given, read_conf
from cnihook.conformance.report import Report, listing
from cnihook.conformance.run import NotRun, Progress, run_pairs, try_host
from cnihook.conformance.runtime import run_runtime
from cnihook.log import warn

_WIDTH = 80  # columns, if no terminal has a width

DESCRIPTION = """\
Run black-box checks of the CNI protocol on plugins in any language, or on a runtime.

Each check runs in a throw-away host, which is a set of namespaces; nothing is left on this machine.  A
plugin with the name of a reference plugin needs no configuration.  Any other needs one that works for it.
"""
EPILOG = """\
outcomes:
  ok    the promise is kept
  FAIL  it is broken, and the specification says "must" or gives the procedure
  note  it is broken, and the specification says "should", "may" or nothing
  skip  it does not apply, or could not be tried; the table shows -

exit codes:
  0  no check fails; notes do not count
  1  a check fails
  2  nothing could be checked

examples:
  cnihook conformance /opt/cni/bin
  cnihook conformance ./my-plugin --config my-net.conflist --check del-twice
  cnihook conformance --runtime cnitool

A runtime is called as COMMAND add|del|check|gc|status NETWORK NETNS, with NETCONFPATH, CNI_PATH, CNI_ARGS,
CAP_ARGS and CNI_IFNAME in its environment.
"""


def parser() -> arguments.Parser:
    parser = arguments.Parser("conformance", DESCRIPTION, EPILOG)
    parser.add_argument(
        "plugins",
        metavar="EXECUTABLE|DIR",
        nargs="*",
        type=arguments.path,
        help="plugins, or folders of plugins",
    )
    parser.add_argument("--runtime", metavar="COMMAND", help="check this runtime instead of plugins")
    parser.add_argument(
        "--config",
        metavar="FILE",
        action="append",
        default=[],
        help="a plugin's configuration, or a list, repeatable",
    )
    parser.add_argument(
        "--chained",
        action="store_true",
        help="run the plugin after another one (default: found out by trying)",
    )
    parser.add_argument(
        "--check", metavar="NAME", action="append", default=[], help="run only this check, repeatable"
    )
    parser.add_argument(
        "--list", action="store_true", help="print all checks, each with its section of SPEC.md"
    )
    parser.add_argument("--json", metavar="FILE", help="write the results as JSON; - is stdout")
    parser.add_argument("--junit", metavar="FILE", help="write the results as JUnit XML; - is stdout")
    return parser


def main(argv: list[str]) -> int:
    usage = parser()
    options = usage.parse_args(argv)
    if options.runtime is not None and options.plugins:
        usage.error("--runtime cannot be combined with plugins")
    if options.runtime is None and not options.plugins and not options.list:
        usage.error("EXECUTABLE, DIR or --runtime COMMAND is missing")
    try:
        if options.list:
            _list(options)
            return 0
        return _report(Report(_outcomes(options), style=terminal.style(), width=_width()), options)
    except (NotRun, ValueError) as error:
        warn(f"conformance: {error}")
        return 2


def _outcomes(options: argparse.Namespace) -> "list[Outcome]":
    try:
        if options.runtime is not None:
            checks = _chosen(runtime_checks.checks, options.check)
            try_host()
            return run_runtime(options.runtime, checks, _progress())
        checks = _chosen(plugin_checks.checks, options.check)
        subjects = _subjects(options)
        try_host()
        return run_pairs([(one, check) for one in subjects for check in checks], _progress())
    finally:
        _clear()


def _list(options: argparse.Namespace) -> None:
    for subject, register in (("plugins", plugin_checks.checks), ("runtimes", runtime_checks.checks)):
        names = [name for name in options.check if name in register.checks]
        if names or not options.check:
            print(f"Checks of {subject}, each with the section of SPEC.md that it is based on:\n")
            print(listing(_chosen(register, names)))


def _chosen(register: Register, names: Sequence[str]) -> "list[Check]":
    unknown = [name for name in names if name not in register.checks]
    if unknown:
        raise ValueError(f"no check {unknown[0]!r}; --list prints the names of all checks")
    return [check for name, check in register.checks.items() if not names or name in names]


def _subjects(options: argparse.Namespace) -> "list[Subject]":
    configured = {}
    for path in options.config:
        configured.update(read_conf(path))
    executables = list(dict.fromkeys(one for path in options.plugins for one in _executables(path)))
    names = [os.path.basename(executable) for executable in executables]
    only = next(iter(configured.values())) if len(configured) == len(executables) == 1 else None
    subjects = []
    for executable in executables:
        name = os.path.basename(executable)
        conf = configured.get(name, only)
        profile: Profile | None = KNOWN.get(name)
        if conf is not None:
            profile = given({**conf, "type": name}, CHAINED if options.chained else "")
        path = ":".join(filter(None, (os.path.dirname(executable), os.environ.get("CNI_PATH"))))
        label = executable if names.count(name) > 1 else name
        subjects.append(Subject(name, executable, profile, path, label=label))
    return subjects


def _executables(path: str) -> "list[str]":
    if os.path.isdir(path):
        inside = [f"{path}/{name}" for name in sorted(os.listdir(path)) if not name.startswith(".")]
        executables = [one for one in inside if os.path.isfile(one) and os.access(one, os.X_OK)]
        if not executables:
            raise ValueError(f"{path}: no executable in this folder")
        return executables
    if not os.path.isfile(path) or not os.access(path, os.X_OK):
        raise ValueError(f"{path}: {'not an executable' if os.path.exists(path) else 'no such file'}")
    return [path]


def _report(report: Report, options: argparse.Namespace) -> int:
    if "-" not in (options.json, options.junit):
        print(report.text())
    for path, text in ((options.json, report.json), (options.junit, report.junit)):
        if path == "-":
            print(text(), end="")
        elif path:
            try:
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text())
            except OSError as error:
                warn(f"conformance: {path}: {error.strerror}")
                return 2
    if not report.tried:
        warn("conformance: nothing could be tried")
        return 2
    return 1 if report.failed else 0


def _progress() -> Progress:
    if not sys.stderr.isatty():
        return lambda done, total, name: None
    width = _width() - 1

    def show(done: int, total: int, name: str) -> None:
        sys.stderr.write(f"\r{f'{done}/{total} {name}'[:width]:<{width}}")
        sys.stderr.flush()

    return show


def _clear() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")


def _width() -> int:
    for stream in (sys.stdout, sys.stderr):
        try:
            return os.get_terminal_size(stream.fileno()).columns or _WIDTH
        except (OSError, ValueError):
            pass
    return _WIDTH
