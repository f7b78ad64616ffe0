# SPDX-License-Identifier: Apache-2.0
"""The suite of `cnihook conformance`, for programs that are forks of the process that checks them.

An executable would start Python for each of some thousand calls.  Only small processes use this, because the
cost of a fork grows with the memory of the process: pytest is five times as large.
"""

import fcntl
import gc
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from types import CodeType, ModuleType, SimpleNamespace

from cnihook.conformance import plugin, runtime
from tests.support.host.forkserver import set_environment


def fork_plugins(serve: Callable[[str], None]) -> None:
    """Have `serve` called in a new process with the path of an executable, instead of starting that."""

    def start(executable: str, variables: Mapping[str, str]) -> "Fork":
        return Fork([executable], plugin.environment(variables), lambda: serve(executable))

    gc.freeze()
    plugin.start = start  # type: ignore[assignment]


def fork_runtimes(serve: Callable[[Sequence[str]], None]) -> None:
    """Have `serve` called in a new process with the command of a runtime, instead of running that."""

    def run(
        argv: Sequence[str], env: Mapping[str, str], timeout: float, **_options: object
    ) -> "subprocess.CompletedProcess[bytes]":
        call = Fork(argv, env, lambda: serve(argv))
        stdout, stderr = call.communicate(timeout=timeout)
        return subprocess.CompletedProcess(argv, call.poll() or 0, stdout, stderr)

    gc.freeze()
    names = {"run": run, "DEVNULL": subprocess.DEVNULL, "TimeoutExpired": subprocess.TimeoutExpired}
    vars(runtime)["subprocess"] = SimpleNamespace(**names)


def program(*modules: str) -> Callable[[], None]:
    """Read the code of a program, whose modules do its work when they are imported, in this order.

    Returns a function that runs it, for a fork.  A seventh of a call would be reading the code.
    """
    codes = {name: _code_of(name) for name in modules}

    def run() -> None:
        for name, code in codes.items():
            module = sys.modules[name] = ModuleType(name)
            exec(code, vars(module))

    return run


def _code_of(module: str) -> CodeType:
    spec = find_spec(module)
    assert spec and spec.loader
    code: CodeType = spec.loader.get_code(module)  # type: ignore[attr-defined]
    return code


class Fork:
    """One call of a program, with what the suite uses of Popen."""

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], serve: Callable[[], None]
    ) -> None:
        self.returncode: int | None = None
        read, write = os.pipe()
        self._stdout, stdout = os.pipe()
        self._stderr = os.memfd_create("stderr")
        sys.stdout.flush()
        self._pid = os.fork()
        if not self._pid:
            _serve(argv, environment, serve, (read, stdout, self._stderr))
        os.close(read)
        os.close(stdout)
        self.stdin = open(write, "wb")  # noqa: SIM115
        self._ended = os.pidfd_open(self._pid)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)

    def communicate(self, stdin: bytes | None = None, timeout: float | None = None) -> tuple[bytes, bytes]:
        with suppress(BrokenPipeError):
            if stdin:
                fcntl.fcntl(self.stdin, fcntl.F_SETPIPE_SZ, len(stdin))  # a plugin may read nothing
                self.stdin.write(stdin)
            self.stdin.close()
        until = time.monotonic() + (timeout or 60)
        output = b""
        while chunk := os.read(self._ready(self._stdout, until), 1 << 16):
            output += chunk
        self._ready(self._ended, until)
        self.poll()
        os.lseek(self._stderr, 0, os.SEEK_SET)
        return output, os.read(self._stderr, 1 << 20)

    def _ready(self, descriptor: int, until: float) -> int:
        ready = select.poll()
        ready.register(descriptor, select.POLLIN)
        if not ready.poll(max(0, until - time.monotonic()) * 1000):
            raise subprocess.TimeoutExpired("a fork", 0)
        return descriptor


def _serve(
    argv: Sequence[str],
    environment: Mapping[str, str],
    serve: Callable[[], None],
    streams: tuple[int, ...],
) -> None:
    status = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.chdir("/")
        set_environment(environment)
        sys.argv[:] = argv
        serve()
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        else:
            status = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(status)
