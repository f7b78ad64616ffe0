# SPDX-License-Identifier: Apache-2.0
"""
Jobs, each in a throw-away host of its own, some at the same time.  A host with a leak is replaced.

A job is a list of points, which a seed reproduces.  Its process reports each point as a line of JSON.  When
a point fails, the process ends, and another continues after that point in a new host.
"""

import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.support.soak.rig import Problem, enter

Entry = dict[str, Any]
LEAST = 2  # points of each job in a sample, also on a slow machine


@dataclass
class Failure:
    """One point after which something was wrong."""

    part: str
    point: str
    text: str
    kind: str  # of Problem


@dataclass
class Job:
    """Some points of one part.

    `work(job, start)` runs the points from number `start` on, in a new host.  It yields the fields of a
    report for each: `point`, and figures.  A Problem that it raises is the failure of `job.point`.
    """

    part: str
    name: str
    work: Callable[["Job", int], Iterator[Entry]]
    until: float = float("inf")  # time.monotonic(), when a sample is large enough
    seconds: float = 0.0  # time for the sample; `until` is set when the job begins
    point: str = ""  # the running one, in the process of the job

    def is_over(self, points: int = LEAST) -> bool:
        """Return True if the time for a sample has passed and `points`, at least LEAST, are done."""
        return points >= LEAST and time.monotonic() > self.until


@dataclass
class Results:
    """The results of all jobs of a part."""

    points: int = 0
    failures: list[Failure] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)  # those with figures
    seconds: float = 0.0  # of work, in all processes together


class _Worker:
    """The process that does a job, from the point with the number `start`."""

    def __init__(self, job: Job, start: int) -> None:
        self.job = job
        self.next = start
        self.started = time.monotonic()
        if job.seconds and job.until == float("inf"):
            job.until = self.started + job.seconds
        self.ended = False
        self.output, write = os.pipe()
        self._rest = b""
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.output)
            os.setpgid(0, 0)  # only the parent handles Ctrl-C
            enter(lambda: _do(job, start, write))
        os.close(write)

    def read(self) -> "list[Entry] | None":
        """Return its reports since the last call, or None once it has ended."""
        data = os.read(self.output, 1 << 16)
        if not data:
            os.close(self.output)
            os.waitpid(self.pid, 0)
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def kill(self) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def _do(job: Job, start: int, write: int) -> None:
    def report(**entry: Any) -> None:
        os.write(write, json.dumps(entry).encode() + b"\n")

    try:
        for entry in job.work(job, start):
            report(**entry)
    except Problem as problem:
        report(point=job.point, problem=str(problem), kind=problem.kind)
    except BaseException:
        report(point=job.point, problem=f"soak itself: {traceback.format_exc()}", kind="error")
    else:
        report(end=True)


def work_off(
    jobs: list[Job], at_once: int, results: dict[str, Results], take: Callable[[str, Entry], None]
) -> None:
    """Do all jobs, `at_once` of them side by side.  `take` gets the part and each report.

    `results`, by part, grows with each report, so it has the results so far if Ctrl-C ends the run.
    """
    results.update({job.part: Results() for job in jobs})
    waiting = [(job, 0) for job in jobs]
    workers: list[_Worker] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < at_once:
                workers.append(_Worker(*waiting.pop(0)))
            ready, _, _ = select.select([worker.output for worker in workers], [], [])
            for worker in [worker for worker in workers if worker.output in ready]:
                entries = worker.read()
                part = results[worker.job.part]
                if entries is not None:
                    for entry in entries:
                        _take(worker, part, entry)
                        take(worker.job.part, entry)
                    continue
                workers.remove(worker)
                part.seconds += time.monotonic() - worker.started
                if not worker.ended:
                    text = "soak itself: the process of the job ended"
                    part.failures.append(Failure(worker.job.part, worker.job.name, text, "error"))
                elif worker.next >= 0 and not worker.job.is_over():
                    waiting.insert(0, (worker.job, worker.next))
    finally:
        for worker in workers:
            worker.kill()


def _take(worker: _Worker, part: Results, entry: Entry) -> None:
    if entry.get("end"):
        worker.ended, worker.next = True, -1
        return
    worker.next += 1
    part.points += entry.get("points", 1)
    if "problem" in entry:
        worker.ended = True
        part.failures.append(Failure(worker.job.part, entry["point"], entry["problem"], entry["kind"]))
    if len(entry) > 1:
        part.entries.append(entry)
