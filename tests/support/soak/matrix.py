# SPDX-License-Identifier: Apache-2.0
"""The two matrices: each operation is killed, or one of its system calls fails, at each call that counts."""

import errno
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from tests.support.plugins.cni import CHECKOUT
from tests.support.soak.crew import Entry, Job
from tests.support.soak.rig import PATIENCE, Box, Problem
from tests.support.soak.scenarios import SCENARIOS, Scenario, make_rig, release, shape, undisturbed
from tests.support.soak.tracer import Call, Fault, Outcome

ERRORS = "ENOSPC EIO EDQUOT EMFILE ENFILE EROFS ENOBUFS EINTR ENOMEM EPERM ENOLCK".split()
SCOPES = ("once", "object", "kind")
HOOKS = ("create", "poststop", "two", "two-poststop", "rollback", "restart", "names", "names-poststop")
UNREADABLE = re.compile(r"\[Errno |Traceback|object at 0x|<(class|built-in) ")
# A command or a plugin, and then the text of an errno.
NAMELESS = re.compile(
    r"^[\w-]+: ([^:]*failed \(\w+\): )?(" + "|".join(os.strerror(getattr(errno, e)) for e in ERRORS) + ")$"
)
# Lines of the host that concern other containers as well.
NEIGHBOURS = ("link veth", "qdisc veth", "nft ")
LOCKS = [r"file /run/cnihook/lock/[^/]+\.lock .*"]
# Reading Python's modules and libraries is not the hook's own work.
IMPORTS = (f"{CHECKOUT}/cnihook", "/usr/lib/", "/lib/", "/usr/local/lib/python3")


@dataclass(frozen=True)
class Point:
    """One fault in one operation; its text is the argument of `scripts/soak --point`."""

    part: str
    scenario: str
    fault: Fault
    release: str
    neighbours: int

    def __str__(self) -> str:
        fault = self.fault
        how = (
            f"{errno.errorcode[fault.error]}.{fault.scope}"
            if fault.error
            else "after"
            if fault.after
            else "before"
        )
        return f"{self.part}/{self.scenario}/{self.neighbours}/{fault.at}/{how}/{self.release}"

    @classmethod
    def parse(cls, text: str) -> "Point":
        part, scenario, neighbours, at, how, way = text.split("/")
        if part == "kill":
            fault = Fault(int(at), after=how == "after")
        else:
            name, scope = how.split(".")
            fault = Fault(int(at), getattr(errno, name), scope=scope)
        return cls(part, scenario, fault, way, int(neighbours))


def points(
    part: str, scenario: Scenario, neighbours: int, trace: list[Call], rng: random.Random
) -> Iterator[Point]:
    """Yield every point of an operation whose calls are `trace`, in random order."""
    chosen: list[tuple[int, Call]] = list(enumerate(trace, 1))
    if part == "kill":
        chosen = [(number, call) for number, call in chosen if call.changes]
        faults = [(Fault(number), way) for number, _ in chosen for way in scenario.releases]
        # A kill after a call should equal a kill before the next one; a few points check that.
        last = len(faults) // 16
        faults += [(Fault(fault.at, after=True), way) for fault, way in rng.sample(faults, last)]
    else:
        chosen = [(number, call) for number, call in chosen if not call.target.startswith(IMPORTS)]
        faults = []
        for number, _ in chosen:
            for name in rng.sample(ERRORS, 2):
                # Python repeats an interrupted call, for ever if it is interrupted each time.
                scope = "once" if name == "EINTR" else rng.choice(SCOPES)
                fault = Fault(number, getattr(errno, name), scope=scope)
                faults.append((fault, rng.choice(scenario.releases)))
    rng.shuffle(faults)
    for fault, way in faults:
        yield Point(part, scenario.name, fault, way, neighbours)


