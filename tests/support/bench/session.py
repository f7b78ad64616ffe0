# SPDX-License-Identifier: Apache-2.0
"""One run: its options, the programs that take turns, and the rounds."""

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import TypeVar

from tests.support.bench.machine import CHAIN, CHECKOUT, PLAIN, Operation, perform, perform_together
from tests.support.bench.programs import Container, Hook, Program, Reference
from tests.support.bench.samples import BEFORE, HOOK, NEWEST, REFERENCE, Results

T = TypeVar("T")

VERBS = ("ADD", "DEL")
REFERENCE_FOLDER = "/usr/lib/cni"
PORT = {PLAIN: range(0), CHAIN: range(9000, 9001)}
_STAYING_PORT = {PLAIN: range(0), CHAIN: range(9001, 9002)}
_FIRST_PORT = 20000
_AT_ONCE = 4  # processes that prepare a measurement


class Run:
    """The options of a run, and its results."""

    def __init__(
        self, *, rounds: int, attached: "list[int]", ports: int, before: str = "", reference: str = ""
    ) -> None:
        self.rounds = rounds
        self.attached = attached
        self.ports = ports
        self._before = before
        self._newest = reference
        self.results = Results()

    def hooks(self) -> "list[Hook]":
        """Return the hook of this checkout, and the one before, each on a machine of its own."""
        hooks = [Hook(HOOK, CHECKOUT)]
        if self._before:
            hooks.append(Hook(BEFORE, self._before))
        return hooks

    def programs(self) -> "list[Program]":
        """Return all that take turns."""
        programs: list[Program] = [*self.hooks(), Reference(REFERENCE, REFERENCE_FOLDER)]
        if self._newest:
            programs.append(Reference(NEWEST, self._newest))
        return programs


def turns(programs: Sequence[Program], rounds: int) -> "Iterator[tuple[Program, bool]]":
    """Yield each program on its machine, as in_turn() does."""
    for program, counts in in_turn(programs, rounds):
        program.machine.enter()
        yield program, counts


def in_turn(items: "Sequence[T]", rounds: int) -> "Iterator[tuple[T, bool]]":
    """Yield each item `rounds` times or a little more, and whether it counts: the first is for warming up.

    What a program finds depends on the one before: on its caches, and on what the kernel still clears up.
    So each follows each other one equally often.  With rounds that only began elsewhere, each had always the
    same one before it; with the opposite order in every other round, a program was 3 % slower than itself.
    """
    order = [item for pair in combinations(items, 2) for item in pair] or list(items)
    cycles = -(-(rounds + 1) // max(len(items) - 1, 1))
    for cycle in range(cycles):
        for position, item in enumerate(order):
            yield item, cycle > 0 or item in order[:position]


def measure(
    run: Run, programs: Sequence[Program], group: str, network: str, suffix: str = "", over: str = ""
) -> None:
    """Measure ADD of a container, and DEL after its process has ended.

    `over`: the suffix of the rows that these are compared to, in addition to the reference.
    """
    rows = {verb: run.results.row(group, verb + suffix, over=verb + over if over else "") for verb in VERBS}
    for program, counts in turns(programs, run.rounds):
        added, deleted = lifetime(program, network, PORT[network], perform)
        if counts:
            rows["ADD"][program.label].add(added)
            rows["DEL"][program.label].add(deleted)


def lifetime(
    program: Program, network: str, ports: range, cost_of: "Callable[[Operation], T]"
) -> "tuple[T, T]":
    """Return what ADD of a container costs, and DEL after its process has ended."""
    container = program.new("guest", network, ports)
    added = cost_of(program.add(container))
    program.kill(container)
    deleted = cost_of(program.delete(container))
    program.discard(container)
    return added, deleted


def attach(program: Program, name: str, network: str, ports: "range | None" = None) -> None:
    """Make a container that stays attached."""
    program.machine.enter()
    perform(program.add(program.new(name, network, _STAYING_PORT[network] if ports is None else ports)))


def new_containers(program: Program, numbers: range, network: str) -> "list[Container]":
    """Make containers; on the chain each has a port."""
    containers = []
    for number in numbers:
        port = _FIRST_PORT + number
        ports = range(port, port + 1) if network == CHAIN else range(0)
        containers.append(program.new(f"other{number}", network, ports))
    return containers


def attach_many(program: Program, numbers: range, network: str) -> "list[Container]":
    """Attach containers, several at once."""
    program.machine.enter()
    containers = new_containers(program, numbers, network)
    perform_together([program.add(container) for container in containers], _AT_ONCE)
    return containers


def end(programs: Sequence[Program]) -> None:
    for program in programs:
        program.end()


def progress(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)
