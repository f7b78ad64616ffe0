# SPDX-License-Identifier: Apache-2.0
"""The page of differences from the reference is what the marks in the tests say."""

import subprocess
import sys

import pytest

from tests.support import differences_page
from tests.support.cni import CHECKOUT
from tests.support.difference import Difference

REASON = "DEL | fails"


def test_page_is_what_the_marks_say() -> None:
    argv = [sys.executable, "-m", "tests.support.differences_page", "--check"]

    done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=120)

    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("fixed_in", "version", "concerned"),
    [
        ("", "1.9.1", True),
        ("1.4.0", "1.1.1+ds1-3+b5", True),
        ("1.4.0", "1.4.0", False),
        ("1.9.1", "1.10.0", False),
        ("1.9.1", "1.9.0+ds2-1", True),
    ],
)
def test_mark_ends_with_the_version_that_fixes_it(fixed_in: str, version: str, concerned: bool) -> None:
    assert Difference(REASON, fixed_in=fixed_in).concerns(version) is concerned


def test_rows_are_below_their_plugin_and_fixed_ones_apart() -> None:
    remaining = Difference(REASON, here="succeeds", right="SPEC.md, 2 DEL")
    shared = Difference("leaks", here="does not", right="cnihook")
    fixed = Difference("is old", here="is new", right="cnihook", fixed_in="1.9.1")
    found = {
        remaining: ["netns/test_host_device_del.py"],
        shared: ["netns/test_bridge.py", "netns/test_ptp.py"],
        fixed: ["netns/test_ptp.py"],
    }

    every, _, newer = differences_page.tables(found).partition("## Fixed in a newer version")

    several, _, host_device = every.partition("### host-device")
    assert "| leaks | does not | cnihook |" in several and "is old" not in every
    assert "| DEL \\| fails | succeeds | SPEC.md, 2 DEL | `netns/test_host_device_del.py` |" in host_device
    assert "| is old | is new | 1.9.1 | `netns/test_ptp.py` |" in newer


@pytest.mark.parametrize("mark", [Difference(REASON), Difference(REASON, here="x", right="SPEC")])
def test_mark_without_a_field_is_named(mark: Difference) -> None:
    assert REASON in differences_page.incomplete({mark: ["netns/test_ptp.py"]})[0]
