# SPDX-License-Identifier: Apache-2.0
"""
Stand in for a command in the eyes of whoever started this process, a shell above all.

Both are in the shell's process group.  What is typed at the terminal, the kernel sends to all of the group:
the command has it already.  What somebody sends to this process alone is meant for the command, and passed
on.  When the command stops, this process stops too, or the shell would not know.
"""

import _signal
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Limit(Protocol):
        """How long the command may take, and what is done then."""

        def remaining(self) -> float: ...

        def act(self) -> None: ...


# Those that tell of a process's own fault would come from ours.
_OWN = {
    _signal.SIGABRT,
    _signal.SIGBUS,
    _signal.SIGFPE,
    _signal.SIGILL,
    _signal.SIGPIPE,
    _signal.SIGSEGV,
    _signal.SIGSYS,
    _signal.SIGTRAP,
}


class Job:
    """The command, a child of this process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._taken = _signal.valid_signals() - _OWN
        self._typed_interrupt = False
        self.on_change: Callable[[], None] | None = None  # for SIGIO from the kernel, since begin()
        # A caller may have had it ignored, and then there would be no status to wait for.
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)

    def begin(self) -> None:
        """From here on every signal is the command's, and waits for wait() to read it."""
        _signal.pthread_sigmask(_signal.SIG_BLOCK, self._taken)

    def wait(self, limit: "Limit | None" = None) -> int:
        """Until the command has ended.  Returns its exit status; 128+n if signal n ended it."""
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
            if not pid:
                self._next_signal(limit)
            elif os.WIFSTOPPED(status):
                self._stop(os.WSTOPSIG(status))
            elif os.WIFSIGNALED(status):
                # Typed before the first look at signals, it is waiting still.
                waiting = _signal.sigtimedwait({_signal.SIGINT}, 0)
                self._typed_interrupt |= waiting is not None and waiting.si_code > 0
                self._typed_interrupt &= os.WTERMSIG(status) == _signal.SIGINT
                return 128 + os.WTERMSIG(status)
            else:
                self._typed_interrupt = False
                return os.WEXITSTATUS(status)

    def _next_signal(self, limit: "Limit | None") -> None:
        if not limit:
            self._pass_on(_signal.sigwaitinfo(self._taken))
        elif info := _signal.sigtimedwait(self._taken, limit.remaining()):
            self._pass_on(info)
        else:
            limit.act()

    def _pass_on(self, info: "_signal.struct_siginfo") -> None:
        from_kernel = info.si_code > 0
        if info.si_signo == _signal.SIGINT and from_kernel:
            self._typed_interrupt = True
        if info.si_signo == _signal.SIGIO and from_kernel and self.on_change:
            self.on_change()
            return
        if info.si_signo == _signal.SIGCHLD or info.si_pid == self.pid:
            return  # the command that signals its own group has its signal already
        # A terminal that hangs up tells the leader of its session alone.
        if not from_kernel or info.si_signo == _signal.SIGHUP:
            os.kill(self.pid, info.si_signo)

    def _stop(self, signum: int) -> None:
        """Stop as the command did, until somebody continues this process."""
        if _signal.SIGCONT in _signal.sigpending():
            return  # sent to both of us, and only ours is here yet
        own, command = os.getpgrp(), os.getpgid(self.pid)
        had_terminal = _foreground() == command
        self._stop_now(signum)
        # A shell, with a group of its own, takes it for granted that it has the terminal still.
        if had_terminal and command != own and _foreground() == own:
            _give_terminal(command)

    def _stop_now(self, signum: int) -> None:
        # Sent while it is blocked, it is one with what the terminal has sent us: two would stop us twice.
        os.kill(os.getpid(), signum)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {signum})
        _signal.pthread_sigmask(_signal.SIG_BLOCK, {signum})
        if _signal.SIGCONT not in _signal.sigpending():
            # In a group that no shell watches, the kernel stops nobody for the terminal's sake.
            os.kill(self.pid, _signal.SIGCONT)

    def end_as_it_did(self) -> None:
        """Die of Ctrl-C if the command did: a shell leaves its loop or script then, and only then.

        Returns otherwise; then the exit status tells.
        """
        if self._typed_interrupt:
            _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {_signal.SIGINT})
            os.kill(os.getpid(), _signal.SIGINT)


def _foreground() -> int:
    """The process group that has the terminal; 0 without one."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return os.tcgetpgrp(terminal)
    except OSError:  # it has hung up
        return 0
    finally:
        os.close(terminal)


def _give_terminal(group: int) -> None:
    terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.tcsetpgrp(terminal, group)
    except OSError:
        pass  # the group or the terminal is gone
    finally:
        os.close(terminal)
