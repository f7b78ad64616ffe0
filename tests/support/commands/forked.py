# SPDX-License-Identifier: Apache-2.0
"""The command `cnihook`, each call a fork of one process that has all its modules in memory.

An executable would start Python and import the modules of its command each time, which is three quarters of
the processor time of a short one.  Tests call cnihook some thousand times.  tests/e2e/test_every_command.py
tests the executables themselves.  A test that names the interpreter, or another program first, starts one.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.host.forks import CHECKOUT, LONGEST, Forks, Space, python

# The launcher of the checkout, and the installed command, which has the packages of the tests' environment.
INTERPRETERS = {
    str(CHECKOUT / "scripts" / "cnihook"): [],
    str(Path(sys.executable).with_name("cnihook")): [sys.executable],
}
# Variables that Python reads when it starts.
LOCALE, AT_START = ("LC_", "LANG"), ("LC_", "LANG", "PYTHON")


_running: dict[str, Forks] = {}


def forks(program: str) -> Forks:
    """Return the process for a program.  A test that fails kills all processes that began in it."""
    if program in _running and _running[program].has_ended:
        _running.pop(program).close()
    if program not in _running:
        _running[program] = Forks(python("tests.support.commands.forkserver", *INTERPRETERS[program]))
    return _running[program]


def run(
    space: Space,
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    input: str | None,
    timeout: float,
) -> "subprocess.CompletedProcess[str] | None":
    """Run a command in a namespace.  Returns None if its executable must be started instead."""
    if argv[0] not in INTERPRETERS or sum(map(len, (*argv, *env.values()))) > LONGEST:
        return None
    if _starting_with(AT_START, env) != _starting_with(LOCALE, os.environ):
        return None
    data = None if input is None else input.encode(errors="surrogateescape")
    return forks(argv[0]).call(space, argv, [list(argv), dict(env), cwd], data, timeout)


def _starting_with(prefixes: tuple[str, ...], environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(prefixes)}
