# SPDX-License-Identifier: Apache-2.0
"""process.child: one program is run to its end, with any behaviour of its streams and children."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cnihook.process import child as program
from cnihook.process.child import Outcome
from tests.unit import child


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shorten the grace period, and check that no descriptor and no child is left."""
    monkeypatch.setattr(program, "_GRACE", 0.3)
    before = sorted(os.listdir("/proc/self/fd"))
    children = psutil.Process().children()  # of other tests, for example a daemon
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert set(psutil.Process().children()) <= set(children)


def sh(script: str, stdin: bytes = b"", timeout: float = 20) -> Outcome:
    return program.run("/bin/sh", ["sh", "-c", script], dict(os.environ), stdin, timeout)


def python(script: str, stdin: bytes = b"", timeout: float = 20) -> Outcome:
    return program.run("/usr/bin/python3", ["python3", "-IS", "-c", script], {}, stdin, timeout)


def alive(pid: int) -> bool:
    """Return True if the process runs; an ended process stays a zombie until its parent waits."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(path: Path) -> bool:
    """Return True if the process whose PID is in the file ends within 30 s."""
    pid = int(path.read_text())
    deadline = time.monotonic() + 30
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.005)
    return not alive(pid)


def test_streams_and_status() -> None:
    outcome = sh("cat; echo problem >&2; exit 7", b"input")

    assert (outcome.status, outcome.stdout, outcome.stderr, outcome.timed_out) == (
        7, b"input", b"problem\n", False
    )  # fmt: skip


def test_status_of_a_signal_is_negative() -> None:
    assert sh("kill -9 $$").status == -9


def test_program_gets_exactly_these_arguments_and_environment() -> None:
    outcome = program.run(
        "/bin/sh", ["sh", "-c", 'echo "$1 $A $B"', "x", "a  b"], {"A": "1", "B": "\u00fc"}, b"", 5
    )

    assert outcome.stdout.decode() == "a  b 1 \u00fc\n"


def test_missing_program_is_an_oserror() -> None:
    with pytest.raises(FileNotFoundError):
        program.run("/no/such/program", ["x"], {}, b"", 5)


@pytest.mark.parametrize("script", ["true", "exec <&-; sleep 0.05", "head -c 1 > /dev/null"])
def test_program_may_leave_its_input_unread(script: str) -> None:
    """A plugin that fails early reads nothing; the broken pipe must not be an error."""
    outcome = sh(script, b"x" * (1 << 20))

    assert (outcome.status, outcome.stderr) == (0, b"")


def test_large_input_and_output_at_once() -> None:
    """The program fills a pipe before it reads: a caller that writes all of the input first would block."""
    outcome = python(
        "import sys; sys.stdout.write('o' * 3000000); sys.stderr.write('e' * 2000000);"
        "sys.stdout.write(str(len(sys.stdin.read())))",
        b"i" * 3_000_000,
    )

    assert outcome.status == 0
    assert outcome.stdout == b"o" * 3_000_000 + b"3000000"
    assert outcome.stderr == b"e" * 2_000_000


def test_output_may_be_closed_early() -> None:
    assert sh("exec >&- 2>&-; sleep 0.1; exit 4").status == 4


def test_child_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    """The child holds the output open, perhaps for ever; the program itself has ended."""
    started = time.monotonic()
    outcome = sh(f"echo result; sleep 60 & echo $! > {tmp_path}/pid")

    assert time.monotonic() - started < 50  # of the 60 s that the child sleeps
    assert (outcome.status, outcome.stdout) == (0, b"result\n")
    pid = int((tmp_path / "pid").read_text())
    assert alive(pid), "a plugin may start a daemon"
    os.kill(pid, signal.SIGKILL)


def test_child_in_the_background_may_hold_the_input_open(tmp_path: Path) -> None:
    """The input is longer than what is ever read."""
    script = f"""\
import os, time
if os.fork() == 0:
    os.close(1), os.close(2)
    with open({str(tmp_path / "pid")!r}, "w") as file:
        file.write(str(os.getpid()))
    os.execv("/bin/sleep", ["sleep", "10"])
while not os.path.exists({str(tmp_path / "pid")!r}):
    time.sleep(0.005)
