# SPDX-License-Identifier: Apache-2.0
"""Errors in one line, and what is added where root is what was missing."""

import os

import pytest

from cnihook.lean import words
from cnihook.spec.errors import INTERNAL, CniError

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
    ids=["denied", "behind another", "not there", "of ours"],
)
def test_who_is_not_root_is_told(monkeypatch: pytest.MonkeyPatch, error: BaseException, said: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert words.explain(error) == said


def test_root_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_is_root", lambda: True)

    assert words.explain(DENIED) == words.describe(DENIED) == "/x: Permission denied"
