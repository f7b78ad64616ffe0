# SPDX-License-Identifier: Apache-2.0
"""
Many processes at once, which start and end containers; some are killed, and gc runs at the same time.

crowd: 16 processes on three networks.  exhausted: 16 on a range of 6 addresses, so many starts collect
garbage.  many: a thousand containers at the same time.
"""

import json
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.soak import tracer
from tests.support.soak.crew import Entry, Job
from tests.support.soak.rig import CNIHOOK, ENVIRONMENT, Box, Problem, Rig
from tests.support.soak.scenarios import FULL, PLAIN, PTP
from tests.support.wait import wait_for

PROCESSES = 16
PATIENCE = tracer.SECONDS  # until a call counts as hung
REGISTER = "/run/.host/register"  # a file for each address in use: two processes cannot both create one
NARROW = {"plugins": [dict(PLAIN["plugins"][0])]}
NARROW["plugins"][0]["ipam"] = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.5.0.0/28", "rangeEnd": "10.5.0.7"}], [{"subnet": "fd05::/120"}]],
}
WIDE = {"plugins": [dict(PLAIN["plugins"][0])]}
WIDE["plugins"][0]["ipam"] = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.6.0.0/16"}], [{"subnet": "fd06::/64"}]],
}
TWICE, HUNG = "is another container's, too", "hung for"
NO_ADDRESS = "no IP addresses available"


@dataclass
class Tally:
    """The figures that one process has counted."""

    calls: int = 0
    killed: int = 0
    refused: int = 0  # because every address is taken
    collections: int = 0
    longest: float = 0.0
    times: list[float] = field(default_factory=list)  # of createRuntime
    problems: list[str] = field(default_factory=list)


class _Member:
    """One process of the crowd."""

    def __init__(self, rig: Rig, number: int, seed: int, *, may_be_refused: bool) -> None:
        self.rig = rig
        self.number = number
        self.rng = random.Random(f"{seed} {number}")
        self.tally = Tally()
        self.may_be_refused = may_be_refused

    def live(self, calls: int) -> None:
        """Start and end containers until this many calls are made."""
        while self.tally.calls < calls and not self.tally.problems:
            self.container(f"m{self.number}-{self.rng.randrange(3)}")

    def collect(self, calls: int) -> None:
        """Run gc again and again."""
        while self.tally.calls < calls and not self.tally.problems:
            self.call("gc", "")
            self.tally.collections += 1
            time.sleep(self.rng.random() / 4)

    def container(self, name: str) -> None:
        networks = self.rng.choice([*self.rig.networks, ",".join(self.rig.networks)])
        port = {"cnihook.publish": f"{20000 + self.number}:80"} if "full" in networks else {}
        box = Box(name, annotations={"cnihook.networks": networks, **port})
        held: list[str] = []
        try:
            status, stderr = self.call("createRuntime", box.state)
            if status == 0:
                held = self.claim(box)
            elif status == 1 and self.may_be_refused and NO_ADDRESS in stderr:
                self.tally.refused += 1
            elif status != -signal.SIGKILL:
                self.tally.problems.append(f"createRuntime of {name}: exit {status}: {stderr.strip()}")
            time.sleep(self.rng.random() / 50)
        finally:
            for address in held:
                os.unlink(f"{REGISTER}/{address}")
            box.kill()
        if self.rng.random() < 0.8:
            status, stderr = self.call("poststop", box.state)
            if status not in (0, -signal.SIGKILL):
                self.tally.problems.append(f"poststop of {name}: exit {status}: {stderr.strip()}")

    def claim(self, box: Box) -> list[str]:
        """Write the container's addresses into the register, where each can be only once."""
        lines = [line.split() for line in box.view() if line.startswith("address")]
        addresses = [words[2].partition("/")[0] for words in lines]
        if not addresses:
            self.tally.problems.append(f"{box.id}: exit 0, and it has no address")
        claimed = []
        for address in addresses:
            try:
                os.close(os.open(f"{REGISTER}/{address}", os.O_CREAT | os.O_EXCL))
                claimed.append(address)
            except FileExistsError:
                self.tally.problems.append(f"{box.id}: {address} {TWICE}")
        return claimed

    def call(self, event: str, stdin: str, *, killed: float = 0.1) -> tuple[int, str]:
        """Run the hook or a command.  One call of ten is killed at a random moment."""
        limit = self.rng.random() / 5 if event != "gc" and self.rng.random() < killed else PATIENCE
        outcome = tracer.run([*CNIHOOK, event], stdin, ENVIRONMENT, timeout=limit)
        self.tally.calls += 1
        if outcome.hung and limit == PATIENCE:
            self.tally.problems.append(f"{event} {HUNG} {outcome.seconds:.0f} s")
        elif outcome.hung:
            self.tally.killed += 1
        else:
            self.tally.longest = max(self.tally.longest, outcome.seconds)
            if event == "createRuntime":
                self.tally.times.append(outcome.seconds)
            if "Traceback" in outcome.stderr or outcome.status not in (0, 1):
                self.tally.problems.append(f"{event}: exit {outcome.status}: {outcome.stderr}")
        return outcome.status, outcome.stderr


