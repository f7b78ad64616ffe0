# SPDX-License-Identifier: Apache-2.0
"""Damage of every state file, in every way that a crash, a full disk or a user can leave it."""

import glob
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tests.support.host import enclosure
from tests.support.soak.crew import Entry, Job
from tests.support.soak.rig import Box, Problem, Rig
from tests.support.soak.scenarios import FULL, PORTS, release
from tests.support.soak.tracer import Outcome

ID = "c1"
WAYS = ("poststop", "gc", "createRuntime", "fix")
KINDS = ("fifo", "folder", "loop", "dangling", "missing", "unreadable", *(f"random.{n}" for n in range(6)))
# These may stay, because doctor moves damaged files there, where the operator can look at them.
STAYS = [r"dir /var/lib/cni/damaged.*", r"file /var/lib/cni/damaged/.*", r"link /var/lib/cni/damaged/.*"]

WORTHLESS = ("last", "last6", "network-lock", "container-lock", "nft-lock", "log", "netns")

RESULTS, NETWORKS, RUN = "/var/lib/cni/results", "/var/lib/cni/networks", "/run"
TARGETS = {
    "record": f"{RESULTS}/full-{ID}-eth0",
    "lease": f"{NETWORKS}/full/10.2.0.*",
    "lease6": f"{NETWORKS}/full/fd02::*",
    "last": f"{NETWORKS}/full/last_reserved_ip.0",
    "last6": f"{NETWORKS}/full/last_reserved_ip.1",
    "network-lock": f"{NETWORKS}/full/lock",
    "owner": f"{NETWORKS}/full/.owners/*.0",
    "owner6": f"{NETWORKS}/full/.owners/*.1",
    "names": f"{RUN}/cnihook/names/full/{ID}",
    "tuning": f"{RUN}/cni/tuning/{ID}_eth0.json",
    "netns": f"{RUN}/netns/{ID}",
    "log": f"{RUN}/cnihook/log/{ID}",
    "container-lock": f"{RUN}/cnihook/lock/container-{ID}.lock",
    "nft-lock": f"{RUN}/cnihook/lock/nft.lock",
    "unfinished": f"{RESULTS}/.{ID}.new",
    "stray": f"{RESULTS}/full-{ID}-eth7",
}


@dataclass(frozen=True)
class Point:
    """One file, its damage, and how its container is released."""

    target: str
    kind: str  # of KINDS, or "truncate.LENGTH"
    way: str
    alive: bool  # gc comes first, while the container still runs

    def __str__(self) -> str:
        return f"damage/{self.target}/{self.kind}/{self.way}/{'alive' if self.alive else 'dead'}"

    @classmethod
    def parse(cls, text: str) -> "Point":
        _part, target, kind, way, alive = text.split("/")
        return cls(target, kind, way, alive == "alive")


class _Bench:
    """A host with one network and one container after the other."""

    def __init__(self) -> None:
        self.rig = Rig({"full": FULL})
        self.release(self.attach(), "poststop")
        self.rig.end_boxes()
        self.rig.settle()

    def attach(self) -> Box:
        annotations = {**PORTS, "cnihook.network-alias": "db"}
        return self.rig.attach(ID, annotations=annotations, bundle=self.rig.bundle(ID))

    def sizes(self) -> dict[str, int]:
        """Return the size of each existing file."""
        box = self.attach()
        sizes = {target: os.lstat(path).st_size for target in TARGETS if (path := find(target))}
        self.release(box, "poststop")
        self.rig.end_boxes()
        return sizes

    def release(self, box: Box, way: str) -> None:
        release(self.rig, box, way)

    def run(self, point: Point) -> None:
        """Run a point.  Raises Problem with what is left, or not reported."""
        box = self.attach()
        path = find(point.target, missing=True)
        damage(path, point.kind, random.Random(str(point)))
        if point.alive:
            before = sorted(box.view())
            self._answer(self.rig.command("gc"))
            if sorted(box.view()) != before:
                raise Problem("gc has changed the network of a container that runs")
        box.kill()
        is_released = self._release(box, point.way)
        if is_released:
            parents = "|".join(re.escape(str(parent)) for parent in Path(path).parents)
            self._check(
                "exit 0, and this is left:",
                f"(file|dir|link) {re.escape(path)}( .*|/.*)?",
                f"dir ({parents})",
            )
        if not is_released or os.path.lexists(path):
            self._fix(path, point.target)
        again = self.attach()
        self.release(again, "poststop")
        self.rig.end_boxes()
        self._check("after another container with the ID, this is left:")

    def _release(self, box: Box, way: str) -> bool:
        """Release the container.  Returns True if that succeeded."""
        if way == "poststop":
            return self._answer(self.rig.hook("poststop", box)) == 0
        if way == "gc":
            return self._answer(self.rig.command("gc")) == 0
        if way == "fix":
            self._answer(self.rig.command("doctor", "--fix"))
            return False
        again = self.rig.box(ID, annotations=box.annotations, bundle=box.bundle)
        created = self.rig.hook("createRuntime", again)
        self._answer(created)
        again.kill()
        return self._answer(self.rig.hook("poststop", again)) == 0 and created.status == 0

    def _fix(self, path: str, target: str) -> None:
        """Fix the damage as an operator can: doctor moves the damaged file away, or gc names it."""
        self._answer(self.rig.command("doctor", "--fix"))
        self._answer(self.rig.command("gc"))
        if os.path.lexists(path) and target not in WORTHLESS:
            if path not in self.rig.command("doctor").stdout + self.rig.command("gc").stderr:
                raise Problem(f"{path} stays, and neither doctor nor gc reports it")
        remove_damage(path, target)
        self.rig.must(self.rig.command("gc"), "gc after all")
        self._check("after doctor --fix and gc, this is left:")

    @staticmethod
    def _answer(outcome: Outcome) -> int:
        if outcome.status == 1 and not (outcome.stderr.strip() or outcome.stdout.strip()):
            raise Problem("exit 1 without a reason")
        return outcome.status

    def _check(self, what: str, *stay: str) -> None:
        try:
            self.rig.check([*STAYS, *stay])
        except Problem as problem:
            raise problem.after(what) from None


