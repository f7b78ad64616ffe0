# SPDX-License-Identifier: Apache-2.0
"""The command scripts/fuzz."""

import argparse
import random
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.support.fuzz import engine
from tests.support.fuzz.targets import TARGETS
from tests.support.plugins.cni import CHECKOUT

EPILOG = """\
A reader must return, or raise an exception that its documentation names, within 5 seconds and 1 GiB.  An
input that breaks this is printed, with the traceback.  As a file in tests/support/fuzz/seeds/TARGET it
becomes a test.

Exit code: 0 nothing found, 1 a fault, 2 usage.
"""


@dataclass(frozen=True)
class Finding:
    target: str
    data: bytes
    trace: str

    def __str__(self) -> str:
        again = f"scripts/fuzz {self.target} --input FILE"
        return f"FAILED {self.target}\n  input: {self.data!r}\n  again: {again}\n{self.trace}"


def fuzz(name: str, seconds: float, seed: int, kind: str) -> "Finding | None":
    """Fuzz one target in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="cnihook-fuzz-") as folder:
        argv = [
            sys.executable,
            "-m",
            "tests.support.fuzz.engine",
            name,
            f"{seconds:.0f}",
            str(seed),
            kind,
            folder,
        ]
        process = subprocess.run(
            argv, cwd=CHECKOUT, capture_output=True, text=True, errors="replace", timeout=seconds + 120
        )
        if process.returncode == 0:
            return None
        files = [
            path
            for path in Path(folder).iterdir()
            if path.name == "found" or path.name.startswith(("oom", "timeout", "crash"))
        ]
        return Finding(name, files[0].read_bytes() if files else b"", process.stderr[-4000:])


def main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    names = options.target or list(TARGETS)
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        print(f"fuzz: no target {unknown[0]!r}; there are: {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    if options.input:
        TARGETS[names[0]].check(options.input.read_bytes())
        return 0
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 31)
    findings = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for finding in pool.map(lambda name: fuzz(name, options.seconds, seed, options.engine), names):
            if finding:
                findings.append(finding)
                print(finding, flush=True)
    print(f"fuzz: {len(names)} targets, {len(findings)} faults, by {options.engine}, seed {seed}")
    return 1 if findings else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fuzz",
        description="Feed random inputs to the readers of cnihook.",
        epilog=f"targets: {', '.join(TARGETS)}\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", metavar="TARGET", nargs="*", help="readers to test (default: all)")
    parser.add_argument("--seconds", type=float, default=10, metavar="N", help="time for each target (10)")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the inputs (default: random)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="targets at the same time (2)")
    parser.add_argument(
        "--input", type=Path, metavar="FILE", help="read this input only, and print the traceback"
    )
    kinds = ("atheris", "hypothesis")
    parser.add_argument(
        "--engine", choices=kinds, default=engine.available(), help="default: atheris if it is installed"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
