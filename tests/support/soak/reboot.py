# SPDX-License-Identifier: Apache-2.0
"""A simulated reboot: the state of the kernel and /run is lost, and the boot ID changes.

Only /var/lib/cni and /etc remain, as they were when an operation was killed at one of its calls.
"""

import os
import random
import shutil
import uuid
from collections.abc import Callable, Iterator
from itertools import islice

from tests.support.host import enclosure
from tests.support.soak.crew import Entry, Job
from tests.support.soak.matrix import points as kill_points
from tests.support.soak.rig import Rig
from tests.support.soak.scenarios import SCENARIOS, Scenario, make_rig, release, undisturbed
from tests.support.soak.tracer import Fault

BOOT_ID = "/proc/sys/kernel/random/boot_id"
OPERATIONS = ("create", "poststop", "two", "gc", "restart", "names")
# the first operation after the boot
FIRST = ("same", "other", "gc")


def reboot(rig: Rig) -> None:
    rig.end_boxes()
    for line in list(open("/proc/self/mounts")):
        if line.split()[1].startswith("/run/netns"):
            enclosure.unmount(line.split()[1])
    for name in os.listdir("/run"):
        if name != ".host":
            shutil.rmtree(f"/run/{name}")
    os.mkdir("/run/netns")
    enclosure.make_net()
    enclosure.raise_loopback()
    for path, value in (("ipv4/ip_forward", "1"), ("ipv6/conf/default/accept_dad", "0")):
        with open(f"/proc/sys/net/{path}", "w") as file:
            file.write(value)
    with open("/run/.host/boot_id", "w") as file:
        file.write(f"{uuid.uuid4()}\n")
    enclosure.unmount(BOOT_ID)
    enclosure.bind("/run/.host/boot_id", BOOT_ID)


def _rig(scenario: Scenario) -> Rig:
    """Return a host that has been rebooted once."""
    rig = make_rig(scenario, 0)
    reboot(rig)
    undisturbed(rig, scenario)
    rig.settle()
    return rig


def _run(rig: Rig, scenario: Scenario, at: int, first: str) -> None:
    """Kill an operation, reboot, and run another.  Raises Problem with what is left from before the boot."""
    box = scenario.prepare(rig)
    scenario.traced(rig, box, Fault(at), False)
    reboot(rig)
    if first == "gc":
        rig.must(rig.command("gc"), "gc")
    again = rig.box(box.id if first == "same" else "other", annotations=box.annotations)
    rig.must(rig.hook("createRuntime", again), "the first createRuntime of a boot")
    release(rig, again, "poststop")
    rig.end_boxes()
    rig.check([r"dir /run/cnihook/names.*"])


def jobs(seed: int, most: int, seconds: float = 0.0, sample: int = 0) -> list[Job]:
    names = random.Random(f"reboot {seed}").sample(OPERATIONS, sample) if sample else OPERATIONS
    return [
        Job("reboot", f"reboot {name}", _work(SCENARIOS[name], seed, most), seconds=seconds)
        for name in names
    ]


def _work(scenario: Scenario, seed: int, most: int) -> Callable[[Job, int], Iterator[Entry]]:
    def work(job: Job, start: int) -> Iterator[Entry]:
        job.point = f"reboot/{scenario.name}, without a kill"
        rig = _rig(scenario)
        outcome, _ = undisturbed(rig, scenario, record=True)
        rng = random.Random(f"{seed} reboot {scenario.name}")
        every = kill_points("kill", scenario, 0, outcome.trace, rng)
        for done, point in enumerate(list(islice(every, most))[start:]):
            if job.is_over(done):
                return
            first = rng.choice(FIRST)
            job.point = f"reboot/{scenario.name}/{point.fault.at}/{first}"
            _run(rig, scenario, point.fault.at, first)
            yield {"point": job.point}

    return work


def job_of(text: str) -> Job:
    _part, name, at, first = text.split("/")

    def work(job: Job, _start: int) -> Iterator[Entry]:
        job.point = text
        rig = _rig(SCENARIOS[name])
        _run(rig, SCENARIOS[name], int(at), first)
        yield {"point": text}

    return Job("reboot", text, work)
