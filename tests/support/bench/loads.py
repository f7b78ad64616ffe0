# SPDX-License-Identifier: Apache-2.0
"""The rows about many containers: growth, throughput, many ports, and containers that are gone."""

import os
import time

from tests.support.bench.machine import CHAIN, PLAIN, FailedError, perform, perform_together, run
from tests.support.bench.programs import Container, Program
from tests.support.bench.session import (
    VERBS,
    Run,
    attach,
    attach_many,
    end,
    lifetime,
    measure,
    new_containers,
    progress,
)
from tests.support.bench.starts import peak

AT_ONCE = (1, 2, 4, 8, 16, 32)
_ENOUGH = 20.0  # seconds of throughput with one number at once
_FEWEST = 3  # samples of a row that takes long
MANY_PORTS = 10_000
DEAD = 500


def growth(session: Run) -> None:
    """Measure beside 1, 10, ... attached containers of each program, which stay until the last row."""
    for network in (PLAIN, CHAIN):
        programs = session.programs()
        count = 0
        first = ""
        for number in session.attached:
            for program in programs:
                attach_many(program, range(count, number), network)
            count = number
            suffix = f", {network}, {number} attached"
            progress(f"growth{suffix}")
            measure(session, programs, "growth", network, suffix, over=first)
            first = first or suffix
        end(programs)


def throughput(session: Run) -> None:
    """Measure how many ADDs and DELs end in a second, with several at any time."""
    for network in (PLAIN, CHAIN):
        programs = session.programs()
        for program in programs:
            attach(program, "stays", network)
        for number in AT_ONCE:
            name = f"{network}, {number} at once"
            progress(f"throughput, {name}")
            row = session.results.row("throughput", name, unit="calls/s")
            deadline = time.monotonic() + _ENOUGH
            for count in range(-1, session.rounds):
                if count >= _FEWEST and time.monotonic() > deadline:
                    break
                for program in programs:
                    rate = _batch(program, network, number)
                    if count >= 0:
                        row[program.label].values.append(rate)
        end(programs)


def _batch(program: Program, network: str, at_once: int) -> float:
    """Attach two containers for each that may run at once, then detach them.  Returns calls a second."""
    program.machine.enter()
    containers = new_containers(program, range(2 * at_once), network)
    seconds = perform_together([program.add(container) for container in containers], at_once)
    for container in containers:
        program.kill(container)
    seconds += perform_together([program.delete(container) for container in containers], at_once)
    for container in containers:
        program.discard(container)
    return 2 * len(containers) / seconds


def many_ports(session: Run) -> None:
    """Measure one container with ten thousand published ports; the reference would take minutes."""
    hooks = session.hooks()
    numbers = range(10_000, 10_000 + MANY_PORTS)
    for hook in hooks:
        hook.machine.enter()
        times, peaks = (
            {verb: session.results.row("many-ports", f"{verb}, {name}", unit, beside="") for verb in VERBS}
            for unit, name in (("ms", "time"), ("MB", "memory"))
        )
        try:
            for _ in range(_FEWEST):
                for verb, cost in zip(VERBS, lifetime(hook, CHAIN, numbers, perform), strict=True):
                    times[verb][hook.label].add(cost)
                for verb, size in zip(VERBS, lifetime(hook, CHAIN, numbers, peak), strict=True):
                    peaks[verb][hook.label].values.append(size)
        except FailedError as error:
            for row in (*times.values(), *peaks.values()):
                row[hook.label].failure = str(error)
    end(hooks)


def collection(session: Run) -> None:
    """Measure `cnihook gc` after all containers of a host have been killed."""
    row = session.results.row("gc", f"gc of {DEAD} dead containers", beside="")
    hooks = session.hooks()
    for _ in range(_FEWEST):
        for hook in hooks:
            containers: list[Container] = attach_many(hook, range(DEAD), PLAIN)
            for container in containers:
                hook.kill(container)
            row[hook.label].add(run(*hook.command, "gc")[0])
            if left := os.listdir("/var/lib/cni/results"):
                raise FailedError(f"gc left {len(left)} records")
    end(hooks)
