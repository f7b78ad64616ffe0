# SPDX-License-Identifier: Apache-2.0
"""A throw-away host that lacks programs which the machine has."""

import shutil

from tests.support.host import Host
from tests.support.skip import SEARCH, skip_or_fail


def path_of(program: str) -> str:
    path = shutil.which(program, path=SEARCH)
    if path is None:
        skip_or_fail(f"not installed: {program}")
    return path


def hide(host: Host, *programs: str) -> None:
    """As if they were not installed: what covers them cannot be executed."""
    for program in programs:
        cover(host, program, "/dev/null")


def cover(host: Host, program: str, substitute: str) -> None:
    """Put another file in a program's place."""
    path = path_of(program)
    host.run("mount", "--bind", substitute, path)
    host.leaves(f"mount {path}", "dir /run/mount", "file /run/mount/utab*")
