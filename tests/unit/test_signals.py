# SPDX-License-Identifier: Apache-2.0
"""process.signals: a signal raises an error once, so that work is undone; each test has its own process."""

import signal
import subprocess
from pathlib import Path

import pytest

from cnihook.process.signals import Interrupted
from tests.unit import child

WAIT = """\
from cnihook.process import signals
signals.reset()
try:
    print("on", flush=True)
    time.sleep(20)
except signals.Interrupted as error:
    print(error, flush=True)
    time.sleep(float(sys.argv[2]))  # the undo
    print("undone")
"""


def started(state: Path, code: str, *argv: str, **options: object) -> "subprocess.Popen[str]":
    process = child.start(state, code, *argv, **options)
    assert child.line(process) == "on"
    return process


@pytest.mark.parametrize(
    ("signum", "words"),
    [
        (signal.SIGTERM, "interrupted by signal 15 (Terminated)"),
        (signal.SIGINT, "interrupted by signal 2 (Interrupt)"),
        (signal.SIGHUP, "interrupted by signal 1 (Hangup)"),
        (signal.SIGALRM, "the time allowed for it is over"),
    ],
)
def test_signal_raises_an_error_with_its_name(state: Path, signum: signal.Signals, words: str) -> None:
    process = started(state, WAIT, "0")
    process.send_signal(signum)

    assert child.finish(process).splitlines() == [words, "undone"]


def test_undo_is_not_interrupted_again(state: Path) -> None:
    """The undo must not stop half-way if a user presses Ctrl-C twice."""
    process = started(state, WAIT, "0.3")
    process.send_signal(signal.SIGTERM)
    child.line(process)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        process.send_signal(signum)

    assert child.finish(process).splitlines() == ["undone"]


def test_signals_that_the_caller_blocked_or_ignored_arrive(state: Path) -> None:
    """crun blocks all signals, and a mask is kept by exec."""

    def spoil() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, range(1, 32))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    process = started(state, WAIT, "0", preexec_fn=spoil)
    process.send_signal(signal.SIGTERM)

    assert child.finish(process).splitlines()[1] == "undone"


def test_deadline_raises_an_error_and_can_be_cancelled(state: Path) -> None:
    code = """\
from cnihook.process import signals
signals.reset()
signals.set_deadline(0.05)
signals.set_deadline(0)
time.sleep(0.15)
signals.set_deadline(0.05)
try:
    time.sleep(20)
except signals.Interrupted as error:
    print(error)
"""
    assert child.finish(child.start(state, code)) == "the time allowed for it is over\n"


def test_write_to_a_closed_pipe_is_an_error(state: Path) -> None:
    code = """\
from cnihook.process import signals
signals.reset()
read, write = os.pipe()
os.close(read)
try:
    os.write(write, b"x")
except BrokenPipeError:
    print("an error")
"""
    assert child.finish(child.start(state, code)) == "an error\n"


def test_signal_that_the_user_ignores_stays_ignored_in_a_command(state: Path) -> None:
    """nohup is the user's decision; in a hook, an ignored signal is an accident of the runtime."""
    code = WAIT.replace("signals.reset()", "signals.raise_on_interrupts()")

    process = started(state, code, "0", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)

    assert child.finish(process).splitlines()[0] == "interrupted by signal 15 (Terminated)"


def test_interrupt_is_not_caught_by_except_exception() -> None:
    assert not issubclass(Interrupted, Exception)
