# SPDX-License-Identifier: Apache-2.0
"""
A fault at the n-th system call of a program, counted over all kinds of calls, by ptrace(2) and seccomp(2).

strace counts each kind of call separately and stops at every call twice.  Here a seccomp filter reports only
the calls that count, once each, so a traced hook takes a few milliseconds longer than an untraced one.
The count begins with the program's own work: at the first call that reads stdin, accesses the host's state
or creates a socket.  The imports before it change nothing.

The caller must have only one thread.  This module takes the exit statuses of all its children: see reap().
"""

import ctypes
import errno
import os
import platform
import re
import signal
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.soak.syscalls import (
    CHANGING,
    DESCRIPTOR_FIRST,
    NAMES,
    NUMBERS,
    PATH_FIRST,
    PATH_SECOND,
    PRIVATE,
)

SECONDS = 120.0  # limit of one run of a program, which waits up to 30 s for a lock, on a busy machine

# linux/ptrace.h
TRACEME, POKEUSER, CONT, GETREGS, SYSCALL, SETOPTIONS = 0, 6, 7, 12, 24, 0x4200
O_SYSGOOD, O_FORK, O_VFORK, O_CLONE, O_EXEC, O_SECCOMP, O_EXITKILL = 0x1, 0x2, 0x4, 0x8, 0x10, 0x80, 0x100000
OPTIONS = O_SYSGOOD | O_FORK | O_VFORK | O_CLONE | O_EXEC | O_SECCOMP | O_EXITKILL
EVENT_SECCOMP = 7
FORKS = (1, 2, 3)  # PTRACE_EVENT_FORK, _VFORK, _CLONE
GETEVENTMSG = 0x4201
WALL = 0x40000000  # linux/wait.h, __WALL

# linux/seccomp.h, linux/filter.h, linux/audit.h
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
RET_ALLOW, RET_TRACE = 0x7FFF0000, 0x7FF00000
LOAD, JUMP_EQUAL, RETURN = (
    0x20,
    0x15,
    0x06,
)  # BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K
AUDIT_ARCH_X86_64 = 0xC000003E
TCGETS = 0x5401  # Python's open() calls it to find out if a file is a terminal

# Of user_regs_struct: byte offsets of the two that POKEUSER changes, and the positions of the six arguments.
RAX, ORIG_RAX = 80, 120
ARGUMENTS = (14, 13, 12, 7, 9, 8)  # rdi rsi rdx r10 r8 r9
REGISTERS = struct.Struct("27Q")

STATE = ("/run/", "/var/lib/cni", "/etc/cni")  # a path below one of these begins the count

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


@dataclass(frozen=True)
class Fault:
    """A SIGKILL at call number `at`, counted from 1, or with `error` this errno instead of the call."""

    at: int
    error: int = 0
    after: bool = False  # the SIGKILL comes after the call has been executed
    scope: str = (
        "once"  # the error comes once, or for every later call on the same "object", or of the same "kind"
    )


@dataclass
class Call:
    number: int
    arguments: tuple[int, ...]
    target: str = ""  # path, or what the descriptor refers to

    @property
    def name(self) -> str:
        return NAMES.get(self.number, f"syscall {self.number}")

    changes: bool = True  # False for a call that only reads

    def __str__(self) -> str:
        return f"{self.name}({self.target})"


@dataclass
class Outcome:
    """The end of a traced program."""

    status: int = 0  # as waitstatus_to_exitcode: the exit code, or a signal's number below zero
    stdout: str = ""
    stderr: str = ""
    calls: int = 0  # the number of counted calls
    hit: "Call | None" = None  # the call with the fault; None if the program made fewer calls
    trace: list[Call] = field(default_factory=list)  # all calls, if `record` was set
    seconds: float = 0.0
    hung: bool = False


def check_machine() -> None:
    """Raise SystemExit on an architecture whose registers the tracer does not know."""
    if platform.machine() != "x86_64":
        raise SystemExit(
            f"soak: faults are injected on x86_64 only, this machine is {platform.machine()}; "
            "--only crowd,many,reboot runs without them"
        )


def run(
    argv: Sequence[str],
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    fault: Fault | None = None,
    *,
    record: bool = False,
    timeout: float = SECONDS,
) -> Outcome:
    """Run a program to its end, with or without a fault.  `record`: list its calls in the outcome."""
    files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    try:
        os.write(files[0], stdin.encode(errors="surrogateescape"))
        os.lseek(files[0], 0, os.SEEK_SET)
        tracer = _Tracer(fault, record)
        started = time.monotonic()
        tracer.start(argv, dict(env or {}), files)
        tracer.follow(timeout)
        tracer.outcome.seconds = time.monotonic() - started
        tracer.outcome.stdout, tracer.outcome.stderr = (_content(file) for file in files[1:])
        return tracer.outcome
    finally:
        for file in files:
            os.close(file)


