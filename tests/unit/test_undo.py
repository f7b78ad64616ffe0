# SPDX-License-Identifier: Apache-2.0
"""fast.undo: all steps succeed or are undone, as far as possible."""

import pytest

from cnihook.process.signals import Interrupted
from cnihook.sdk import Undo, try_each


def fail(text: str) -> None:
    raise OSError(text)


def notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


def test_nothing_is_undone_after_success() -> None:
    calls: list[str] = []
    with Undo() as undo:
        undo.push(calls.append, "a")

    assert calls == []


def test_failure_undoes_the_last_first() -> None:
    calls: list[str] = []
    with pytest.raises(KeyError, match="why"), Undo() as undo:
        undo.push(calls.append, "a")
        undo.push(calls.append, "b")
        raise KeyError("why")

    assert calls == ["b", "a"]


def test_only_undos_pushed_before_the_failure_are_called() -> None:
    calls: list[str] = []
    with pytest.raises(OSError), Undo() as undo:
        undo.push(calls.append, "a")
        fail("b")
        undo.push(calls.append, "b")

    assert calls == ["a"]


def test_failed_undo_hides_neither_the_cause_nor_the_other_undos() -> None:
    calls: list[str] = []
    with pytest.raises(KeyError, match="why") as raised, Undo() as undo:
        undo.push(calls.append, "a")
        undo.push(fail, "disk full")
        undo.push(calls.append, "b")
        raise KeyError("why")

    assert calls == ["b", "a"]
    assert notes(raised.value) == ["while undoing: disk full"]


@pytest.mark.parametrize("end", [Interrupted(15), KeyboardInterrupt(), SystemExit(3)])
def test_interrupt_is_undone_too(end: BaseException) -> None:
    calls: list[str] = []
    with pytest.raises(type(end)), Undo() as undo:
        undo.push(calls.append, "a")
        raise end

    assert calls == ["a"]


def test_try_each_calls_all_and_raises_the_first_error() -> None:
    calls: list[str] = []
    with pytest.raises(OSError, match="^first") as raised:
        try_each(
            lambda: calls.append("a"),
            lambda: fail("first"),
            lambda: calls.append("b"),
            lambda: fail("second"),
            lambda: calls.append("c"),
        )

    assert calls == ["a", "b", "c"]
    assert notes(raised.value) == ["second"]


def test_try_each_without_an_error_raises_nothing() -> None:
    try_each()
    try_each(lambda: 1, lambda: None)


def test_try_each_stops_at_an_interrupt() -> None:
    """A request to stop must not start the next call."""
    calls: list[str] = []

    def interrupted() -> None:
        raise Interrupted(15)

    with pytest.raises(Interrupted):
        try_each(interrupted, lambda: calls.append("a"))
    assert calls == []
