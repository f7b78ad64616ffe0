# SPDX-License-Identifier: Apache-2.0
"""What a check is, and what can come of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

OK, FAIL, NOTE, SKIP = "ok", "FAIL", "note", "-"


class Broken(Exception):
    """The promise was not kept, and why."""


class Skipped(Exception):
    """The check says nothing about this plugin, and why."""


@dataclass(frozen=True)
class Check:
    """`section` is where the specification says so, `must` whether it leaves no choice."""

    name: str
    promise: str
    section: str
    function: Callable[[Any], None]
    kinds: Sequence[str]
    since: str
    must: bool


@dataclass
class Outcome:
    subject: str
    check: Check
    mark: str
    why: str = ""
    sent: str = ""
    came: str = ""
    seconds: float = 0.0


class Register:
    """The checks of one sort, in the order in which they are written down."""

    def __init__(self) -> None:
        self.checks: dict[str, Check] = {}

    def __call__(
        self,
        name: str,
        promise: str,
        section: str,
        *,
        kinds: Sequence[str] = (),
        since: str = "",
        must: bool = True,
    ) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
        """The decorator.  `kinds`: of plugins that it concerns, all if empty; `since`: a version.

        What the specification says one "should" do has must=False: then a broken promise is a note.
        """

        def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
            assert name not in self.checks, name
            self.checks[name] = Check(name, promise, section, function, kinds, since, must)
            return function

        return register


plugin_check = Register()
runtime_check = Register()
