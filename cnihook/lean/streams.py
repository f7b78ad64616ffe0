# SPDX-License-Identifier: Apache-2.0
"""Standard streams that whoever started us has closed."""

import os
import sys


def fill() -> "list[int]":
    """Put /dev/null where stdin, stdout or stderr is closed: a file of ours would be taken for it.

    Returns the descriptors that were closed.
    """
    closed = []
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            closed.append(os.open(os.devnull, os.O_RDWR))  # the lowest number that is free: this one
    return closed


def reopen() -> None:
    """The same, and for Python too, whose objects for closed streams are None: to print to that is to print
    to stdout.
    """
    for fd in fill():
        name = ("stdin", "stdout", "stderr")[fd]
        setattr(sys, name, open(fd, "w" if fd else "r", closefd=False))
