# SPDX-License-Identifier: Apache-2.0
"""Doing all or nothing, and doing as much as can be done."""

from cnihook.lean.words import in_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Undo:
    """`with Undo() as undo:` takes back, last first, what was pushed, if the block does not come to its end.

    Push before the act where the act may fail half-way, and make what is pushed bear that nothing was done.
    What goes wrong while undoing is kept as a note on the error that is on its way.
    """

    def __init__(self) -> None:
        self._stack: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def __enter__(self) -> "Undo":
        return self

    def push(self, function: "Callable[..., object]", *arguments: object) -> None:
        self._stack.append((function, arguments))

    def forget(self) -> None:
        """What was pushed so far stays as it is, whatever happens."""
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
                error.add_note(f"while undoing: {in_words(another)}")


def try_each(*functions: "Callable[[], object]") -> None:
    """Call them all, whatever happens; then raise the first error, the others noted on it."""
    first: Exception | None = None
    for function in functions:
        try:
            function()
        except Exception as error:
            if first is None:
                first = error
            else:
                first.add_note(in_words(error))
    if first is not None:
        raise first
