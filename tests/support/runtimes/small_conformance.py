# SPDX-License-Identifier: Apache-2.0
"""The suite's outcomes for small runtimes, whose calls are forks of a process that does nothing else.

Its input is a list of runtimes as JSON, each with the rules that it breaks and the names of its checks.  It
prints the outcomes as JSON.  Several runtimes have one check each.
"""

import json
import os
import shlex
import sys
from collections.abc import Sequence

from cnihook.conformance import runtime_checks
from cnihook.conformance.run import Work, run_checks
from cnihook.conformance.runtime import RuntimeCase, run_runtime
from tests.support.host.forks import CHECKOUT
from tests.support.plugins.forked_conformance import fork_runtimes, program

SMALL = CHECKOUT / "tests" / "support" / "runtimes" / "small_runtime.py"
CHECKS = runtime_checks.checks.checks


def command(rules: str) -> list[str]:
    return ["/usr/bin/env", f"BROKEN={rules}", "/usr/bin/python3", "-IS", str(SMALL)]


def work_of(rules: str, name: str) -> Work:
    return rules, CHECKS[name], "", lambda: RuntimeCase(command(rules)), [str(SMALL.parent)]


def main() -> None:
    small = program("tests.support.runtimes.small_runtime")

    def serve(argv: Sequence[str]) -> None:
        """Do what command() does with these arguments."""
        os.environ["BROKEN"] = argv[1].removeprefix("BROKEN=")
        sys.argv[:] = argv[len(command("")) - 1 :]
        small()

    fork_runtimes(serve)
    runtimes = json.load(sys.stdin)
    if len(runtimes) == 1:
        ((rules, names),) = runtimes
        outcomes = run_runtime(shlex.join(command(rules)), [CHECKS[one] for one in names], lambda *_: None)
    else:
        outcomes = run_checks([work_of(rules, *names) for rules, names in runtimes], lambda *_: None)
    json.dump(
        [[one.subject, one.check.name, one.mark, one.why, one.sent, one.came] for one in outcomes],
        sys.stdout,
    )