def reap() -> None:
    """Take the exit status of every child that has ended, for process 1 including orphans."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


class Hung(Exception):
    """The program did not end within its time."""


class _Tracer:
    def __init__(self, fault: Fault | None, record: bool) -> None:
        self.fault = fault
        self.record = record
        self.traces = bool(fault or record)  # otherwise the program runs untraced
        self.outcome = Outcome()
        self.counting = False
        self.main = -1
        self.alive: set[int] = set()
        self.fresh: set[int] = set()  # attached by fork, and not yet stopped for the first time
        self.after: int | None = None  # the process that gets SIGKILL at the end of its call

    def start(self, argv: Sequence[str], env: dict[str, str], files: Sequence[int]) -> None:
        program = ctypes.create_string_buffer(_filter())
        header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(program))
        pid = os.fork()
        if pid == 0:
            try:
                for number, file in enumerate(files):
                    os.dup2(file, number)
                os.chdir("/")
                signal.pthread_sigmask(signal.SIG_SETMASK, ())
                if self.traces:
                    _libc.ptrace(TRACEME, 0, None, None)
                    if _libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0) < 0:
                        os.write(2, f"seccomp: {os.strerror(ctypes.get_errno())}\n".encode())
                        os._exit(127)
                os.execve(argv[0], list(argv), env)
            finally:
                os._exit(127)
        self.main = pid
        self.alive.add(pid)

    def follow(self, timeout: float) -> None:
        """Handle the stops until every process has ended, or the time is over."""
        previous = signal.signal(signal.SIGALRM, _raise_hung)
        signal.setitimer(signal.ITIMER_REAL, timeout)
        try:
            begun = False
            while self.alive:
                pid, status = os.waitpid(-1, WALL)
                if not os.WIFSTOPPED(status):
                    self._ended(pid, status)
                elif pid == self.main and not begun:  # at its exec
                    begun = True
                    _libc.ptrace(SETOPTIONS, pid, None, OPTIONS)
                    _resume(pid)
                else:
                    self._stopped(pid, status)
        except Hung:
            self.outcome.hung = True
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
            self._end_all()

    def _ended(self, pid: int, status: int) -> None:
        self.alive.discard(pid)
        if pid == self.main:
            self.outcome.status = os.waitstatus_to_exitcode(status)

    def _stopped(self, pid: int, status: int) -> None:
        if pid not in self.alive:  # a new child of a traced process
            self.alive.add(pid)
            self.fresh.add(pid)
        number, event = os.WSTOPSIG(status), status >> 16
        if event in FORKS:  # the parent may end before the first stop of the child
            child = _event_message(pid)
            if child not in self.alive:
                self.alive.add(child)
                self.fresh.add(child)
        if event == EVENT_SECCOMP:
            self._called(pid)
        elif number == signal.SIGTRAP | 0x80:  # the end of a call that was executed
            if self.after == pid:
                os.kill(pid, signal.SIGKILL)
            else:
                _resume(pid)
        elif event or (number == signal.SIGSTOP and pid in self.fresh):
            self.fresh.discard(pid)
            _resume(pid)
        else:
            _resume(pid, number)  # a signal for the program itself

    def _called(self, pid: int) -> None:
        registers = REGISTERS.unpack(_registers(pid))
        call = Call(registers[ORIG_RAX // 8], tuple(registers[at] for at in ARGUMENTS))
        if not self.counting and not self._begins(pid, call):
            _resume(pid)
            return
        self.outcome.calls += 1
        fault, hit = self.fault, self.outcome.hit
        if self.record:
            call.target = _target(pid, call)
            call.changes = _changes(pid, call)
            self.outcome.trace.append(call)
        if fault and not hit and self.outcome.calls == fault.at:
            call.target = _target(pid, call)
            self.outcome.hit = call
            self._harm(pid, fault)
        elif fault and hit and fault.error and self._is_meant_too(pid, call, fault, hit):
            _fail(pid, fault.error)
        else:
            _resume(pid)

    def _begins(self, pid: int, call: Call) -> bool:
        name = call.name
        if name == "read":
            self.counting = call.arguments[0] == 0
        elif name == "socket":
            self.counting = True
        elif name in PATH_FIRST or name in PATH_SECOND:
            self.counting = _target(pid, call).startswith(STATE)
        return self.counting

    def _is_meant_too(self, pid: int, call: Call, fault: Fault, hit: Call) -> bool:
        if fault.scope == "once" or call.number != hit.number:
            return False
        return fault.scope == "kind" or _target(pid, call) == hit.target

    def _harm(self, pid: int, fault: Fault) -> None:
        if fault.error:
            _fail(pid, fault.error)
        elif fault.after:
            self.after = pid
            _libc.ptrace(SYSCALL, pid, None, None)
        else:
            os.kill(pid, signal.SIGKILL)

    def _end_all(self) -> None:
        """End what still runs.  The alarm may have come after a wait and before its result was noted."""
        for pid in self.alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for pid in sorted(self.alive):
            try:
                while os.WIFSTOPPED(status := os.waitpid(pid, WALL)[1]):
                    pass
                self._ended(pid, status)
            except ChildProcessError:
                self.alive.discard(pid)


def _raise_hung(_signal: int, _frame: Any) -> None:
    raise Hung


def _filter() -> bytes:
    """Return the seccomp program: calls of PRIVATE, and TCGETS, run untraced; all others are reported."""
    skipped = [NUMBERS[name] for name in PRIVATE]
    code = [
        (LOAD, 0, 0, 4),
        (JUMP_EQUAL, 1, 0, AUDIT_ARCH_X86_64),
        (RETURN, 0, 0, RET_ALLOW),
        (LOAD, 0, 0, 0),
    ]
    # the second argument of ioctl, whose lower half is at offset 24
    code += [(JUMP_EQUAL, 0, 3, NUMBERS["ioctl"]), (LOAD, 0, 0, 24), (JUMP_EQUAL, 0, 1, TCGETS)]
    code += [(RETURN, 0, 0, RET_ALLOW), (LOAD, 0, 0, 0)]
    for position, number in enumerate(skipped):
        code.append((JUMP_EQUAL, len(skipped) - position, 0, number))
    code += [(RETURN, 0, 0, RET_TRACE), (RETURN, 0, 0, RET_ALLOW)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def _resume(pid: int, number: int = 0) -> None:
    _libc.ptrace(CONT, pid, None, number)


def _event_message(pid: int) -> int:
    """Return what the kernel says of an event: of a fork, the PID of the child."""
    message = ctypes.c_ulong()
    if _libc.ptrace(GETEVENTMSG, pid, None, ctypes.addressof(message)) < 0:
        raise OSError(ctypes.get_errno(), "ptrace: event message")
    return message.value


def _registers(pid: int) -> bytes:
    buffer = ctypes.create_string_buffer(REGISTERS.size)
    if _libc.ptrace(GETREGS, pid, None, ctypes.addressof(buffer)) < 0:
        raise OSError(ctypes.get_errno(), "ptrace: registers")
    return buffer.raw


def _fail(pid: int, error: int) -> None:
    """Let a call that is about to be executed return an error instead."""
    _libc.ptrace(POKEUSER, pid, ORIG_RAX, ctypes.c_void_p(-1))
    _libc.ptrace(POKEUSER, pid, RAX, ctypes.c_void_p(-error))
    _resume(pid)


def _target(pid: int, call: Call) -> str:
    name = call.name
    if name in DESCRIPTOR_FIRST:
        try:
            link = os.readlink(f"/proc/{pid}/fd/{call.arguments[0]}")
        except OSError:
            return ""
        return re.sub(r":\[\d+\]", "", link)  # the number of a socket or a pipe differs each time
    if name in ("symlink", "symlinkat", *PATH_SECOND):
        return _text(pid, call.arguments[2 if name == "symlinkat" else 1])
    return _text(pid, call.arguments[0]) if name in PATH_FIRST else ""


def _changes(pid: int, call: Call) -> bool:
    """Return True if the host may differ after the call, because it writes something."""
    if call.name in ("open", "openat"):
        return bool(call.arguments[1 if call.name == "open" else 2] & (os.O_CREAT | os.O_TRUNC))
    if call.name == "sendto" and call.target == "socket":
        (kind,) = struct.unpack("=4xH2x", _memory(pid, call.arguments[1], 8) or bytes(8))
        return not (16 <= kind < 128 and kind & 3 == 2)  # linux/rtnetlink.h: RTM_GETLINK, RTM_GETADDR, ...
    return call.name in CHANGING


def _text(pid: int, address: int) -> str:
    """Return a string in a process's memory; read it in small steps, because the page may end after it."""
    text = b""
    while b"\0" not in text and len(text) < 4096:
        chunk = _memory(pid, address + len(text), 64)
        if not chunk:
            break
        text += chunk
    return os.fsdecode(text.partition(b"\0")[0])


def _memory(pid: int, address: int, size: int) -> bytes:
    try:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(size)
    except (OSError, OverflowError):
        return b""


def _content(file: int) -> str:
    return os.pread(file, 1 << 20, 0).decode(errors="replace")


def error_name(number: int) -> str:
    return errno.errorcode.get(number, str(number))
