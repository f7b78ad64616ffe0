# SPDX-License-Identifier: Apache-2.0
"""The command scripts/soak."""

import argparse
import os
import random
import sys
import time
from typing import Any

from tests.support.skip import need_root
from tests.support.soak import crew, crowd, damage, disks, matrix, reboot, report, tracer
from tests.support.soak.crew import Job

DESCRIPTION = """\
Interrupt cnihook at every system call, and check that everything it left can be released.  It runs in
throw-away hosts, so nothing is left on this machine.  Needs root and x86_64.
"""
EPILOG = """\
parts:
  kill       each operation gets SIGKILL at each system call that changes something
  error      each system call fails: ENOSPC, EIO, EMFILE, ..., once or for ever
  damage     each state file is cut at each length, filled with noise, or replaced by a FIFO, folder or link
  disks      /var/lib/cni and /run have only a few pages or files left
  reboot     an operation is killed, and then the machine is rebooted
  crowd      16 processes start and end containers, some are killed, and gc runs at the same time
  exhausted  the same on a range of 6 addresses
  many       a thousand containers at once

For a point that fails, it prints what is left, and the command that runs only this point.
Ctrl-C prints the results so far.
Exit code: 0 no point failed, 1 a point failed, 2 usage, 130 interrupted.
"""


def main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    tracer.check_machine()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    jobs = [ONE[text.partition("/")[0]].job_of(text) for text in options.point]
    if not jobs:
        jobs = [job for part in options.only or PARTS for job in _jobs(part, seed, options)]
    started = time.monotonic()
    progress = report.Progress(quiet=options.json)
    results: dict[str, crew.Results] = {}
    try:
        crew.work_off(jobs, options.jobs, results, progress.take)
    except KeyboardInterrupt:
        print("soak: interrupted; these are the results so far", file=sys.stderr)
        report.finish(results, seed, time.monotonic() - started, as_json=options.json)
        return 130
    return report.finish(results, seed, time.monotonic() - started, as_json=options.json)


def _jobs(part: str, seed: int, options: argparse.Namespace) -> list[Job]:
    """Return the jobs of a part: all, or with --quick a sample that takes seconds."""
    if part in ("kill", "error"):
        limit = {"kill": 150, "error": 120}[part]
        return matrix.jobs(part, seed, limit, 3.0, 3) if options.quick else matrix.jobs(part, seed, limit)
    if part == "damage":
        return damage.jobs(seed, ALL, 1, 6.0) if options.quick else damage.jobs(seed, ALL, options.jobs)
    if part in ("disks", "reboot"):
        make = disks.jobs if part == "disks" else reboot.jobs
        return make(seed, 60, 2.0, 2) if options.quick else make(seed, 60)
    return crowd.jobs(part, seed, AMOUNTS[part][options.quick])


PARTS = ("kill", "error", "damage", "disks", "reboot", "crowd", "exhausted", "many")
ONE: dict[str, Any] = {"kill": matrix, "error": matrix, "damage": damage, "disks": disks, "reboot": reboot}
AMOUNTS = {"crowd": (8000, 128), "exhausted": (2000, 96), "many": (1000, 24)}  # in full, in a sample
ALL = 1 << 30


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "soak", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a sample of each part, in under two minutes")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="seed of the sample, to run it again (default: random)"
    )
    parser.add_argument("--only", type=_parts, metavar="PART,...", help="these parts (default: all)")
    parser.add_argument(
        "--point", action="append", default=[], metavar="POINT", help="run only this point; repeatable"
    )
    cores = os.cpu_count() or 1
    parser.add_argument(
        "--jobs",
        type=int,
        default=2 * cores,
        metavar="N",
        help=f"hosts at the same time (default: {2 * cores})",
    )
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object")
    return parser


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    for part in parts:
        if part not in PARTS:
            raise argparse.ArgumentTypeError(f"{part!r} is not a part; there are: {', '.join(PARTS)}")
    return parts


if __name__ == "__main__":
    need_root()
    sys.exit(main(sys.argv[1:]))
