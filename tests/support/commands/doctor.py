# SPDX-License-Identifier: Apache-2.0
"""Calls of `cnihook doctor`."""

import subprocess

from tests.support.host.host import Host
from tests.support.host.namespace import base_environment
from tests.support.runtimes.oci import CNIHOOK


def doctor(
    host: Host, *options: str, status: int | None = None, env: dict[str, str] | None = None
) -> list[str]:
    """Return the lines that it prints."""
    process = run(host, *options, env=env)
    if status is not None:
        assert process.returncode == status, process
    return process.stdout.splitlines()


def run(host: Host, *options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    process = host.run(CNIHOOK, "doctor", *options, env=base_environment() | (env or {}), check=False)
    assert "Traceback" not in process.stderr, process.stderr
    return process


def finds(host: Host, kind: str, *words: str) -> str:
    """Check that it reports one problem, of this kind and with these strings.  Returns the suggestion."""
    lines = doctor(host, status=1)
    assert [line.partition(":")[0] for line in lines] == [kind], lines
    assert all(word in lines[0] for word in words), lines
    return lines[0].rpartition("; remedy: ")[2]


def fixes(host: Host, kind: str) -> None:
    """Check that --fix reports on stderr what it does, and that no problem is left then."""
    process = run(host, "--fix")
    assert (process.returncode, process.stdout) == (0, ""), process
    assert (
        all(line.startswith(f"fixing {kind}: ") for line in process.stderr.splitlines()) and process.stderr
    )
    assert doctor(host, status=0) == []
