# SPDX-License-Identifier: Apache-2.0
"""
Measure the hook beside the reference plugins, which are started directly.  The programs take turns.

Each program has a machine of its own, in namespaces.  Nothing is left when the run ends or is interrupted.
The reference's plugins run without a runtime, which is the least that a start can cost.  The hook's figure
is the whole cost of a container's start.  At DEL, the container's process has ended.  "plain" is a network
of bridge + host-local + ipMasq, "chain" adds portmap + firewall + tuning with one published port.

CPU is the time of a processor that a process used, and all that it started or left running behind it.
Without --only and --all, a run takes a minute on a quiet machine.
"""

import argparse
import glob
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from tests.support.bench import cluster, figures, loads, page, plot, starts, steps
from tests.support.bench.machine import CHECKOUT, FailedError
from tests.support.bench.programs import version_of
from tests.support.bench.session import REFERENCE_FOLDER, Run, progress

# name: what it measures, the function, and whether a run without --only and --all has it
GROUPS: "dict[str, tuple[str, Callable[[Run], None], bool]]" = {
    "plain": ("a container on the plain network, another one attached", starts.plain, True),
    "chain": ("the same on the chain", starts.chain, True),
    "only": ("the only container of its network", starts.only, True),
    "runtimes": ("`runc run` and `crun run` of true: no hook, bare Python, the hook", starts.runtimes, True),
    "priv-net-run": ("`priv-net-run true`, and the same by hand with ip and nft", starts.priv_net_run, True),
    "memory": ("the peak memory of a process", starts.memory, True),
    "delegated": ("the hook and the library with the reference's executables", starts.delegated, False),
    "ports": ("a container with one port, beside many ports of others", starts.ports, False),
    "steps": ("the steps of an ADD: imports, kernel, code", steps.steps, False),
    "growth": ("a container beside 1, 10, 100, 300, 1000 attached ones", loads.growth, False),
    "throughput": ("calls a second, with 1 to 32 at once", loads.throughput, False),
    "many-ports": (f"one container with {loads.MANY_PORTS} ports", loads.many_ports, False),
    "cluster": ("a container on a network of several hosts, etcd alive and dead", cluster.starts, False),
    "gc": (f"`cnihook gc` with {loads.DEAD} dead containers", loads.collection, False),
}
_REST = 0.95  # the share of a second that a processor has nothing to do
_PATIENCE = 30  # seconds
_CHILD = "CNIHOOK_BENCH"  # set for the process in the PID namespace: the name of its cgroups


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(
        f"  {name:<13} {purpose}{'' if usual else ' *'}" for name, (purpose, _, usual) in GROUPS.items()
    )
    parser = argparse.ArgumentParser(
        prog="bench",
        description=__doc__,
        epilog=f"groups of rows (*: with --all or --only):\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--list", action="store_true", help="list the groups")
    add("--all", action="store_true", help="measure all groups (20 minutes)")
    add("--only", metavar="GROUP,...", help="measure these groups")
    add("--rounds", metavar="N", type=int, default=20, help="rounds of each measurement (20)")
    add(
        "--attached",
        metavar="N,...",
        default="1,10,100,300,1000",
        help="attached containers of growth (1,10,100,300,1000)",
    )
    add("--ports", metavar="N", type=int, default=1000, help="ports of others in group ports (1000)")
    add("--before", metavar="CHECKOUT", default="", help="also measure the hook of another checkout")
    add("--reference", metavar="DIR", default="", help="also measure the reference's plugins in this folder")
    add("--json", metavar="FILE", nargs="?", const="-", help="write the figures as JSON (-: stdout)")
    add("--plot", metavar="DIR", help="draw growth and throughput as SVG, in this folder")
    add("--page", action="store_true", help="write the tables and the pictures of start-time.md")
    return parser


def main() -> None:
    parser = _parser()
    options = parser.parse_args()
    if options.list:
        for name, (purpose, _, usual) in GROUPS.items():
            print(f"{name:<13} {purpose}{'' if usual else ' (--all)'}")
        return
    names = _chosen(parser, options)
    try:
        options.attached = sorted({int(number) for number in options.attached.split(",")})
    except ValueError:
        parser.error(f"--attached: not a list of numbers: {options.attached}")
    if options.rounds < 1 or options.ports < 1 or min(options.attached) < 1:
        parser.error("numbers must be at least 1")
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    _require(options)
    if _CHILD in os.environ:
        print(json.dumps(_measure(names, options)))
        return
    data = _run_inside()
    if options.json and options.json != "-":
        with open(options.json, "w") as file:
            json.dump(data, file, indent=2)
    print(json.dumps(data, indent=2) if options.json == "-" else figures.report(data))
    if options.plot:
        for path in plot.write(data, options.plot):
            progress(f"wrote {path}")
    if options.page:
        plot.write(data, os.path.dirname(page.PAGE))
        page.write(data)


