# SPDX-License-Identifier: Apache-2.0
"""The differences from the reference plugins: their marks in the tests, and the tables made from these."""

import pytest

from tests.support import differences_page
from tests.support.difference import Difference

REASON = "DEL | fails"


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


def test_rows_are_grouped_by_plugin_and_fixed_ones_are_separate() -> None:
    remaining = Difference(REASON, here="succeeds", right="SPEC.md, 2 DEL")
    shared = Difference("leaks", here="does not", right="cnihook")
    fixed = Difference("is old", here="is new", right="cnihook", fixed_in="1.9.1")
    marks = {
        remaining: ["netns/test_host_device_del.py"],
        shared: ["netns/test_bridge.py", "netns/test_ptp.py"],
        fixed: ["netns/test_ptp.py"],
    }

    every, _, newer = differences_page.tables(marks).partition("## Fixed in a newer version")

    several, _, host_device = every.partition("### host-device")
    assert "| leaks | does not | cnihook |" in several and "is old" not in every
    assert "| DEL \\| fails | succeeds | SPEC.md, 2 DEL | `netns/test_host_device_del.py` |" in host_device
    assert "| is old | is new | 1.9.1 | `netns/test_ptp.py` |" in newer


@pytest.mark.parametrize("mark", [Difference(REASON), Difference(REASON, here="x", right="SPEC")])
def test_mark_without_a_field_is_named(mark: Difference) -> None:
    assert REASON in differences_page.incomplete({mark: ["netns/test_ptp.py"]})[0]
