# SPDX-License-Identifier: Apache-2.0
"""
A command that runs as a child, while this process represents it to its parent, such as a shell.

Both are in the shell's process group.  The kernel sends what is typed at the terminal to the whole group, so
the command has it already.  A signal for this process alone is meant for the command, and is passed on.
When the command stops, this process stops, too; otherwise the shell would not notice.
"""

import _signal
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Deadline(Protocol):
        """The time that the command may take, and the action when it is over."""

        def remaining(self) -> float: ...

        def expire(self) -> None: ...


# Signals for a fault of this process, which are not passed on.
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
        self.on_change: Callable[[], None] | None = None  # called at SIGIO from the kernel, after begin()
        # If the caller ignores SIGCHLD, there would be no status to wait for.
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)

    def begin(self) -> None:
        """Block all signals; from now on, wait() reads them and passes them to the command."""
        _signal.pthread_sigmask(_signal.SIG_BLOCK, self._taken)

    def wait(self, deadline: "Deadline | None" = None) -> int:
        """Wait until the command has ended.  Returns its exit status; 128+n if signal n ended it."""
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
            if not pid:
                self._next_signal(deadline)
            elif os.WIFSTOPPED(status):
                self._stop(os.WSTOPSIG(status))
            elif os.WIFSIGNALED(status):
                # A Ctrl-C from before the first read of signals is still pending.
                waiting = _signal.sigtimedwait({_signal.SIGINT}, 0)
                self._typed_interrupt |= waiting is not None and waiting.si_code > 0
                self._typed_interrupt &= os.WTERMSIG(status) == _signal.SIGINT
                return 128 + os.WTERMSIG(status)
            else:
                self._typed_interrupt = False
                return os.WEXITSTATUS(status)

    def _next_signal(self, deadline: "Deadline | None") -> None:
        if not deadline:
            self._pass_on(_signal.sigwaitinfo(self._taken))
        elif info := _signal.sigtimedwait(self._taken, deadline.remaining()):
            self._pass_on(info)
        else:
            deadline.expire()

    def _pass_on(self, info: "_signal.struct_siginfo") -> None:
        from_kernel = info.si_code > 0
        if info.si_signo == _signal.SIGINT and from_kernel:
            self._typed_interrupt = True
        if info.si_signo == _signal.SIGIO and from_kernel and self.on_change:
            self.on_change()
            return
        if info.si_signo == _signal.SIGCHLD or info.si_pid == self.pid:
            return  # a command that signals its own group has the signal already
        # A terminal that hangs up signals only the leader of its session.
        if not from_kernel or info.si_signo == _signal.SIGHUP:
            os.kill(self.pid, info.si_signo)

    def _stop(self, signum: int) -> None:
        """Stop like the command, until another process continues this one."""
        if _signal.SIGCONT in _signal.sigpending():
            return  # sent to both processes, and not yet received by the command
        own, command = os.getpgrp(), os.getpgid(self.pid)
        had_terminal = _foreground() == command
        self._stop_now(signum)
        # A command that is a shell has its own group, and expects to have the terminal still.
        if had_terminal and command != own and _foreground() == own:
            _give_terminal(command)

    def _stop_now(self, signum: int) -> None:
        # Sent while it is blocked, it merges with that of the terminal: two would stop this process twice.
        os.kill(os.getpid(), signum)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {signum})
        _signal.pthread_sigmask(_signal.SIG_BLOCK, {signum})
        if _signal.SIGCONT not in _signal.sigpending():
            # In a group that no shell watches, the kernel ignores stop signals of the terminal.
            os.kill(self.pid, _signal.SIGCONT)

    def exit_like_child(self) -> None:
        """Die of Ctrl-C if the command did, because only then a shell leaves its loop or script.

        Returns otherwise; then the exit status is enough.
        """
        if self._typed_interrupt:
            _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {_signal.SIGINT})
            os.kill(os.getpid(), _signal.SIGINT)


def _foreground() -> int:
    """Return the process group that has the terminal; 0 without a terminal."""
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
