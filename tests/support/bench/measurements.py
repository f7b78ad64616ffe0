# SPDX-License-Identifier: Apache-2.0
"""The measurements: which processes take turns, and what else is attached then."""

import json
import os
import time

from cnihook.runtime import networks
from cnihook.runtime.cni import CNI
from tests.support.bench.processes import CHAIN, CHECKOUT, NETWORK, PYTHON, REFERENCE, Namespace, Sample, run

# The process reads its own peak, because the one that wait4() returns includes the memory of the parent.
MEMORY = """
import sys
sys.path.insert(0, sys.argv[1])
from cnihook import hook
status = hook.main("createRuntime", [])
with open("/proc/self/status") as file:
    print(next(line.split()[1] for line in file if line.startswith("VmHWM")))
sys.exit(status)
"""


def memory(container: Namespace) -> float:
    """Return the peak memory of a hook's process, in MB."""
    state = {"id": container.name, "pid": container.process.pid, "bundle": "/"}
    run(None, [*PYTHON, "-c", MEMORY, CHECKOUT], json.dumps(state))
    with open("/run/bench.stdout") as file:
        return int(file.read()) / 1024


def measure(rounds: int, attached: int) -> "tuple[dict[str, Sample], float]":
    samples: dict[str, Sample] = {}

    def sample(name: str) -> Sample:
        return samples.setdefault(name, Sample())

    stays, guest = Namespace("stays"), Namespace("guest")
    external = {"CNI_PATH": REFERENCE}
    # This container stays on both networks, so the work for a first or last container is not in each round.
    stays.hook(None, "createRuntime")
    stays.reference(None, "ADD")
    for warm in (True, *[False] * rounds):
        for command in ("ADD", "DEL"):
            guest.reference(None if warm else sample(f"reference {command}"), command)
        for command, event in (("ADD", "createRuntime"), ("DEL", "poststop")):
            guest.hook(None if warm else sample(f"hook {command}"), event)
        if not warm:
            run(sample("bare python3 -IS"), [*PYTHON, "-c", "pass"], "")
    for _ in range(max(rounds // 4, 5)):
        for command, event in (("ADD", "createRuntime"), ("DEL", "poststop")):
            guest.hook(sample(f"hook {command}, reference plugins"), event, **external)
    stays.hook(None, "poststop")
    stays.reference(None, "DEL")
    for _ in range(max(rounds // 4, 5)):
        for command, event in (("ADD", "createRuntime"), ("DEL", "poststop")):
            guest.reference(sample(f"reference {command}, only container"), command)
            guest.hook(sample(f"hook {command}, only container"), event)

    launcher = f"{CHECKOUT}/scripts/priv-net-run"
    if os.path.exists(launcher):
        for _ in range(max(rounds // 4, 5)):
            run(sample("priv-net-run true"), [*PYTHON, launcher, "true"], "")

    if attached:
        others = [Namespace(f"other{number}") for number in range(attached)]
        for other in others:
            other.hook(None, "createRuntime")
        for _ in range(max(rounds // 4, 5)):
            guest.hook(sample(f"hook ADD, {attached} attached"), "createRuntime")
            guest.hook(sample(f"hook DEL, {attached} attached"), "poststop")
        for other in others:
            other.end()
    used = memory(guest)
    guest.hook(None, "poststop")
    for namespace in (stays, guest):
        namespace.end()
    return samples, used


FEW = ", 1 port"


class Ports:
    """Containers with many published ports, by the hook or by the reference's plugins."""

    def __init__(self, program: str, ports: int) -> None:
        self._program = program
        self._containers = [Namespace(f"other{number}") for number in range(min(10, ports))]
        share = ports // len(self._containers)
        self._ranges = [range(first, first + share) for first in range(20000, 20000 + ports, share)]
        for container, own in zip(self._containers, self._ranges, strict=True):
            if program == "hook":
                container.hook(None, "createRuntime", f"{own[0]}-{own[-1]}:{own[0]}-{own[-1]}")
            else:
                container.reference_chain(None, "ADD", own)

    def end(self) -> None:
        for container, own in zip(self._containers, self._ranges, strict=True):
            if self._program == "hook":
                container.hook(None, "poststop")
            else:
                container.reference_chain(None, "DEL", own)
            container.end()


def measure_chain(rounds: int, ports: int) -> "dict[str, Sample]":
    """Measure bridge + portmap + firewall + tuning with one port, then beside many ports of others."""
    samples: dict[str, Sample] = {}

    def sample(name: str) -> Sample:
        return samples.setdefault(name, Sample())

    stays, guest = Namespace("stays"), Namespace("guest")
    # The reference starts first.  Once it has rules in iptables, the hook must accept there as well, and the
    # first container after that declares it for all.  This should be the one that stays, not the measured
    # one.
    stays.reference_chain(None, "ADD", range(9003, 9004))
    stays.hook(None, "createRuntime", "9001:80")
    one = range(9002, 9003)

    def once(program: str, suffix: str, warm: bool) -> None:
        for command, event in (("ADD", "createRuntime"), ("DEL", "poststop")):
            to = None if warm else sample(f"{program} chain {command}{suffix}")
            if program == "hook":
                guest.hook(to, event, "9000:80")
            else:
                guest.reference_chain(to, command, one)

    both = ("reference", "hook")
    for warm in (True, *[False] * rounds):
        for program in both:
            once(program, "", warm)
    # Not by turns: the kernel works for a long time on the reference's thousand deleted rules.
    for program in both if ports else ():
        for suffix in (FEW, f", {ports} ports"):
            others = Ports(program, ports) if suffix != FEW else None
            for warm in (True, *[False] * max(rounds // 2, 5)):
                once(program, suffix, warm)
            if others:
                others.end()
    stays.hook(None, "poststop")
    stays.reference_chain(None, "DEL", range(9003, 9004))
    for namespace in (stays, guest):
        namespace.end()
    return samples


def measure_library(rounds: int) -> "dict[str, Sample]":
    """Measure the chain of the reference's executables, called by the runtime as a library, and directly."""
    samples = {name: Sample() for name in ("library ADD", "library DEL", "direct ADD", "direct DEL")}
    chain = {**CHAIN, "name": "libchain", "plugins": [dict(plugin) for plugin in CHAIN["plugins"]]}
    chain["plugins"][0] |= {"bridge": "lib0", "ipam": {**NETWORK["ipam"], "subnet": "10.96.0.0/16"}}
    network = networks.parse(json.dumps(chain).encode(), "bench")
    cni = CNI(plugin_dirs=[REFERENCE])
    guest = Namespace("library")
    ports = {"portMappings": [{"hostPort": 9004, "containerPort": 80, "protocol": "tcp"}]}
    for warm in (True, *[False] * rounds):
        began = time.perf_counter()
        cni.add(network, "library", netns=guest.path, capability_args=ports)
        added = time.perf_counter()
        cni.delete(network, "library")
        ended = time.perf_counter()
        if not warm:
            samples["library ADD"].times.append((added - began) * 1000)
            samples["library DEL"].times.append((ended - added) * 1000)
        for command in ("ADD", "DEL"):
            guest.reference_chain(None if warm else samples[f"direct {command}"], command, range(9002, 9003))
    guest.end()
    return samples