def _each(count: int, work: Callable[[int], Tally]) -> list[Tally]:
    """Call a function in `count` processes.  Returns their figures."""
    pipes = []
    for number in range(count):
        read, write_end = os.pipe()
        sys.stdout.flush()
        if os.fork() == 0:
            try:
                os.close(read)
                tally = work(number)
                os.write(write_end, json.dumps(vars(tally)).encode())
            finally:
                os._exit(0)
        os.close(write_end)
        pipes.append(read)
    tallies = []
    for pipe in pipes:
        with open(pipe, "rb") as file:
            tallies.append(
                Tally(**json.loads(file.read() or b'{"problems": ["a process of the crowd ended"]}'))
            )
    tracer.reap()
    return tallies


def _finish(rig: Rig, tallies: list[Tally], part: str) -> Entry:
    """Run gc, which must release everything that is left, because all containers are gone."""
    problems = [problem for tally in tallies for problem in tally.problems]
    if problems:
        kind = "duplicate" if any(TWICE in each for each in problems) else "error"
        kind = "hung" if any(HUNG in each for each in problems) else kind
        raise Problem("\n".join(problems[:10]), kind)
    outcome = rig.must(rig.command("gc", timeout=PATIENCE), "gc")
    rig.end_boxes()
    rig.check([r"dir /run/cnihook/names.*"])
    figures = {
        "calls": sum(tally.calls for tally in tallies),
        "killed": sum(tally.killed for tally in tallies),
        "refused": sum(tally.refused for tally in tallies),
        "gc_runs": sum(tally.collections for tally in tallies),
        "left_for_gc": outcome.stdout.count("\n"),
        "longest_seconds": round(max(tally.longest for tally in tallies), 2),
    }
    return {"point": part, "points": figures["calls"], "figures": figures}


def _host(networks: Mapping[str, Any]) -> Rig:
    rig = Rig(networks)
    rig.attach("first", annotations={"cnihook.networks": ",".join(networks)})
    rig.must(rig.hook("poststop", rig.boxes[0]), "poststop")
    rig.end_boxes()
    os.makedirs(REGISTER, exist_ok=True)
    rig.settle()
    return rig


def _crowd(
    part: str, networks: Mapping[str, Any], seed: int, calls: int
) -> Callable[[Job, int], Iterator[Entry]]:
    def work(job: Job, _start: int) -> Iterator[Entry]:
        job.point = f"{part} --seed {seed}"
        rig = _host(networks)

        def live(number: int) -> Tally:
            member = _Member(rig, number, seed, may_be_refused=part == "exhausted")
            # gc waits between its runs, so it makes fewer calls
            (member.live if number else lambda n: member.collect(n // 8))(calls // PROCESSES)
            return member.tally

        yield _finish(rig, _each(PROCESSES, live), part)

    return work


def _many(seed: int, count: int) -> Callable[[Job, int], Iterator[Entry]]:
    """Return the work of `many`: processes start `count` containers; poststop releases half, gc the rest."""

    def work(job: Job, _start: int) -> Iterator[Entry]:
        job.point = f"many --seed {seed}"
        rig = _host({"wide": WIDE})
        makers = 2 * (os.cpu_count() or 1)
        boxes = [rig.box(f"c{number}") for number in range(count)]

        def start(number: int) -> Tally:
            member = _Member(rig, number, seed, may_be_refused=False)
            for box in boxes[number::makers]:
                status, stderr = member.call("createRuntime", box.state, killed=0)
                if status:
                    member.tally.problems.append(
                        f"createRuntime of {box.id}: exit {status}: {stderr.strip()}"
                    )
                else:
                    member.claim(box)
            return member.tally

        def stop(number: int) -> Tally:
            member = _Member(rig, number, seed, may_be_refused=False)
            for box in boxes[: count // 2][number::makers]:
                status, stderr = member.call("poststop", box.state, killed=0)
                if status:
                    member.tally.problems.append(f"poststop of {box.id}: exit {status}: {stderr.strip()}")
            return member.tally

        started = _each(makers, start)
        for box in boxes:
            box.kill()
        stopped = _each(makers, stop)
        wait_for(lambda: not rig.is_ending, "the ends in the background")
        entry = _finish(rig, [*started, *stopped], "many")
        if entry["figures"]["left_for_gc"] != count - count // 2:
            raise Problem(
                f"gc released {entry['figures']['left_for_gc']} of {count - count // 2} containers"
            )
        tenth = count // makers // 10 or 1
        entry["figures"]["create_ms_first_tenth"] = _median(tally.times[:tenth] for tally in started)
        entry["figures"]["create_ms_last_tenth"] = _median(tally.times[-tenth:] for tally in started)
        yield entry

    return work


def _median(times: Iterable[list[float]]) -> int:
    """Return the median in milliseconds."""
    return round(1000 * statistics.median(second for some in times for second in some))


def jobs(part: str, seed: int, amount: int) -> list[Job]:
    """Return the job of a part.  `amount`: calls, or for `many` containers."""
    if part == "crowd":
        return [Job(part, part, _crowd(part, {"full": FULL, "plain": PLAIN, "ptp": PTP}, seed, amount))]
    if part == "exhausted":
        return [Job(part, part, _crowd(part, {"narrow": NARROW}, seed, amount))]
    return [Job(part, part, _many(seed, amount))]
