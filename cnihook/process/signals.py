# SPDX-License-Identifier: Apache-2.0
"""Signals and deadlines by the C module; `import signal` costs 3.6 ms for its enumerations."""

import _signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

# Numbers as <signal.h> has them on every architecture that Linux containers run on.
SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGPIPE, SIGALRM, SIGTERM = 1, 2, 3, 9, 13, 14, 15


class Interrupted(BaseException):
    """A signal asked this process to stop.

    This is not an Exception: only an undo may come between it and the exit.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
        self.undone = False  # True once what it interrupted is undone

    def __str__(self) -> str:
        if self.signum == SIGALRM:
            return "the time allowed for it is over"
        return f"interrupted by signal {self.signum} ({_signal.strsignal(self.signum)})"


def _interrupt(signum: int, _frame: "FrameType | None") -> None:
    ignore_interrupts()  # a second one would interrupt the undo that the first one starts
    raise Interrupted(signum)


def reset() -> None:
    """Unblock every signal, and make those that ask for an end raise Interrupted.

    crun starts hooks with all signals blocked, and exec keeps that mask.  Go programs may pass on an ignored
    SIGPIPE.
    """
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    _signal.signal(SIGPIPE, _signal.SIG_IGN)  # without a reader, a write fails and the process goes on
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # if ignored, the kernel would reap our plugins
    for signum in (SIGHUP, SIGINT, SIGTERM, SIGALRM):
        _signal.signal(signum, _interrupt)


def take_back_pythons() -> None:
    """Undo what Python does at its start: it ignores SIGPIPE and SIGXFSZ, and catches SIGINT.

    This is for a process that runs a command of the user, which inherits what is ignored.  What our own
    caller ignores stays ignored.
    """
    _signal.signal(SIGPIPE, _signal.SIG_DFL)
    _signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)
    if _signal.getsignal(SIGINT) is _signal.default_int_handler:
        _signal.signal(SIGINT, _signal.SIG_DFL)


def raise_on_interrupts() -> None:
    """Raise Interrupted like reset(), in a command of the user.

    Signals that the user ignores (nohup) or blocks stay so, because that is intended.
    """
    _signal.signal(SIGPIPE, _signal.SIG_IGN)
    for signum in (SIGHUP, SIGINT, SIGTERM):
        if _signal.getsignal(signum) != _signal.SIG_IGN:
            _signal.signal(signum, _interrupt)


def ignore_interrupts() -> None:
    """Ignore signals that ask for an end: what follows undoes changes and must not be interrupted."""
    _signal.setitimer(_signal.ITIMER_REAL, 0)
    for signum in (SIGHUP, SIGINT, SIGTERM, SIGALRM):
        _signal.signal(signum, _signal.SIG_IGN)


def set_deadline(seconds: float) -> None:
    """Raise Interrupted after `seconds`; 0 means never."""
    _signal.setitimer(_signal.ITIMER_REAL, seconds)
