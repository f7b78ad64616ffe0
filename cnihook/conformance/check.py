# SPDX-License-Identifier: Apache-2.0
"""Check and Outcome, and the exceptions by which a check ends."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

OK, FAIL, NOTE, SKIP = "ok", "FAIL", "note", "-"


class CheckFailed(Exception):
    """The reason why the promise is not kept."""


class Deviation(CheckFailed):
    """The plugin does not follow a "should" or a "may" of the specification.  This is always a note."""


class CheckSkipped(Exception):
    """The reason why the check does not apply to this plugin, or cannot be tried."""


@contextmanager
def deviation() -> Iterator[None]:
    """Turn CheckFailed into Deviation: this part of a check rests on a "should", the rest on a "must"."""
    try:
        yield
    except CheckFailed as error:
        raise Deviation(str(error)) from None


@dataclass(frozen=True)
class Check:
    """A promise and the function that tests it.

    `section`: of the specification.  `must` is False if the specification leaves a choice or has no rule.
    """

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
    """The checks of plugins, or those of runtimes, in the order of the source."""

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
        """Return a decorator that registers a check.

        `kinds`: the kinds of plugins that it concerns, all if empty.  `since`: a version.  `must` is True
        only if a sentence of the specification says "must", "required" or "shall", or gives the procedure.
        Otherwise a broken promise is a note.  A check that rests on a "must" raises Deviation for those of
        its parts that are a "should".
        """

        def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
            assert name not in self.checks, name
            self.checks[name] = Check(name, promise, section, function, kinds, since, must)
            return function

        return register


plugin_check = Register()
runtime_check = Register()
