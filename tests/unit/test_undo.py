# SPDX-License-Identifier: Apache-2.0
"""sdk.undo: all or nothing, and as much as can be done."""

import pytest

from cnihook.lean.signals import Interrupted
from cnihook.sdk import Undo, try_each


def fail(text: str) -> None:
    raise OSError(text)


def notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


def test_nothing_is_undone_after_success() -> None:
    done: list[str] = []
    with Undo() as undo:
        undo.push(done.append, "a")

    assert done == []


def test_failure_undoes_the_last_first() -> None:
    done: list[str] = []
    with pytest.raises(KeyError, match="why"), Undo() as undo:
        undo.push(done.append, "a")
        undo.push(done.append, "b")
        raise KeyError("why")

    assert done == ["b", "a"]


def test_only_what_was_pushed_before_the_failure_is_undone() -> None:
    done: list[str] = []
    with pytest.raises(OSError), Undo() as undo:
        undo.push(done.append, "a")
        fail("b")
        undo.push(done.append, "b")

    assert done == ["a"]


def test_a_failing_undo_hides_neither_the_cause_nor_the_others() -> None:
    done: list[str] = []
    with pytest.raises(KeyError, match="why") as raised, Undo() as undo:
        undo.push(done.append, "a")
        undo.push(fail, "disk full")
        undo.push(done.append, "b")
        raise KeyError("why")

    assert done == ["b", "a"]
    assert notes(raised.value) == ["while undoing: disk full"]


@pytest.mark.parametrize("end", [Interrupted(15), KeyboardInterrupt(), SystemExit(3)])
def test_an_interrupt_undoes_too(end: BaseException) -> None:
    done: list[str] = []
    with pytest.raises(type(end)), Undo() as undo:
        undo.push(done.append, "a")
        raise end

    assert done == ["a"]


def test_try_each_calls_all_and_raises_the_first_error() -> None:
    done: list[str] = []
    with pytest.raises(OSError, match="^first") as raised:
        try_each(
            lambda: done.append("a"),
            lambda: fail("first"),
            lambda: done.append("b"),
            lambda: fail("second"),
            lambda: done.append("c"),
        )

    assert done == ["a", "b", "c"]
    assert notes(raised.value) == ["second"]


def test_try_each_of_nothing_and_of_successes_is_silent() -> None:
    try_each()
    try_each(lambda: 1, lambda: None)


def test_try_each_lets_an_interrupt_through() -> None:
    """Whoever is asked to stop does not go on to the next."""
    done: list[str] = []

    def interrupted() -> None:
        raise Interrupted(15)

    with pytest.raises(Interrupted):
        try_each(interrupted, lambda: done.append("a"))
    assert done == []
