# SPDX-License-Identifier: Apache-2.0
"""What a `known_difference` mark says, and whether it concerns the reference that is installed."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CNIHOOK = "cnihook"  # the specification leaves it open, and the reference loses or damages something
EITHER = "either"  # a choice, or the wording of an error


@dataclass(frozen=True)
class Difference:
    """One thing that the reference does and cnihook does not, or the other way round.

    `reason`: what the reference does; `here`: what cnihook does instead.  `right`: the section of SPEC.md
    that the reference breaks, CNIHOOK or EITHER.  `fixed_in`: the first version of the reference that is
    known to do as cnihook does.  `debian`: the only release of Debian whose build of it does so.  `run`:
    False if the test would take minutes with the reference.
    """

    reason: str
    here: str = ""
    right: str = ""
    fixed_in: str = ""
    debian: str = ""
    run: bool = True

    def concerns(self, version: str) -> bool:
        """True if the reference of this version has the difference."""
        if self.debian and self.debian != _release_of_debian():
            return False
        return not self.fixed_in or numbers(version) < numbers(self.fixed_in)


@cache
def _release_of_debian() -> str:
    """Return such as "12"; an empty text for one without a number, or another system."""
    try:
        found = re.search(r'^VERSION_ID="(\d+)"$', Path("/etc/os-release").read_text(), re.M)
    except FileNotFoundError:
        return ""
    return found[1] if found else ""


def numbers(version: str) -> tuple[int, ...]:
    """Return the upstream part of a version, "1.1.1+ds1-3" or "1.9.1", as numbers."""
    return tuple(map(int, re.findall(r"\d+", re.split(r"[^\d.]", version, maxsplit=1)[0])))
