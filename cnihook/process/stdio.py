# SPDX-License-Identifier: Apache-2.0
"""Standard streams that the caller has closed."""

import os
import sys


def open_missing() -> "list[int]":
    """Put /dev/null where stdin, stdout or stderr is closed; else a file of this process gets its number.

    Returns the descriptors that were closed.
    """
    closed = []
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            closed.append(os.open(os.devnull, os.O_RDWR))  # the lowest number that is free: this one
    return closed


def reopen_python_streams() -> None:
    """Do the same for Python, too.

    Its objects for closed streams are None, and a print to None goes to stdout.
    """
    for fd in open_missing():
        name = ("stdin", "stdout", "stderr")[fd]
        setattr(sys, name, open(fd, "w" if fd else "r", closefd=False))
