# SPDX-License-Identifier: Apache-2.0
"""Full disks: operations with a few KiB, or a few files, left on /var/lib/cni, on /run, or on both."""

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from tests.support.host import enclosure
from tests.support.soak.crew import Entry, Job
from tests.support.soak.rig import Problem
from tests.support.soak.scenarios import SCENARIOS, Scenario, make_rig, release, undisturbed

PLACES = {"state": ("/var/lib/cni",), "run": ("/run",), "both": ("/var/lib/cni", "/run")}
UNITS = ("pages", "files")
MOST = 14  # from 0 to 13 pages or files are left
PLENTY = "size=256m,nr_inodes=100k"
OPERATIONS = (
    "create",
    "poststop",
    "two",
    "rollback",
    "gc",
    "repair",
    "names",
    "names-poststop",
    "add",
    "priv-net-run",
)


@dataclass(frozen=True)
class Point:
    """One operation, and the space that is left on a disk while it runs."""

    scenario: str
    where: str  # of PLACES
    unit: str  # of UNITS
    left: int
    way: str

    def __str__(self) -> str:
        return f"disks/{self.scenario}/{self.where}/{self.unit}/{self.left}/{self.way}"

    @classmethod
    def parse(cls, text: str) -> "Point":
        _part, scenario, where, unit, left, way = text.split("/")
        return cls(scenario, where, unit, int(left), way)


class _Bench:
    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.rig = make_rig(scenario, scenario.neighbours[0])
        undisturbed(self.rig, scenario)

    def run(self, point: Point) -> None:
        """Run a point.  Raises Problem with what is left."""
        scenario, rig = self.scenario, self.rig
        box = scenario.prepare(rig)
        folders = PLACES[point.where]
        for folder in folders:
            limit(folder, point.unit, point.left)
        try:
            outcome = scenario.traced(rig, box, None, False)
            if outcome.status != 0 and not outcome.stderr.strip():
                raise Problem("it failed without a reason")
        finally:
            for folder in folders:
                enclosure.resize(folder, PLENTY)
        try:
            if scenario.attaches or outcome.status != 0 or rig.is_ending:
                release(rig, box, point.way)
            rig.end_boxes()
            rig.check()
        except Problem as problem:
            raise problem.after(f"exit {outcome.status} {outcome.stderr.strip()}") from None


def limit(folder: str, unit: str, left: int) -> None:
    """Limit a tmpfs so that this many pages or files are left; at least one in all: 0 means no limit."""
    now = os.statvfs(folder)
    if unit == "pages":
        enclosure.resize(folder, f"size={max(now.f_blocks - now.f_bfree + left, 1) * now.f_bsize}")
    else:
        enclosure.resize(folder, f"nr_inodes={max(now.f_files - now.f_ffree + left, 1)}")


def points(scenario: Scenario, rng: random.Random) -> Iterator[Point]:
    chosen = [(where, unit, left) for where in PLACES for unit in UNITS for left in range(MOST)]
    rng.shuffle(chosen)
    for where, unit, left in chosen:
        yield Point(scenario.name, where, unit, left, rng.choice(scenario.releases))


def jobs(seed: int, most: int, seconds: float = 0.0, sample: int = 0) -> list[Job]:
    """At most `most` points of each operation, or of a `sample` of operations."""
    names = random.Random(f"disks {seed}").sample(OPERATIONS, sample) if sample else OPERATIONS
    return [
        Job("disks", f"disks {name}", _work(SCENARIOS[name], seed, most), seconds=seconds) for name in names
    ]


def _work(scenario: Scenario, seed: int, most: int) -> Callable[[Job, int], Iterator[Entry]]:
    def work(job: Job, start: int) -> Iterator[Entry]:
        job.point = f"disks/{scenario.name}, with room"
        bench = _Bench(scenario)
        chosen = list(islice(points(scenario, random.Random(f"{seed} {scenario.name}")), most))
        for done, point in enumerate(chosen[start:]):
            if job.is_over(done):
                return
            job.point = str(point)
            bench.run(point)
            yield {"point": str(point)}

    return work


def job_of(text: str) -> Job:
    point = Point.parse(text)

    def work(job: Job, _start: int) -> Iterator[Entry]:
        job.point = text
        _Bench(SCENARIOS[point.scenario]).run(point)
        yield {"point": text}

    return Job("disks", text, work)
