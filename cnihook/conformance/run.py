# SPDX-License-Identifier: Apache-2.0
"""Run checks side by side, each in a process and a throw-away host of its own."""

import json
import os
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cnihook.conformance import case as cases
from cnihook.conformance.case import Case, Subject
from cnihook.conformance.check import (
    FAIL,
    NOTE,
    OK,
    SKIP,
    Check,
    CheckFailed,
    CheckSkipped,
    Deviation,
    Outcome,
)
from cnihook.conformance.host import run_in_host
from cnihook.fast.errors_text import message_with_notes
from cnihook.linux import libc
from cnihook.types import versions

_LIMIT = 180.0  # seconds for one check
# A check waits for the kernel (a namespace is born or ends under locks and RCU) more than it computes.
_JOBS = 4 * (os.cpu_count() or 2)

_WORKS = "works"

Progress = Callable[[int, int, str], None]


@dataclass
class _Task:
    name: str
    function: Callable[[], Any]  # runs in the host; what it returns is JSON
    shown: Sequence[str]  # folders that the host must have
    done: Callable[[Any, float], None]
    data: bytes = b""
    started: float = 0.0
    pid: int = 0
    problem: str = field(default="")


class NotRun(Exception):
    """The reason why a check could not be run at all.  The subject of the check is not judged."""


def try_host() -> None:
    """Raise NotRun if no throw-away host can be made."""
    answers: list[Any] = []
    _run_all([_Task("", lambda: _WORKS, (), lambda answer, _: answers.append(answer))], lambda *_: None)
    if answers != [_WORKS]:
        hint = "it needs root, or a user namespace: `unshare -Urmn cnihook conformance ...`"
        raise NotRun(f"{answers[0]}; {hint}")


def run_pairs(pairs: Sequence[tuple[Subject, Check]], progress: Progress) -> "list[Outcome]":
    """Run each check on its plugin, after a first look at every plugin (see case.probe())."""
    subjects = list({id(subject): subject for subject, _ in pairs}.values())
    looks = [_Task(one.name, _look(one), _shown(one), _keep_look(one)) for one in subjects]
    _run_all(looks, lambda done, total, name: progress(done, total, f"{name}: a first look"))
    return run_checks([work_of(*pair) for pair in pairs], progress)


def work_of(subject: Subject, check: Check) -> "Work":
    label = subject.label or subject.name
    return label, check, _not_for(check, subject), _case_of(subject), _shown(subject)


def _look(subject: Subject) -> Callable[[], Any]:
    return lambda: cases.probe(subject)


def _keep_look(subject: Subject) -> Callable[[Any, float], None]:
    def keep(found: Any, _: float) -> None:
        if not isinstance(found, dict):
            raise NotRun(f"{subject.name}: the first look failed: {found}")
        subject.versions = found["versions"]
        subject.problem, subject.unable = found["problem"], found["unable"]
        if subject.profile and found["kind"]:
            subject.profile.kind = found["kind"]

    return keep


def _case_of(subject: Subject) -> Callable[[], Any]:
    return lambda: Case(subject)


def _shown(subject: Subject) -> "list[str]":
    return [os.path.dirname(subject.executable), *filter(None, subject.path.split(":"))]


def _not_for(check: Check, subject: Subject) -> str:
    if check.kinds and subject.profile and subject.profile.kind not in check.kinds:
        return f"only for plugins of kind {' or '.join(check.kinds)}; this one is {subject.profile.kind}"
    if check.kinds and not subject.profile:
        return subject.unable
    if check.since and not versions.at_least(subject.latest, check.since):
        return f"came with {check.since}, and the plugin's latest version is {subject.latest}"
    return ""


Work = tuple[str, Check, str, Callable[[], Any], Sequence[str]]


def run_checks(work: Sequence[Work], progress: Progress) -> "list[Outcome]":
    """Run the checks.  `work`: subject, check, reason to skip it, maker of its case, folders of the host."""
    outcomes = [Outcome(name, check, SKIP, why) for name, check, why, _, _ in work]
    tasks = []
    for outcome, (name, check, why, make, shown) in zip(outcomes, work, strict=True):
        if not why:
            function = _judge(check, make)
            tasks.append(_Task(f"{name}: {check.name}", function, shown, _keep(outcome)))
    _run_all(tasks, progress)
    return outcomes


def _keep(outcome: Outcome) -> Callable[[Any, float], None]:
    def keep(found: Any, seconds: float) -> None:
        outcome.seconds = seconds
        if isinstance(found, dict):
            outcome.mark, outcome.why = found["mark"], found["why"]
            outcome.sent, outcome.came = found["sent"], found["came"]
        else:
            outcome.mark, outcome.why = FAIL, str(found)

    return keep


def _judge(check: Check, make: Callable[[], Any]) -> Callable[[], Any]:
    def judge() -> "dict[str, str]":
        case = make()
        mark, why = OK, ""
        try:
            check.function(case)
        except CheckSkipped as reason:
            mark, why = SKIP, str(reason)
        except CheckFailed as error:
            mark = FAIL if check.must and not isinstance(error, Deviation) else NOTE
            why = str(error)
        except Exception as error:
            # The answer has a form that the check does not expect, or the check has a bug.
            mark, why = FAIL, f"unexpected: {type(error).__name__}: {message_with_notes(error)}"
        last = case.answers[-1] if case.answers and mark in (FAIL, NOTE) else None
        return {
            "mark": mark,
            "why": why,
            "sent": last.sent if last else "",
            "came": last.came if last else "",
        }

    return judge


def _run_all(tasks: Sequence[_Task], progress: Progress) -> None:
    waiting = list(reversed(tasks))
    finished = 0
    with selectors.DefaultSelector() as selector:
        running: dict[int, _Task] = {}
        try:
            while waiting or running:
                while waiting and len(running) < _JOBS:
                    task = waiting.pop()
                    reader = _start(task)
                    running[reader] = task
                    selector.register(reader, selectors.EVENT_READ)
                    progress(finished, len(tasks), task.name)
                for key, _ in selector.select(1.0):
                    reader = key.fd
                    task = running[reader]
                    if chunk := os.read(reader, 1 << 16):
                        task.data += chunk
                        continue
                    selector.unregister(reader)
                    os.close(reader)
                    del running[reader]
                    _finish(task)
                    finished += 1
                    progress(finished, len(tasks), task.name)
                for task in running.values():
                    if time.monotonic() - task.started > _LIMIT and not task.problem:
                        task.problem = f"not done within {_LIMIT:g} s"
                        os.kill(task.pid, signal.SIGKILL)
        finally:
            for reader, task in running.items():
                os.kill(task.pid, signal.SIGKILL)
                os.waitpid(task.pid, 0)
                os.close(reader)


def _start(task: _Task) -> int:
    reader, writer = os.pipe()
    task.started = time.monotonic()
    parent = os.getpid()
    task.pid = os.fork()
    if task.pid:
        os.close(writer)
        return reader
    try:
        libc.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() == parent:
            os.close(reader)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            run_in_host(lambda: _tell(writer, task.function()), lambda why: _tell(writer, why), task.shown)
    finally:
        os._exit(0)


def _tell(writer: int, answer: Any) -> None:
    data = json.dumps(answer).encode()
    while data:
        data = data[os.write(writer, data) :]


def _finish(task: _Task) -> None:
    os.waitpid(task.pid, 0)
    seconds = time.monotonic() - task.started
    try:
        answer = json.loads(task.data)
    except ValueError:
        answer = task.problem or "the check itself ended without an outcome; see stderr"
    task.done(answer, seconds)