class Bench:
    """A host for the points of one operation."""

    def __init__(self, scenario: Scenario, neighbours: int) -> None:
        self.scenario = scenario
        self.rig = make_rig(scenario, neighbours)
        self.outcome, self.shape = undisturbed(self.rig, scenario, record=True)
        self.rig.check()

    def run(self, point: Point) -> Outcome:
        """Run a point.  Raises Problem with what is wrong after the fault."""
        scenario, rig = self.scenario, self.rig
        box = scenario.prepare(rig)
        outcome = scenario.traced(rig, box, point.fault, False)
        try:
            if point.fault.error:
                _check_message(scenario, outcome, point.fault)
            if outcome.status == 0 and scenario.attaches:
                # With an error, a dead neighbour may stay that this start would have released.
                self._compare(box, NEIGHBOURS if scenario.name == "exhausted" and point.fault.error else ())
            is_killed = point.fault.error == 0  # perhaps the process in the background, after exit 0
            if scenario.attaches or is_killed or outcome.status != 0 or outcome.stderr or rig.is_ending:
                release(rig, box, point.release)
            elif scenario.named and point.fault.error:
                # A name that cannot be removed does not fail a poststop; gc removes it.
                release(rig, box, "gc")
            rig.end_boxes()
            # The file of a lock may stay after an error, until gc.
            rig.check(LOCKS if point.fault.error else ())
        except Problem as problem:
            how = "killed" if point.fault.error == 0 else f"exit {outcome.status} {outcome.stderr.strip()}"
            raise problem.after(f"at {outcome.hit}: {how}") from None
        return outcome

    def _compare(self, box: Box, but: Sequence[str]) -> None:
        """Raise Problem unless the container soon has everything that it has without a fault.

        Lines that begin with one of `but` are left out.
        """
        deadline = time.monotonic() + PATIENCE
        while lines := _difference(shape(self.rig, box), self.shape, tuple(but)):
            if time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            raise Problem("exit 0, and not all is set up:\n" + "\n".join(sorted(lines)))


def _check_message(scenario: Scenario, outcome: Outcome, fault: Fault) -> None:
    """Raise Problem unless a failure is one line that names an object, and success prints nothing."""
    lines = outcome.stderr.splitlines()
    if wrong := [line for line in lines if UNREADABLE.search(line) or NAMELESS.search(line)]:
        raise Problem(f"a message that says too little or too much: {wrong[0]}")
    hit = outcome.hit
    is_mute = hit is not None and hit.name == "write" and (fault.scope == "kind" or ":stderr" in str(hit))
    if scenario.name in HOOKS and not is_mute and len(lines) != (outcome.status != 0):
        raise Problem(f"exit {outcome.status} with {len(lines)} lines on stderr")


def _difference(now: "Counter[str]", before: "Counter[str]", but: tuple[str, ...]) -> list[str]:
    lines = [f"+ {line}" for line in now - before] + [f"- {line}" for line in before - now]
    return [line for line in lines if not line[2:].startswith(but)]


def jobs(part: str, seed: int, limit: int, seconds: float = 0.0, sample: int = 0) -> list[Job]:
    """At most `limit` points of each operation, or of a `sample` of them, with and without neighbours."""
    rng = random.Random(f"{part} {seed}")
    cases = [(scenario, number) for scenario in SCENARIOS.values() for number in scenario.neighbours]
    if sample:
        cases = rng.sample(cases, sample)
    return [
        Job(
            part,
            f"{part}/{scenario.name}/{number}",
            _work(part, scenario, number, seed, limit),
            seconds=seconds,
        )
        for scenario, number in cases
    ]


def job_of(text: str) -> Job:
    """Return the job of one point alone."""
    point = Point.parse(text)

    def work(job: Job, _start: int) -> Iterator[Entry]:
        job.point = text
        bench = Bench(SCENARIOS[point.scenario], point.neighbours)
        yield _entry(point, bench.run(point))

    return Job(point.part, text, work)


def _work(
    part: str, scenario: Scenario, neighbours: int, seed: int, limit: int
) -> "Callable[[Job, int], Iterator[Entry]]":
    def work(job: Job, start: int) -> Iterator[Entry]:
        job.point = f"{part}/{scenario.name}/{neighbours}, without a fault"
        bench = Bench(scenario, neighbours)
        rng = random.Random(f"{seed} {part} {scenario.name} {neighbours}")
        chosen = list(islice(points(part, scenario, neighbours, bench.outcome.trace, rng), limit))
        for done, point in enumerate(chosen[start:]):
            if job.is_over(done):
                return
            job.point = str(point)
            yield _entry(point, bench.run(point))

    return work


def _entry(point: Point, outcome: Outcome) -> Entry:
    missed = {} if outcome.hit else {"missed": True}
    return {"point": str(point), "seconds": round(outcome.seconds, 3), "status": outcome.status, **missed}
