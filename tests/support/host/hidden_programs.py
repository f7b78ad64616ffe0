# SPDX-License-Identifier: Apache-2.0
"""Functions that hide programs of the machine from a throw-away host."""

import shutil

from tests.support.host.host import Host
from tests.support.skip import SEARCH, skip_or_fail


def path_of(program: str) -> str:
    path = shutil.which(program, path=SEARCH)
    if path is None:
        skip_or_fail(f"not installed: {program}")
    return path


def hide(host: Host, *programs: str) -> None:
    """Make programs look as if they were not installed: mount a file on them that cannot be executed."""
    for program in programs:
        cover(host, program, "/dev/null")


def cover(host: Host, program: str, substitute: str) -> None:
    """Mount another file on a program."""
    path = path_of(program)
    host.run("mount", "--bind", substitute, path)
    host.leaves(f"mount {path}", "dir /run/mount", "file /run/mount/utab*")
