# SPDX-License-Identifier: Apache-2.0
"""What a test does on a machine that lacks what it needs."""

import os
import shutil
from typing import NoReturn

import pytest

# Where Debian keeps the programs of the administrator, which an ordinary user's PATH leaves out.
SEARCH = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"


def skip_or_fail(reason: str) -> NoReturn:
    """A developer's machine may lack what a test needs; CI may not, or the test would never run."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def need(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program, path=SEARCH) is None]
    if missing:
        skip_or_fail(f"not installed: {', '.join(missing)}")


def need_root() -> None:
    if os.geteuid() != 0:
        skip_or_fail("needs root; `unshare -Urmn scripts/test` makes an ordinary user look like it")