def _chosen(parser: argparse.ArgumentParser, options: argparse.Namespace) -> "list[str]":
    if options.all:
        names = list(GROUPS)
    elif options.only:
        names = options.only.split(",")
    else:
        names = [name for name, (_, _, usual) in GROUPS.items() if usual and not options.page]
    names += ["steps"] if options.page and "steps" not in names else []
    if unknown := set(names) - set(GROUPS):
        parser.error(f"no group {', '.join(sorted(unknown))}; --list prints them")
    if options.plot and not {"growth", "throughput"} & set(names):
        parser.error("--plot draws the groups growth and throughput; add --only growth,throughput")
    return names


def _require(options: argparse.Namespace) -> None:
    """End the program if something that it needs is missing."""
    if os.geteuid() != 0:
        sys.exit("bench: needs root, for namespaces of its own; run it with sudo")
    for folder in filter(None, (REFERENCE_FOLDER, options.reference)):
        if not os.access(f"{folder}/bridge", os.X_OK):
            hint = "`apt-get install containernetworking-plugins`" if folder == REFERENCE_FOLDER else ""
            sys.exit(f"bench: no reference plugins in {folder}; {hint}".removesuffix("; "))
    if options.before and not os.path.exists(f"{options.before}/scripts/cnihook"):
        sys.exit(f"bench: --before: {options.before} has no scripts/cnihook")
    for program in ("busybox", "ip", "nft", "runc", "setpriv", "strace", "unshare"):
        if not shutil.which(program):
            sys.exit(f"bench: {program} is not installed")


# Folders that the machine lacks can be made below an overlay, and the machine does not get them.
_COVER = """
mount -t tmpfs tmpfs /run
for folder in /etc /var/lib; do
  place=/run/bench$folder
  mkdir -p $place/upper $place/work
  mount -t overlay overlay -o lowerdir=$folder,upperdir=$place/upper,workdir=$place/work $folder
done
exec "$@"
"""


def _run_inside() -> "dict[str, object]":
    """Run this program again below PID 1 of a PID namespace, and return the figures that it prints.

    If this process ends, for any reason, the kernel ends the other, and that ends all.
    """
    cgroups = f"cnihook-bench-{os.getpid()}"
    argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
    argv += ["--mount-proc", "sh", "-ec", _COVER, "sh", sys.executable, *sys.argv]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, env={**os.environ, _CHILD: cgroups})
    try:
        output, _ = process.communicate()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        process.kill()
        process.wait()
        _remove_cgroups(cgroups)
    if process.returncode:
        sys.exit(process.returncode)
    data: dict[str, object] = json.loads(output)
    return data


def _remove_cgroups(name: str) -> None:
    """Remove the cgroups of runtimes; the processes in them have been killed and take a moment to end."""
    for pattern in (f"/sys/fs/cgroup/{name}", f"/sys/fs/cgroup/*/{name}"):
        for top in glob.glob(pattern):
            for folder, _, _ in os.walk(top, topdown=False):
                for _ in range(100):
                    try:
                        os.rmdir(folder)
                        break
                    except OSError:
                        time.sleep(0.02)


def _settle() -> None:
    """Wait until the kernel has cleared up after the group before: a thousand namespaces take seconds."""
    for _ in range(_PATIENCE):
        before = _idle()
        time.sleep(1)
        if _idle() - before > _REST * (os.cpu_count() or 1):
            return


def _idle() -> float:
    """Return how long the processors had nothing to do since the boot, added up, in seconds."""
    with open("/proc/uptime") as file:
        return float(file.read().split()[1])


def _measure(names: "list[str]", options: argparse.Namespace) -> "dict[str, object]":
    checkouts = {"cnihook": CHECKOUT, "before": os.path.abspath(options.before) if options.before else ""}
    for checkout in filter(None, checkouts.values()):
        command = ["/usr/bin/python3", "-IS", f"{checkout}/scripts/cnihook", "compile"]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)  # as after an installation
    session = Run(
        rounds=options.rounds,
        attached=options.attached,
        ports=options.ports,
        before=checkouts["before"],
        reference=os.path.abspath(options.reference) if options.reference else "",
    )
    load = round(os.getloadavg()[0], 1)
    try:
        for name in names:
            _settle()
            progress(f"{name}: {GROUPS[name][0]}")
            GROUPS[name][1](session)
    except FailedError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        os._exit(130)
    programs = {name: checkout for name, checkout in checkouts.items() if checkout}
    programs["reference"] = version_of(REFERENCE_FOLDER)
    if options.reference:
        programs["newer reference"] = version_of(options.reference)
    return {
        "machine": {
            "processors": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "load": load,
        },
        "programs": programs,
        "rows": session.results.to_json(),
    }
