# SPDX-License-Identifier: Apache-2.0
"""The rows about one container: its start, its end, and the memory of a process."""

import json
import os
import re
import shutil
import time
from functools import cache

from cnihook.runtime import networks
from cnihook.runtime.cni import CNI
from tests.support.bench.machine import (
    CHAIN,
    CHECKOUT,
    PLAIN,
    PLUGINS,
    VERSION,
    Cost,
    Operation,
    perform,
    run,
)
from tests.support.bench.programs import PYTHON, Hook, Program, Reference
from tests.support.bench.samples import HOOK, REFERENCE
from tests.support.bench.session import (
    PORT,
    REFERENCE_FOLDER,
    VERBS,
    Run,
    attach,
    end,
    in_turn,
    lifetime,
    measure,
    turns,
)


def plain(session: Run) -> None:
    bare = session.results.row("plain", "bare python3", beside="")
    for number in range(-1, session.rounds):
        cost, _ = run(*PYTHON, "-c", "pass")
        if number >= 0:
            bare[HOOK].add(cost)
    _beside_another(session, "plain", PLAIN)


def chain(session: Run) -> None:
    _beside_another(session, "chain", CHAIN)


def _beside_another(session: Run, group: str, network: str) -> None:
    programs = session.programs()
    for program in programs:
        attach(program, "stays", network)
    measure(session, programs, group, network)
    end(programs)


def only(session: Run) -> None:
    for network in (PLAIN, CHAIN):
        programs = session.programs()
        measure(session, programs, "only", network, f", {network}")
        end(programs)


def delegated(session: Run) -> None:
    """Measure the hook and the library with the reference's executables, beside these alone."""
    _library(session)
    for network in (PLAIN, CHAIN):
        hook = Hook(HOOK, CHECKOUT, plugin_dirs=REFERENCE_FOLDER)
        programs: list[Program] = [hook, Reference(REFERENCE, REFERENCE_FOLDER)]
        for program in programs:
            attach(program, "stays", network)
        measure(session, programs, "delegated", network, f", {network}")
        end(programs)


def _library(session: Run) -> None:
    """Measure the library in this process: its time without the start of Python."""
    direct, library = Reference(REFERENCE, REFERENCE_FOLDER), Reference("library", REFERENCE_FOLDER)
    rows = {verb: session.results.row("delegated", f"{verb}, library, chain") for verb in VERBS}
    chain_of_plugins = {"cniVersion": VERSION, "name": CHAIN, "plugins": PLUGINS[CHAIN]}
    network = networks.parse(json.dumps(chain_of_plugins).encode(), "bench")
    cni = CNI(plugin_dirs=[REFERENCE_FOLDER])
    mapping = {"hostPort": PORT[CHAIN][0], "containerPort": 80, "protocol": "tcp"}
    for program, counts in turns([direct, library], session.rounds):
        container = program.new("guest", CHAIN, PORT[CHAIN])
        if program is direct:
            costs = [perform(direct.add(container)), perform(direct.delete(container))]
        else:
            times = [time.perf_counter()]
            cni.add(network, "guest", netns="/run/netns/guest", capability_args={"portMappings": [mapping]})
            times.append(time.perf_counter())
            cni.delete(network, "guest")
            times.append(time.perf_counter())
            costs = [Cost((end - begin) * 1000, 0) for begin, end in zip(times, times[1:], strict=False)]
        program.discard(container)
        for verb, cost in zip(rows, costs, strict=True):
            if counts:
                rows[verb][program.label].values.append(cost.wall)
    end([direct, library])


def ports(session: Run) -> None:
    programs = session.programs()
    share = max(session.ports // 10, 1)
    before = ", no other port"
    measure(session, programs, "ports", CHAIN, before)
    for program in programs:
        for number in range(10):
            first = 20000 + number * share
            attach(program, f"other{number}", CHAIN, range(first, first + share))
    measure(session, programs, "ports", CHAIN, f", {10 * share} other ports", over=before)
    end(programs)


class _Bundle:
    """A bundle that runs `true`, on the machine of a hook.  `argv`: the hook of the bundle, if any."""

    def __init__(self, hook: Hook, label: str, argv: "list[str]") -> None:
        self._machine = hook.machine
        self.label = label
        self._folder = f"/run/bundle {label}"
        self._machine.enter()
        for folder in ("bin", "proc", "dev", "sys"):
            os.makedirs(f"{self._folder}/rootfs/{folder}")
        shutil.copy(str(shutil.which("busybox")), f"{self._folder}/rootfs/bin/true")
        run("runc", "spec", "--bundle", self._folder)
        with open(f"{self._folder}/config.json") as file:
            config = json.load(file)
        config["process"] |= {"terminal": False, "args": ["/bin/true"]}
        config["linux"]["cgroupsPath"] = f"/{os.environ['CNIHOOK_BENCH']}/{label.replace(' ', '-')}"
        env = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "NETCONFPATH=/etc/cni/plain.d"]
        config["hooks"] = {
            event: [{"path": argv[0], "args": [*argv, event], "env": env}]
            for event in ("createRuntime", "poststop")
            if argv
        }
        with open(f"{self._folder}/config.json", "w") as file:
            json.dump(config, file)

    def run(self, runtime: str) -> Cost:
        self._machine.enter()
        return run(runtime, "run", "--bundle", self._folder, "guest")[0]


