# SPDX-License-Identifier: Apache-2.0
"""Errors in words, for the one line that a person reads."""


def in_words(error: BaseException) -> str:
    """What the error says, without Python's own trimmings: of an OSError its file and the kernel's word."""
    if isinstance(error, OSError) and error.strerror and type(error).__str__ is OSError.__str__:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def one_line(text: str) -> str:
    return " ".join(text.split())


def describe(error: BaseException) -> str:
    """An error and the notes on it, in one line."""
    return one_line("; ".join([in_words(error), *getattr(error, "__notes__", ())]))
