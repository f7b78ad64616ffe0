# SPDX-License-Identifier: Apache-2.0
"""What a check is, and what can come of it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

OK, FAIL, NOTE, SKIP = "ok", "FAIL", "note", "-"


class Broken(Exception):
    """The promise was not kept, and why."""


class Deviation(Broken):
    """A "should" or a "may" of the specification was not followed: a note, whatever the check."""


class Skipped(Exception):
    """The check says nothing about this plugin, and why."""


@contextmanager
def deviation() -> Iterator[None]:
    """A part of a check that rests on a "should", in one that rests on a "must"."""
    try:
        yield
    except Broken as error:
        raise Deviation(str(error)) from None


@dataclass(frozen=True)
class Check:
    """`section` is where the specification says so; `must` is False if it leaves a choice, or is silent."""

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

        must=False unless a sentence of the specification says "must", "required" or "shall", or gives the
        procedure: then a broken promise is a note.  A check that rests on a "must" raises Deviation for
        those parts of it that are a "should".
        """

        def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
            assert name not in self.checks, name
            self.checks[name] = Check(name, promise, section, function, kinds, since, must)
            return function

        return register


plugin_check = Register()
runtime_check = Register()
