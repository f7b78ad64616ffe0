# SPDX-License-Identifier: Apache-2.0
"""Rollback of an operation that fails half-way, and a sequence of steps that continues after an error."""

from cnihook.fast.errors_text import message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Undo:
    """A rollback.  If the block of `with Undo() as undo:` raises, it calls what was pushed, last first.

    For a step that may fail half-way, push the undo before the step; it must also work if nothing was done.
    An error of an undo becomes a note on the error that is raised.
    """

    def __init__(self) -> None:
        self._stack: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def __enter__(self) -> "Undo":
        return self

    def push(self, function: "Callable[..., object]", *arguments: object) -> None:
        self._stack.append((function, arguments))

    def commit(self) -> None:
        """Drop all that was pushed so far: these steps are not undone."""
        self._stack.clear()

    def __exit__(
        self,
        _kind: "type[BaseException] | None",
        error: "BaseException | None",
        _trace: "TracebackType | None",
    ) -> None:
        if error is None:
            return
        while self._stack:
            function, arguments = self._stack.pop()
            try:
                function(*arguments)
            except Exception as another:
                error.add_note(f"while undoing: {message(another)}")


def try_each(*functions: "Callable[[], object]") -> None:
    """Call all functions, even after an error; then raise the first error, with the others as notes."""
    first: Exception | None = None
    for function in functions:
        try:
            function()
        except Exception as error:
            if first is None:
                first = error
            else:
                first.add_note(message(error))
    if first is not None:
        raise first
