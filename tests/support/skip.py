# SPDX-License-Identifier: Apache-2.0
"""Skips of tests on a machine that lacks something that they need."""

import os
import shutil
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

# Debian's folders of the administrator's programs, which are not in an ordinary user's PATH.
SEARCH = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"


CHECKOUT = Path(__file__).resolve().parents[2]


def skip_or_fail(reason: str) -> NoReturn:
    """Skip the test; in CI fail it, because it would never run otherwise."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def need(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program, path=SEARCH) is None]
    if missing:
        skip_or_fail(f"not installed: {', '.join(missing)}")


@cache
def closed_folder() -> str:
    """Return a folder above the checkout that only its owner can enter; empty if there is none."""
    folders = (CHECKOUT, *CHECKOUT.parents)
    return next((str(folder) for folder in folders if not folder.stat().st_mode & 0o001), "")


def need_open_checkout() -> None:
    """Skip a test that runs programs of the checkout as another user, if that user cannot reach them."""
    if closed_folder():
        skip_or_fail(f"other users cannot enter {closed_folder()}; move the checkout")


def need_root() -> None:
    if os.geteuid() != 0:
        skip_or_fail("needs root; `unshare -Urmn scripts/test` makes an ordinary user look like it")
