# SPDX-License-Identifier: Apache-2.0
"""
Measure the time of the hook and of the reference plugins, started directly.  Whole processes take turns.

Needs root, and the reference plugins in /usr/lib/cni (Debian: containernetworking-plugins).  Everything
happens in a throw-away network and mount namespace, so nothing is left on the machine.  The reference's
plugins run without a runtime, which is the least that a start can cost.  The hook's figure is the whole cost
of a container's start.  A second container stays attached, except in the rows "only container".

"library": the chain of the reference's executables, called through cnihook.runtime.cni.  "direct": this
program calls them itself.  A network is bridge + host-local + ipMasq; a "chain" adds portmap + firewall +
tuning, with one published port.
"""

import argparse
import json
import os
import subprocess
import sys

from tests.support.bench.figures import beside, report
from tests.support.bench.measurements import measure, measure_chain, measure_library
from tests.support.bench.processes import CHAIN, CHAIN_FOLDER, HOOK, NETWORK, REFERENCE


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", metavar="N", type=int, default=40, help="rounds of each measurement (40)"
    )
    parser.add_argument(
        "--attached",
        metavar="N",
        type=int,
        default=300,
        help="other attached containers, to measure the growth (300)",
    )
    parser.add_argument(
        "--ports", metavar="N", type=int, default=1000, help="published ports of other containers (1000)"
    )
    parser.add_argument(
        "--before", metavar="CHECKOUT", help="also run the benchmark of another checkout; the two take turns"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench: needs root, for namespaces of its own; run it with sudo")
    if not os.access(f"{REFERENCE}/bridge", os.X_OK):
        sys.exit(
            f"bench: no reference plugins in {REFERENCE}; `apt-get install containernetworking-plugins`"
        )
    if options.before:
        if not os.path.exists(f"{options.before}/scripts/bench"):
            sys.exit(f"bench: --before: there is no scripts/bench in {options.before}")
        return beside(os.path.abspath(options.before), options)
    if "CNIHOOK_BENCH" not in os.environ:
        os.environ["CNIHOOK_BENCH"] = "inside"
        os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable, *sys.argv])
    for folder in ("/run", "/var/lib/cni", "/var/log", "/etc/cni"):
        os.makedirs(folder, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    os.makedirs("/etc/cni/net.d")
    with open("/etc/cni/net.d/10-bench.conf", "w") as file:
        json.dump(NETWORK, file)

    os.makedirs(CHAIN_FOLDER)
    with open(f"{CHAIN_FOLDER}/10-chain.conflist", "w") as file:
        json.dump(CHAIN, file)

    subprocess.run([*HOOK, "compile"], check=True)  # as after an installation
    samples, used = measure(options.rounds, options.attached)
    samples |= measure_chain(options.rounds, options.ports)
    samples |= measure_library(max(options.rounds // 2, 5))
    if options.json:
        figures = {
            name: {"median_ms": sample.median, "least_ms": min(sample.times)}
            for name, sample in samples.items()
        }
        print(json.dumps({"times": figures, "hook_memory_mb": used}, indent=2))
    else:
        print(report(samples, options.attached, options.ports, used))
