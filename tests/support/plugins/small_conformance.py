# SPDX-License-Identifier: Apache-2.0
"""The suite's outcomes for small plugins, whose calls are forks of a process that does nothing else.

Its argument is a folder for the executables.  Its input is JSON: `plugins`, each with its kind and the
checks that it breaks; `pairs` of a plugin and a check; `looks`, true if the suite first looks at each
plugin.  It prints the outcomes as JSON.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from cnihook.conformance import plugin_checks, profiles
from cnihook.conformance.case import Subject
from cnihook.conformance.run import run_checks, run_pairs, work_of
from tests.support.host.forks import CHECKOUT
from tests.support.plugins.forked_conformance import fork_plugins, program

LAUNCHER = """\
#!/usr/bin/python3 -IS
import os, sys
os.environ["BROKEN"] = {rules!r}
sys.path.append({checkout!r})
import tests.support.plugins.small_plugin
"""
CONFS: dict[str, dict[str, Any]] = {
    profiles.INTERFACE: {"ipam": {"type": profiles.STAND_IN}},
    profiles.IPAM: {"role": "ipam"},
    profiles.CHAINED: {"role": "chained"},
}


def small_plugin(folder: Path, kind: str, rules: str) -> Subject:
    folder.mkdir(parents=True)
    executable = folder / "small"
    executable.write_text(LAUNCHER.format(rules=rules, checkout=str(CHECKOUT)))
    executable.chmod(0o755)
    profile = profiles.given(CONFS[kind], kind)
    profile.allocates = kind == profiles.IPAM
    return Subject("small", str(executable), profile, str(folder))


def main() -> None:
    order = json.load(sys.stdin)
    folder = Path(sys.argv[1])
    subjects = [small_plugin(folder / str(n), *one) for n, one in enumerate(order["plugins"])]
    broken = {one.executable: rules for one, (_kind, rules) in zip(subjects, order["plugins"], strict=True)}

    names = ("small_protocol", "small_plugin")
    small = program(*(f"tests.support.plugins.{name}" for name in names))

    def serve(executable: str) -> None:
        os.environ["BROKEN"] = broken[executable]
        small()

    fork_plugins(serve)
    checks = plugin_checks.checks.checks
    pairs = [(subjects[number], checks[name]) for number, name in order["pairs"]]
    if order["looks"]:
        outcomes = run_pairs(pairs, lambda *_: None)
    else:
        outcomes = run_checks([work_of(*pair) for pair in pairs], lambda *_: None)
    json.dump(
        [[one.subject, one.check.name, one.mark, one.why, one.sent, one.came] for one in outcomes],
        sys.stdout,
    )