def find(target: str, *, missing: bool = False) -> str:
    """Return the path of a file; if it does not exist, an empty text, or with `missing` its pattern."""
    pattern = TARGETS[target]
    paths = glob.glob(pattern)
    return paths[0] if paths else pattern if missing else ""


def damage(path: str, kind: str, rng: random.Random) -> None:
    """Change the content of a file, or replace it."""
    name, _, number = kind.partition(".")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if name == "truncate":
        os.truncate(path, int(number))
        return
    size = os.lstat(path).st_size if os.path.lexists(path) else 20
    _remove(path)
    if name == "fifo":
        os.mkfifo(path)
    elif name == "folder":
        os.mkdir(path)
        os.close(os.open(f"{path}/file", os.O_CREAT))
    elif name == "loop":
        os.symlink(os.path.basename(path), path)
    elif name == "dangling":
        os.symlink("/nowhere/to/be/seen", path)
    elif name == "unreadable":
        with open(path, "wb") as file:
            file.write(b"\xb9\xff" * 10)
    elif name == "random":
        with open(path, "wb") as file:
            file.write(rng.randbytes(size or 20))
    elif name != "missing":
        raise ValueError(kind)


def remove_damage(path: str, target: str) -> None:
    """Remove a damaged file by hand, if it is reported or not needed."""
    _remove(path)
    if target in ("last", "last6", "network-lock"):
        with open(path, "w"):
            pass


def _remove(path: str) -> None:
    if not os.path.islink(path):
        enclosure.unmount(path)
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def points(sizes: dict[str, int], rng: random.Random) -> Iterator[Point]:
    """Yield every damage of every file, in random order, each with a way of release."""
    chosen = [(target, kind) for target in TARGETS for kind in KINDS]
    for target, size in sizes.items():
        if target not in ("netns", "log", *(each for each in TARGETS if each.endswith("lock"))):
            chosen += [(target, f"truncate.{length}") for length in range(size)]
    rng.shuffle(chosen)
    for target, kind in chosen:
        yield Point(target, kind, rng.choice(WAYS), rng.random() < 0.2)


def jobs(seed: int, limit: int, shards: int, seconds: float = 0.0) -> list[Job]:
    """Return jobs for at most `limit` points, on `shards` hosts."""
    return [
        Job("damage", f"damage {n}", _work(seed, limit, n, shards), seconds=seconds) for n in range(shards)
    ]


def _work(seed: int, limit: int, shard: int, shards: int) -> Callable[[Job, int], Iterator[Entry]]:
    def work(job: Job, start: int) -> Iterator[Entry]:
        job.point = "damage, without any"
        bench = _Bench()
        chosen = list(islice(points(bench.sizes(), random.Random(f"{seed} damage")), limit))[shard::shards]
        for done, point in enumerate(chosen[start:]):
            if job.is_over(done):
                return
            job.point = str(point)
            bench.run(point)
            yield {"point": str(point), "seconds": round(bench.rig.waited, 3)}

    return work


def job_of(text: str) -> Job:
    def work(job: Job, _start: int) -> Iterator[Entry]:
        job.point = text
        bench = _Bench()
        bench.run(Point.parse(text))
        yield {"point": text, "seconds": round(bench.rig.waited, 3)}

    return Job("damage", text, work)
