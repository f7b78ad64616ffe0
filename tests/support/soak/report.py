# SPDX-License-Identifier: Apache-2.0
"""The output of a soak: each failure when it happens, and a table of figures at the end."""

import json
import sys
import time
from collections import Counter

from tests.support.soak.crew import Entry, Results

# as they are counted at the end
KINDS = {"leak": "leaks", "duplicate": "duplicate addresses", "hung": "hung calls", "error": "other faults"}


class Progress:
    """The output during a soak: failures at once, and a line every half minute."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._points = 0
        self._shown = time.monotonic()

    def take(self, part: str, entry: Entry) -> None:
        if self._quiet or entry.get("end"):
            return
        self._points += entry.get("points", 1)
        if "problem" in entry:
            text = "\n".join(f"  {line}" for line in entry["problem"].splitlines())
            print(f"FAILED {entry['point']}\n{text}\n  again: {_again(entry['point'])}", flush=True)
        elif time.monotonic() - self._shown > 30:
            self._shown = time.monotonic()
            print(f"soak: {self._points} points, now {part}", file=sys.stderr)


def finish(results: dict[str, Results], seed: int, seconds: float, *, as_json: bool) -> int:
    """Print the figures.  Returns the exit code."""
    figures = {part: _figures(one) for part, one in results.items()}
    failed = sum(len(one.failures) for one in results.values())
    if as_json:
        failures = [vars(failure) for one in results.values() for failure in one.failures]
        whole = {"seed": seed, "seconds": round(seconds, 1), "parts": figures, "failures": failures}
        print(json.dumps(whole, indent=1))
    else:
        for part, figure in figures.items():
            print(f"{part:12}", "  ".join(f"{name} {value}" for name, value in figure.items()))
        kinds = Counter(failure.kind for one in results.values() for failure in one.failures)
        counts = [f"{kinds[kind]} {name}" for kind, name in KINDS.items()]
        print(f"soak: {'FAILED' if failed else 'ok'}: {', '.join(counts)}; seed {seed}, {seconds:.0f} s")
    return 1 if failed else 0


def _figures(one: Results) -> dict[str, float]:
    times = [entry["seconds"] for entry in one.entries if "seconds" in entry]
    figures = {"points": one.points, "failures": len(one.failures), "work_seconds": round(one.seconds, 1)}
    if times:
        figures["longest_call"] = max(times)
    missed = sum(bool(entry.get("missed")) for entry in one.entries)
    if missed:
        figures["missed"] = missed
    for entry in one.entries:
        for name, value in entry.get("figures", {}).items():
            before = figures.get(name, 0)
            figures[name] = max(value, before) if name.startswith("longest") else value + before
    return figures


def _again(point: str) -> str:
    part, space, rest = point.partition(" ")
    return f"scripts/soak --only {part} {rest}" if space else f"scripts/soak --point '{point}'"
