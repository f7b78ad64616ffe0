# SPDX-License-Identifier: Apache-2.0
"""
The files that pip lists for its installation of cnihook, and removes in `pip uninstall`.

Each file that a command adds to the package later is added to the list.  Otherwise pip would leave it, with
its folder, and `import cnihook` would then return an empty namespace package.  The format is that of the
Python packaging specification, "Recording installed projects": path, hash, size; both may be empty.
"""

import glob
import os

from cnihook import codecache
from cnihook.fast import statefile
from cnihook.oci import inject

_ROOT = os.path.dirname(codecache.PACKAGE)


def add(path: str) -> None:
    """List a file of the package, if pip installed it.  Raises OSError."""
    for record, text in _records():
        line = _line(path)
        if line not in text.splitlines():
            inject.write(record, f"{text.rstrip()}\n{line}\n")


def remove(path: str) -> None:
    """Remove a file from the list.  Raises OSError."""
    for record, text in _records():
        lines = text.splitlines()
        if _line(path) in lines:
            lines.remove(_line(path))
            inject.write(record, "\n".join(lines) + "\n")


def _line(path: str) -> str:
    return f"{os.path.relpath(path, _ROOT)},,"


def _records() -> list[tuple[str, str]]:
    """Return (path, text) of the list; none for a checkout, whose package no tool has installed there."""
    records = []
    for path in glob.glob(f"{glob.escape(_ROOT)}/cnihook-*.dist-info/RECORD"):
        data = statefile.read(path)
        if data is not None:
            records.append((path, data.decode()))
    return records