os.write(1, b"x" * 60000)
"""
    try:
        outcome = python(script, b"i" * 1_000_000)
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert (outcome.status, outcome.stdout) == (0, b"x" * 60000)


def test_timeout_kills_the_whole_process_group(tmp_path: Path) -> None:
    """A process that a plugin started must not continue while the runtime rolls back."""
    started = time.monotonic()
    outcome = sh(f"echo begun; sleep 60 & echo $! > {tmp_path}/pid; wait", timeout=2)

    assert time.monotonic() - started < 50  # of the 60 s that the child sleeps
    assert outcome.timed_out
    assert (outcome.status, outcome.stdout) == (-15, b"begun\n")
    assert gone(tmp_path / "pid")


def test_timeout_lets_the_program_clean_up(tmp_path: Path) -> None:
    outcome = sh("trap 'echo cleaned; exit 0' TERM; while :; do sleep 0.01; done", timeout=0.8)

    assert (outcome.timed_out, outcome.status, outcome.stdout) == (True, 0, b"cleaned\n")


def test_timeout_kills_a_program_that_ignores_the_signal(tmp_path: Path) -> None:
    outcome = sh(f"trap '' TERM; (sleep 60; sleep 60) & echo $! > {tmp_path}/pid; wait; wait", timeout=2)

    assert (outcome.timed_out, outcome.status) == (True, -9)
    assert gone(tmp_path / "pid")


def test_timeout_of_a_program_that_does_not_read() -> None:
    assert sh("sleep 60", b"x" * (1 << 20), timeout=0.2).timed_out


def test_timeout_ends_an_endless_writer() -> None:
    outcome = sh("exec head -c 10000000 /dev/zero; sleep 60", timeout=20)
    assert (outcome.status, len(outcome.stdout)) == (0, 10_000_000)

    assert sh("while :; do echo x; sleep 0.001; done", timeout=0.2).timed_out


def test_interrupt_ends_the_program(tmp_path: Path) -> None:
    """The program is ended at any time of its run, or its work would race with the undo that follows.

    The test has its own process, because Python calls a handler at once if another thread gets the signal.
    """
    code = """\
from cnihook.process import child as program, signals
signals.reset()
before = sorted(os.listdir("/proc/self/fd"))
script = "sleep 60 & echo $! > $0/pid; echo $$ > $0/shell; kill -TERM $PPID; wait"
for _ in range(10):
    signals.reset()
    try:
        program.run("/bin/sh", ["sh", "-c", script, sys.argv[1]], {"PATH": "/bin:/usr/bin"}, b"", 10)
    except signals.Interrupted:
        print("interrupted", sorted(os.listdir("/proc/self/fd")) == before)
"""
    output = child.finish(child.start(tmp_path, code))

    assert output == "interrupted True\n" * 10
    assert gone(tmp_path / "pid") and gone(tmp_path / "shell")


def test_program_has_its_own_group_and_no_ignored_signal() -> None:
    """cnihook handles Ctrl-C itself, and SIGPIPE has to end a pipeline of the plugin as usual."""
    # A shell without job control ignores these two for programs that it starts with `&`.
    before = [signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGQUIT)]
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        outcome = sh("echo $$; cut -d' ' -f5 /proc/$$/stat; exec grep -E 'SigBlk|SigIgn' /proc/self/status")
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        for number, handler in zip((signal.SIGINT, signal.SIGQUIT), before, strict=True):
            signal.signal(number, handler)

    pid, group, *masks = outcome.stdout.decode().splitlines()
    assert pid == group
    # The C library reserves real-time signals from 32 on.
    assert [int(mask.split()[1], 16) & 0x7FFFFFFF for mask in masks] == [0, 0]


def test_program_inherits_no_descriptor_of_cnihook(tmp_path: Path) -> None:
    """A lock or a namespace would stay open in any process that the program leaves running."""
    ours = [int(name) for name in os.listdir("/proc/self/fd")]
    inherited = {fd for fd in ours if os.path.exists(f"/proc/self/fd/{fd}") and os.get_inheritable(fd)}
    private = os.open(tmp_path, os.O_RDONLY)

    outcome = sh("exec ls /proc/self/fd")

    os.close(private)
    descriptors = {int(name) for name in outcome.stdout.split()} - inherited - {0, 1, 2}
    assert len(descriptors) == 1, "only the folder that ls reads"


def test_closed_streams_of_the_caller_are_harmless(tmp_path: Path) -> None:
    """A hook may have no stdin; the pipes then get the numbers of the program's streams."""
    code = """\
from cnihook.process import child as program
for stream in (0, 1, 2):
    os.close(stream)
outcome = program.run("/bin/sh", ["sh", "-c", "cat; echo e >&2"], {}, b"in", 10)
with open(sys.argv[2], "wb") as file:
    file.write(outcome.stdout + outcome.stderr)
"""
    child.finish(child.start(tmp_path, code, str(tmp_path / "seen")))

    assert (tmp_path / "seen").read_bytes() == b"ine\n"


@pytest.mark.parametrize("stream", ["", " >&2"])
def test_program_that_prints_without_end_is_killed(stream: str) -> None:
    """An unlimited output takes 2.8 GB of memory after 12 s."""
    script = f"while :; do printf %65536s x{stream}; done"

    outcome = program.run("/bin/sh", ["sh", "-c", script], {"PATH": "/bin"}, b"", 50.0)

    assert outcome.too_long and not outcome.timed_out
    assert outcome.status == -9
    assert len(outcome.stdout) + len(outcome.stderr) < program.MOST_OUTPUT + (1 << 17)
