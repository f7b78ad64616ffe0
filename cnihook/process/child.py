# SPDX-License-Identifier: Apache-2.0
"""Run one program to its end without `import subprocess`, which costs 10 ms."""

import _signal
import errno
import os
import select
import time

from cnihook.process.signals import SIGALRM, SIGHUP, SIGINT, SIGTERM

MOST_OUTPUT = 16 << 20  # bytes on stdout and stderr together, and far beyond any result
_GRACE = 2.0  # seconds between SIGTERM and SIGKILL


class Outcome:
    """The end of a program: its exit status (negative: the signal that killed it) and all that it wrote."""

    __slots__ = ("status", "stderr", "stdout", "timed_out", "too_long")

    def __init__(self, status: int, stdout: bytes, stderr: bytes, timed_out: bool, too_long: bool) -> None:
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
        self.timed_out = timed_out
        self.too_long = too_long  # True if it was killed because it wrote more than MOST_OUTPUT


def run(
    program: str, argv: "list[str]", environment: "dict[str, str]", stdin: bytes, timeout: float
) -> Outcome:
    """Start `program` in a process group of its own, send it `stdin`, and collect what it writes.

    The group is for plugins that start other programs.  After `timeout` seconds, all of them get SIGTERM,
    then SIGKILL, so that none stays behind with our pipes open.  Raises OSError if the program cannot be
    started.
    """
    # No interrupt may come between the start of the program and the `try` that ends it with this process.
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, (SIGHUP, SIGINT, SIGALRM, SIGTERM))
    pipes = [os.pipe(), os.pipe(), os.pipe()]  # close-on-exec, all six
    (child_in, our_in), (our_out, child_out), (our_err, child_err) = pipes
    try:
        pid = os.posix_spawn(
            program,
            argv,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, child_in, 0),
                (os.POSIX_SPAWN_DUP2, child_out, 1),
                (os.POSIX_SPAWN_DUP2, child_err, 2),
            ],
            setpgroup=0,
            setsigmask=(),
            setsigdef=(13, 25),  # Python ignores SIGPIPE and SIGXFSZ, and what is ignored stays so over exec
        )
    except BaseException:
        for end in (our_in, our_out, our_err):
            os.close(end)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        raise
    finally:
        for end in (child_in, child_out, child_err):
            os.close(end)

    output: dict[int, list[bytes]] = {our_out: [], our_err: []}
    reaped = False
    try:
        timed_out = _converse(pid, our_in, stdin, output, time.monotonic() + timeout, mask)
        if timed_out:
            _end_group(pid, 15)
            _converse(pid, -1, b"", output, time.monotonic() + _GRACE, mask)
            _end_group(pid, 9)
        too_long = _size(output) > MOST_OUTPUT
        if too_long:
            _end_group(pid, 9)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        reaped = True
    finally:
        if not reaped:  # interrupted: the program must not outlive this process
            _end_group(pid, 9)
            os.waitpid(pid, 0)
        for end in (our_out, our_err):
            os.close(end)
    return Outcome(status, b"".join(output[our_out]), b"".join(output[our_err]), timed_out, too_long)


def _size(output: "dict[int, list[bytes]]") -> int:
    return sum(len(chunk) for chunks in output.values() for chunk in chunks)


def _converse(
    pid: int,
    our_in: int,
    stdin: bytes,
    output: "dict[int, list[bytes]]",
    deadline: float,
    mask: "set[int]",
) -> bool:
    """Write and read until the program has ended, or has written too much, with signals by `mask`.

    Returns True if the deadline came first.

    The end of the output does not count: a program that it left in the background may hold that open for
    ever.
    """
    room = MOST_OUTPUT - _size(output)
    ended = os.pidfd_open(pid)
    poll = select.poll()
    for end in (ended, *output):
        poll.register(end, select.POLLIN)
    if our_in >= 0:
        os.set_blocking(our_in, False)
        poll.register(our_in, select.POLLOUT)
    try:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return True
            ready = [end for end, _event in poll.poll(remaining * 1000)]
            for end in ready:
                if end in output:
                    chunk = os.read(end, 65536)
                    output[end].append(chunk)
                    room -= len(chunk)
                    if room < 0:
                        return False
                    if not chunk:
                        poll.unregister(end)
                elif end == our_in:
                    stdin = _feed(our_in, stdin)
                    if not stdin:
                        poll.unregister(our_in)
                        os.close(our_in)
                        our_in = -1
            if ready == [ended]:  # and nothing left to read
                return False
            if ended in ready and our_in >= 0:  # no program will read the rest
                poll.unregister(our_in)
                os.close(our_in)
                our_in = -1
    finally:
        os.close(ended)
        if our_in >= 0:
            os.close(our_in)


def _feed(end: int, data: bytes) -> bytes:
    """Write as much of `data` as the pipe takes, and return the rest."""
    try:
        return data[os.write(end, data) :]
    except BlockingIOError:
        return data
    except OSError as error:
        if error.errno != errno.EPIPE:  # a plugin may end without having read a byte
            raise
        return b""


def _end_group(pid: int, signum: int) -> None:
    try:
        os.killpg(pid, signum)
    except ProcessLookupError:
        pass