def runtimes(session: Run) -> None:
    """Measure `true` without a hook, with the least hook that Python can be, and with cnihook's."""
    hooks = session.hooks()
    bundles = [
        _Bundle(hooks[0], "no hook", []),
        _Bundle(hooks[0], "bare python3", [*PYTHON, "-c", "pass"]),
        *(_Bundle(hook, hook.label, hook.command) for hook in hooks),
    ]
    for suffix in (", only container", ", another attached"):
        for hook in hooks if suffix == ", another attached" else ():
            attach(hook, "stays", PLAIN)
        for name in ("runc", "crun"):
            runtime = shutil.which(name) or ""
            row = session.results.row("runtimes", f"{name} run true{suffix}", beside="no hook")
            for bundle, counts in in_turn(bundles, session.rounds) if runtime else ():
                cost = bundle.run(runtime)
                if counts:
                    row[bundle.label].add(cost)
    end(hooks)


# All that priv-net-run sets up, without records, a log, and undo.  The pair has a name that
# differs from run to run, because the kernel removes it after `ip netns delete` has ended.
BY_HAND = """\
set -e
ip netns add hand
ip link add hand0 type bridge
ip address add 10.77.0.1/24 dev hand0
ip link set hand0 up
ip link add "hand$$" type veth peer name eth0 netns hand
ip link set "hand$$" master hand0 up
ip -netns hand link set lo up
ip -netns hand address add 10.77.0.2/24 dev eth0
ip -netns hand link set eth0 up
ip -netns hand route add default via 10.77.0.1
echo 1 > /proc/sys/net/ipv4/ip_forward
nft 'add table ip hand; add chain ip hand out { type nat hook postrouting priority 100; }
     add rule ip hand out ip saddr 10.77.0.2 oifname != "hand0" masquerade'
ip netns exec hand true
nft delete table ip hand
ip netns delete hand
ip link delete hand0
"""


def priv_net_run(session: Run) -> None:
    hooks = session.hooks()
    by_hand = Hook("by hand", CHECKOUT)
    row = session.results.row("priv-net-run", "priv-net-run true", beside=by_hand.label)
    for program, counts in turns([*hooks, by_hand], session.rounds):
        if program is by_hand:
            argv = ["sh", "-c", BY_HAND]
        else:
            argv = [*PYTHON, f"{CHECKOUT}/scripts/priv-net-run", "true"]
            assert isinstance(program, Hook)
            argv[2] = f"{program.checkout}/scripts/priv-net-run"
        cost, _ = run(*argv)
        if counts:
            row[program.label].add(cost)
    end([*hooks, by_hand])


_TIME = ["busybox", "time", "-v", "-o", "/run/bench.time"]


def _reported() -> int:
    with open("/run/bench.time") as file:
        return int(re.findall(r"Maximum resident set size.*: (\d+)", file.read())[0])


@cache
def _unit() -> int:
    """Return the factor by which busybox is wrong: many versions count kilobytes as pages, so 4."""
    own = "print(*[line.split()[1] for line in open('/proc/self/status') if line[:5] == 'VmHWM'])"
    _, text = run(*_TIME, *PYTHON, "-c", own)
    return round(_reported() / int(text))


def memory(session: Run) -> None:
    """Measure the peak memory of each process; of several, the one that has most counts.

    The rusage of a child includes what its parent had before exec, so a small program starts it.
    """
    for network in (PLAIN, CHAIN):
        programs = session.programs()
        rows = {verb: session.results.row("memory", f"{verb}, {network}", unit="MB") for verb in VERBS}
        for program, counts in turns(programs, session.rounds):
            added, deleted = lifetime(program, network, PORT[network], peak)
            if counts:
                rows["ADD"][program.label].values.append(added)
                rows["DEL"][program.label].values.append(deleted)
        end(programs)


def peak(operation: Operation) -> float:
    """Run the processes of an operation.  Returns the largest peak of memory in MB."""
    peaks = []

    def watched() -> Operation:
        spawn = next(operation)
        while True:
            printed = yield spawn._replace(argv=[*_TIME, *spawn.argv])
            peaks.append(_reported() / 1024)
            try:
                spawn = operation.send(printed)
            except StopIteration:
                return

    perform(watched())
    return max(peaks) / _unit()
