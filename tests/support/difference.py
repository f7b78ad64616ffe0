# SPDX-License-Identifier: Apache-2.0
"""The fields of a `known_difference` mark, and whether it concerns the installed reference."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CNIHOOK = "cnihook"  # the specification has no rule, and the reference loses or damages something
EITHER = "either"  # a choice, or the wording of an error


@dataclass(frozen=True)
class Difference:
    """One thing that the reference does and cnihook does not, or the other way round.

    `reason`: what the reference does; `here`: what cnihook does instead.  `right`: the section of SPEC.md
    that the reference breaks, CNIHOOK or EITHER.  `fixed_in`: the first version of the reference that is
    known to do the same as cnihook.  `debian`: the only release of Debian whose build has the difference.
    `run`: False if the test would take minutes with the reference.
    """

    reason: str
    here: str = ""
    right: str = ""
    fixed_in: str = ""
    debian: str = ""
    run: bool = True

    def concerns(self, version: str) -> bool:
        """Return True if this version of the reference has the difference."""
        if self.debian and self.debian != _release_of_debian():
            return False
        return not self.fixed_in or numbers(version) < numbers(self.fixed_in)


@cache
def _release_of_debian() -> str:
    """Return the release, such as "12"; an empty text if it has no number, or on another system."""
    try:
        match = re.search(r'^VERSION_ID="(\d+)"$', Path("/etc/os-release").read_text(), re.M)
    except FileNotFoundError:
        return ""
    return match[1] if match else ""


def numbers(version: str) -> tuple[int, ...]:
    """Return the upstream part of a version, "1.1.1+ds1-3" or "1.9.1", as numbers."""
    return tuple(map(int, re.findall(r"\d+", re.split(r"[^\d.]", version, maxsplit=1)[0])))
