# SPDX-License-Identifier: Apache-2.0
"""Errors in one line, with a hint if root is needed."""

import os
import re

import pytest

from cnihook.fast import errors_text
from cnihook.linux import libc
from cnihook.linux.netns import NetNS
from cnihook.types.errors import INTERNAL, CniError

DENIED = PermissionError(13, "Permission denied", "/x")


def hidden() -> CniError:
    try:
        try:
            raise DENIED
        except PermissionError:
            raise CniError(INTERNAL, "no namespace") from None
    except CniError as error:
        return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DENIED, "/x: Permission denied; only root can do that"),
        (hidden(), "no namespace; only root can do that"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "/x: No such file or directory"),
        (CniError(INTERNAL, "a", "b\nc"), "a; b c"),
    ],
    ids=["denied", "behind another", "not there", "own error"],
)
def test_permission_error_hints_at_root(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, said: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert errors_text.message_with_hint(error) == said


def test_permission_error_of_root_has_no_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors_text, "_is_root", lambda: True)

    assert (
        errors_text.message_with_hint(DENIED)
        == errors_text.message_with_notes(DENIED)
        == "/x: Permission denied"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text", "plain text"),
        ("two\nlines\t and  blanks ", "two lines and blanks"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\rb", "a\\rb"),
        ("\x7f\x9b\x85", "\\x7f\\x9b\\x85"),
        ("\u202e\u2066\u2028", "\\u202e\\u2066\\u2028"),
        ("\udcff", "\\udcff"),
        ("\U000e0041", "\\U000e0041"),
        ("Grüße, 名前", "Grüße, 名前"),
    ],
)
def test_one_line_escapes_invisible_characters(text: str, expected: str) -> None:
    assert errors_text.one_line(text) == expected


def test_error_without_an_object_names_the_function_that_failed() -> None:
    """fstat(2), pipe(2) and setns(2) know no file."""
    with pytest.raises(OSError) as failed:
        _ = NetNS(10**6, "").identity
    assert errors_text.message(failed.value) == "a network namespace: Bad file descriptor"
    with pytest.raises(OSError) as failed:
        libc.setns(10**6, libc.CLONE_NEWNET)
    failed.value.filename = None
    assert errors_text.message(failed.value) == "Bad file descriptor"
    assert re.fullmatch(r"\w+: Bad file descriptor", errors_text.message_with_notes(failed.value))
    assert (
        errors_text.message_with_notes(OSError(28, "No space left on device")) == "No space left on device"
    )
    assert errors_text.message_with_notes(OSError(28, "a text of its own")) == "a text of its own"
