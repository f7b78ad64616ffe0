# SPDX-License-Identifier: Apache-2.0
"""The figures as text: of one run, or of two checkouts beside each other."""

import argparse
import json
import statistics
import subprocess
import sys

from tests.support.bench.measurements import FEW
from tests.support.bench.processes import CHAIN, CHECKOUT, Sample


def report(samples: "dict[str, Sample]", attached: int, ports: int, used: float) -> str:
    compared = {
        "hook ADD": "reference ADD",
        "hook DEL": "reference DEL",
        "hook ADD, reference plugins": "reference ADD",
        "hook DEL, reference plugins": "reference DEL",
        "hook ADD, only container": "reference ADD, only container",
        "hook DEL, only container": "reference DEL, only container",
        f"hook ADD, {attached} attached": "hook ADD",
        f"hook DEL, {attached} attached": "hook DEL",
        "hook chain ADD": "reference chain ADD",
        "hook chain DEL": "reference chain DEL",
        "library ADD": "direct ADD",
        "library DEL": "direct DEL",
    }
    for program in ("hook", "reference"):
        for command in ("ADD", "DEL"):
            compared[f"{program} chain {command}, {ports} ports"] = f"{program} chain {command}{FEW}"
    lines = [f"{'':<34} {'median':>9} {'least':>9}   ratio"]
    for name, sample in samples.items():
        other = compared.get(name)
        ratio = f"{sample.median / samples[other].median:5.2f} of {other}" if other else ""
        lines.append(f"{name:<34} {sample.median:6.1f} ms {min(sample.times):6.1f} ms   {ratio}".rstrip())
    for command in ("ADD", "DEL"):
        more = samples[f"library {command}"].median - samples[f"direct {command}"].median
        lines.append(
            f"{f'library {command}, overhead per plugin':<34} {more / len(CHAIN['plugins']):6.1f} ms"
        )
    lines.append(f"{'memory of one hook process':<34} {used:6.1f} MB")
    return "\n".join(lines)


_TURNS = 4


def beside(before: str, options: argparse.Namespace) -> None:
    """Print the figures of another checkout and of this one.  The two take turns."""
    times: dict[str, tuple[list[dict[str, float]], list[dict[str, float]]]] = {}
    used: tuple[list[float], list[float]] = ([], [])
    words = ["--json", "--attached", str(options.attached), "--ports", str(options.ports)]
    words += ["--rounds", str(max(options.rounds // _TURNS, 1))]
    for _turn in range(_TURNS):
        for which, checkout in enumerate((before, CHECKOUT)):
            process = subprocess.run(
                [sys.executable, f"{checkout}/scripts/bench", *words],
                stdout=subprocess.PIPE,
                text=True,
                check=False,
            )
            if process.returncode:
                sys.exit(f"bench: {checkout}/scripts/bench failed: {process.stdout}")
            figures = json.loads(process.stdout)
            used[which].append(figures["hook_memory_mb"])
            for name, figure in figures["times"].items():
                times.setdefault(name, ([], []))[which].append(figure)
    print(f"{'':<34} {'median before':>13} {'now':>8}   {'least before':>12} {'now':>8}")
    for name, both in times.items():
        if not all(both):
            continue
        medians = [statistics.median(figure["median_ms"] for figure in one) for one in both]
        least = [min(figure["least_ms"] for figure in one) for one in both]
        print(
            f"{name:<34} {medians[0]:10.1f} ms {medians[1]:5.1f} ms   {least[0]:9.1f} ms {least[1]:5.1f} ms"
        )
    print(f"{'memory of one hook process':<34} {min(used[0]):10.1f} MB {min(used[1]):5.1f} MB")
