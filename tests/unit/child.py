# SPDX-License-Identifier: Apache-2.0
"""Code of the package in a separate process, for effects that are visible only between processes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.plugins.cni import CHECKOUT

PREAMBLE = f"""\
import os, sys, time
sys.path.insert(0, {str(CHECKOUT)!r})
from cnihook.linux import flock
from cnihook.runtime import records
flock.FOLDER = sys.argv[1] + "/run"
records.FOLDER = sys.argv[1] + "/results"
"""


def start(state: Path, code: str, *argv: str, **options: Any) -> "subprocess.Popen[str]":
    """Start a process that runs `code` with the folders of this test; its stdout is a pipe."""
    return subprocess.Popen(
        [sys.executable, "-IS", "-c", PREAMBLE + code, str(state), *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process: "subprocess.Popen[str]") -> str:
    """Return what the process printed; it has to end successfully within seconds."""
    stdout, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (0, "")
    return stdout


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()
