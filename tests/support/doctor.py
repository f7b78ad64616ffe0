# SPDX-License-Identifier: Apache-2.0
"""`cnihook doctor`, as tests ask it."""

import subprocess

from tests.support.host import Host
from tests.support.namespace import base_environment
from tests.support.oci import CNIHOOK


def doctor(
    host: Host, *options: str, status: int | None = None, env: dict[str, str] | None = None
) -> list[str]:
    """The lines that it prints."""
    done = run(host, *options, env=env)
    if status is not None:
        assert done.returncode == status, done
    return done.stdout.splitlines()


def run(host: Host, *options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = host.run(CNIHOOK, "doctor", *options, env=base_environment() | (env or {}), check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def finds(host: Host, kind: str, *words: str) -> str:
    """The one line of this kind, which has all these words; there is no other fault.  Returns the remedy."""
    lines = doctor(host, status=1)
    assert [line.partition(":")[0] for line in lines] == [kind], lines
    assert all(word in lines[0] for word in words), lines
    return lines[0].rpartition("; remedy: ")[2]


def fixes(host: Host, kind: str) -> None:
    """What --fix does is said on stderr, and then nothing is wrong any more."""
    done = run(host, "--fix")
    assert (done.returncode, done.stdout) == (0, ""), done
    assert all(line.startswith(f"fixing {kind}: ") for line in done.stderr.splitlines()) and done.stderr
    assert doctor(host, status=0) == []
