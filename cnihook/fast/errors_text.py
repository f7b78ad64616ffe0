# SPDX-License-Identifier: Apache-2.0
"""Error messages as text, on the one line that a person reads."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def message(error: BaseException) -> str:
    """Return the text of an error without Python's additions; of an OSError, its file and strerror."""
    if isinstance(error, OSError) and error.strerror and type(error).__str__ is OSError.__str__:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def with_object(error: BaseException) -> str:
    """Return the text, after the function of cnihook that failed if the kernel's text is all there is."""
    text = message(error)
    if isinstance(error, OSError) and error.errno is not None and text == os.strerror(error.errno):
        name = _function(error)
        return f"{name}: {text}" if name else text
    return text


def _function(error: BaseException) -> str:
    """Return the function of cnihook that made the failing system call, for an error without an object."""
    name = ""
    trace = error.__traceback__
    while trace:
        code = trace.tb_frame.f_code
        if trace.tb_frame.f_globals.get("__name__", "").startswith("cnihook."):
            name = code.co_qualname
        trace = trace.tb_next
    return name


def listed(names: "Sequence[str]", most: int, separator: str = ", ") -> str:
    """Return the first `most` names, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def one_line(text: str) -> str:
    """Return `text` as one line that shows only its text: no control of the terminal, no second line."""
    parts = text.replace("\n", " ").replace("\t", " ").split(" ")
    return printable(" ".join(filter(None, parts)))


def printable(text: str) -> str:
    """Return `text` with an escape such as \\x1b for each character that has no glyph.

    These characters move a cursor, end a line or change the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def message_with_notes(error: BaseException) -> str:
    """Return an error and the notes on it as one line."""
    return one_line("; ".join([with_object(error), *getattr(error, "__notes__", ())]))


def message_with_hint(error: BaseException) -> str:
    """Return message_with_notes(error); if a right was missing, the text ends with what is required."""
    text = message_with_notes(error)
    return f"{text}; only root can do that" if _was_denied(error) and not _is_root() else text


def _was_denied(error: "BaseException | None") -> bool:
    while error and not isinstance(error, PermissionError):
        error = error.__cause__ or error.__context__  # also where `from None` hides it
    return error is not None


def _is_root() -> bool:
    """Return True for root of the machine; root of a user namespace has no access to networks."""
    try:
        with open("/proc/self/uid_map") as file:
            whole = file.read().split() == ["0", "0", "4294967295"]
    except OSError:  # a kernel without user namespaces, or no /proc
        whole = True
    return os.geteuid() == 0 and whole
