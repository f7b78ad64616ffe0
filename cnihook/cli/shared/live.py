# SPDX-License-Identifier: Apache-2.0
"""A view of lines that is refreshed on the whole terminal, until q or Ctrl-C."""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cnihook.cli.shared import terminal

# Control sequences of xterm: the alternate screen, the cursor, its first position, erase.
_BEGIN, _END = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _ERASE_LINE, _ERASE_REST = "\x1b[H", "\x1b[2K", "\x1b[J"


def show(screens: "Iterator[list[str]]", interval: float) -> None:
    """Show the next screen after each interval.  Lines below the terminal's last row are left out."""
    with _keys() as is_left:
        try:
            _write(_BEGIN)
            for lines in screens:
                rows = terminal.size()[1]
                # A line is erased first: an erase after its last column would remove that column.
                drawn = [_ERASE_LINE + line for line in lines[:rows]]
                drawn += [_ERASE_REST] if len(drawn) < rows else []
                _write(_HOME + "\n".join(drawn))
                if is_left(interval):
                    return
        finally:
            _write(_END)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@contextmanager
def _keys() -> "Iterator[Callable[[float], bool]]":
    """Read keys one by one, without echo.  Yields a function that waits, and returns True after q."""
    if not os.isatty(0):
        yield _wait
        return
    before = termios.tcgetattr(0)
    try:
        tty.setcbreak(0)
        yield _wait_for_q
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _wait(timeout: float) -> bool:
    terminal.wait(timeout)
    return False


def _wait_for_q(timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        if select.select([0], [], [], left)[0]:
            pressed = os.read(0, 64)
            if not pressed or b"q" in pressed:  # nothing: the terminal is gone
                return True
    return False
