# SPDX-License-Identifier: Apache-2.0
"""
The steps of an ADD on the plain network: how long each takes, and of that what imports and the kernel take.

Four kinds of processes take turns.  CNIHOOK_TIMING logs how long each step takes; one process adds up its
imports; in another a profiler adds up the calls into the kernel; strace counts system calls, with a call of
access(2) at the end of each step.
"""

import json
import re
from collections.abc import Iterator

from tests.support.bench.machine import PLAIN, Cost, perform, run
from tests.support.bench.programs import PYTHON, Hook
from tests.support.bench.session import Run, attach

WHOLE, BARE = "the whole process", "bare Python"
TOOK, IMPORTS, KERNEL, CALLS = "took", "imports", "kernel", "system calls"
_MARK = "/bench-step/"
_TRACE = "/run/bench.trace"

# Both programs replace the class that measures steps.  What they import before counts for no step.
_BEGIN = """\
import builtins, os, sys, time
sys.path.insert(0, sys.argv[1])
from cnihook.cli import main as program
from cnihook.process import steps
class Marks:
    def __init__(self, began):
        self.seconds, self.total = {}, 0.0
        end("modules")
    def end(self, name):
        end(name)
steps.Steps = Marks
"""
_RUN = "status = program.run([sys.argv[2]])\n"
_STRACE = f"""\
{_BEGIN}
def end(name):
    os.access("{_MARK}" + name, 0)
end("Python")
{_RUN}
os._exit(status)
"""
# With a third argument, it adds up the kernel instead of imports: the profiler makes imports twice as slow.
# A call into the kernel is one of a built-in function of these modules.  Those of ctypes are not seen.
_PROFILE = f"""\
{_BEGIN}
MODULES = ("posix", "_socket", "fcntl", "select", "_io", "_signal")
clock = time.perf_counter
times, spent, importing, began = {{}}, 0.0, False, 0.0
def end(name):
    global spent
    times[name] = times.get(name, 0.0) + spent
    spent = 0.0
plain_import = builtins.__import__
def timed_import(*arguments, **named):
    global spent, importing
    if importing:
        return plain_import(*arguments, **named)
    importing, begin = True, clock()
    try:
        return plain_import(*arguments, **named)
    finally:
        importing = False
        if not sys.argv[3]:
            spent += clock() - begin
def watch(frame, event, function):
    global spent, began
    if not importing and event == "c_call":
        began = clock()
    elif not importing and event in ("c_return", "c_exception"):
        if (function.__module__ or type(function.__self__).__module__) in MODULES:
            spent += clock() - began
builtins.__import__ = timed_import
if sys.argv[3]:
    sys.setprofile(watch)
{_RUN}
sys.setprofile(None)
for name, seconds in times.items():
    print(name, seconds * 1000, sep="\\t", flush=True)
os._exit(status)
"""


def steps(session: Run) -> None:
    hook = session.hooks()[0]
    attach(hook, "stays", PLAIN)
    bare = [*PYTHON, "-c", "import os; os._exit(0)"]
    columns: list[tuple[str, str, float]] = []
    for number in range(-1, session.rounds):
        columns += [(BARE, TOOK, run(*bare)[0].wall), (WHOLE, TOOK, _add(hook)[0].wall)]
        columns += [(name, TOOK, ms) for name, ms in _timed(hook).items()]
        columns += [(name, IMPORTS, ms) for name, ms in _profiled(hook, "")]
        columns += [(name, KERNEL, ms) for name, ms in _profiled(hook, "kernel")]
        if number < 0:
            columns.clear()  # to warm up
    columns += [(name, CALLS, calls) for name, calls in _counted(hook)]
    run("strace", "-o", _TRACE, *bare)
    columns += [(BARE, CALLS, sum(1 for _ in _system_calls()))]
    for name, column, value in columns:
        session.results.row("steps", name, beside="")[column].values.append(value)
    hook.end()


def _add(hook: Hook, *argv: str, **variables: str) -> "tuple[Cost, str]":
    """Attach a container, by another command than the hook's if there is one, and detach it."""
    container = hook.new("guest", PLAIN)
    spawn = next(hook.add(container))
    cost, text = run(*(argv or spawn.argv), stdin=spawn.stdin, **{**spawn.variables, **variables})
    hook.kill(container)
    perform(hook.delete(container))
    return cost, text


def _timed(hook: Hook) -> "dict[str, float]":
    """Return how long each step takes, in ms."""
    _add(hook, CNIHOOK_TIMING="1")
    with open("/var/log/cnihook/guest") as file:
        events = [json.loads(line.partition("\t")[2]) for line in file if "\t" in line]
    return {event["step"]: float(event["milliseconds"]) for event in events if event["event"] == "step"}


def _profiled(hook: Hook, part: str) -> "Iterator[tuple[str, float]]":
    """Yield for each step the ms of its imports, or of the kernel outside of these."""
    argv = [*PYTHON, "-c", _PROFILE, hook.checkout, "createRuntime", part]
    for line in _add(hook, *argv, CNIHOOK_TIMING="1")[1].splitlines():
        name, ms = line.split("\t")
        yield name, float(ms)


def _counted(hook: Hook) -> "Iterator[tuple[str, int]]":
    """Yield the system calls of each step, and of the whole process as a runtime starts it."""
    trace = ["strace", "-o", _TRACE]
    _add(hook, *trace, *PYTHON, "-c", _STRACE, hook.checkout, "createRuntime", CNIHOOK_TIMING="1")
    counts: dict[str, int] = {}
    calls = 0
    for line in _system_calls():
        if mark := re.match(rf'access\("{_MARK}([^"]+)"', line):
            counts[mark[1]] = counts.get(mark[1], 0) + calls
            calls = 0
        else:
            calls += 1
    _add(hook, *trace, *hook.command, "createRuntime")
    whole = sum(1 for _ in _system_calls())
    yield WHOLE, whole
    counts["Python"] += whole - sum(counts.values())  # this program and that one begin differently
    yield from counts.items()


def _system_calls() -> "Iterator[str]":
    with open(_TRACE) as file:
        yield from (line for line in file if re.match(r"\w+\(", line))
