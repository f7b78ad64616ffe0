# SPDX-License-Identifier: Apache-2.0
"""
The two engines: atheris, which observes the code that an input reaches, and hypothesis, which does not.

Both run in a process of their own, with limits:

    python -m tests.support.fuzz.engine TARGET SECONDS SEED ENGINE FOLDER

It exits with 0, or writes the input into FOLDER/found, prints the traceback and exits with 1.
"""

import os
import random
import resource
import signal
import sys
import time
import traceback
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NoReturn

MEMORY = 1 << 30  # bytes that the process may have
SLOW = 5  # seconds that one input may take
LONGEST = 1 << 12  # bytes of the longest input


def available() -> str:
    return "atheris" if find_spec("atheris") else "hypothesis"


def main(name: str, seconds: str, seed: str, engine: str, folder: str) -> None:
    if engine == "atheris":
        atheris = import_module("atheris")
        with atheris.instrument_imports(include=["cnihook"]):
            target = _target(name)
        options = [f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={LONGEST}", "-verbosity=0"]
        options += [f"-rss_limit_mb={MEMORY >> 20}", f"-artifact_prefix={folder}/", _corpus(target, folder)]
        if words := _dictionary(target):
            with open(f"{folder}/words", "w") as file:
                file.write(words)
            options.append(f"-dict={folder}/words")
        atheris.Setup([name, *options], _watched(target, folder))
        atheris.Fuzz()
    else:
        target = _target(name)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        mutate(_watched(target, folder), target.seeds, float(seconds), int(seed))


def _target(name: str) -> Any:
    targets = import_module("tests.support.fuzz.targets")
    return targets.SELF_TEST if name == targets.SELF_TEST.name else targets.TARGETS[name]


def mutate(check: Any, seeds: "tuple[bytes, ...]", seconds: float, seed: int) -> int:
    """Check inputs that hypothesis makes from the seeds.  Returns their number."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st

    edit = st.tuples(st.integers(0, LONGEST), st.integers(0, 8), st.binary(max_size=6))
    until = time.monotonic() + seconds
    checks = 0
    while time.monotonic() < until:

        @seeded(seed + checks)
        @settings(
            max_examples=200,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.sampled_from(seeds), st.lists(edit, min_size=1, max_size=6))
        def batch(data: bytes, edits: "list[tuple[int, int, bytes]]") -> None:
            for place, length, put in edits:
                at = place % (len(data) + 1)
                data = data[:at] + put + data[at + length :]
            check(data)

        batch()
        checks += 200
    return checks


def _watched(target: Any, folder: str) -> Any:
    """Return the target's check, which stores an input on which it fails."""

    def check(data: bytes) -> None:
        signal.alarm(SLOW)
        try:
            target.check(data)
        except BaseException as error:
            _keep(data, folder, error)
        finally:
            signal.alarm(0)

    signal.signal(signal.SIGALRM, _too_slow)
    return check


def _too_slow(_signal: int, _frame: Any) -> NoReturn:
    raise TimeoutError(f"one input took more than {SLOW} s")


def _keep(data: bytes, folder: str, error: BaseException) -> NoReturn:
    with open(f"{folder}/found", "wb") as file:
        file.write(data)
    sys.stderr.write("".join(traceback.format_exception(error)))
    sys.stderr.flush()
    os._exit(1)


def _corpus(target: Any, folder: str) -> str:
    """Write the target's seeds into a folder.  Returns its path."""
    corpus = f"{folder}/corpus"
    os.mkdir(corpus)
    for number, data in enumerate(target.seeds):
        with open(f"{corpus}/{number}", "wb") as file:
            file.write(data)
    return corpus


def _dictionary(target: Any) -> str:
    """Return the parts of the seeds, which libFuzzer puts into inputs."""
    words = {word for seed in target.seeds for word in seed.split() if 1 < len(word) < 40}
    return "".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in sorted(words))


if __name__ == "__main__":
    random.seed(int(sys.argv[3]))
    main(*sys.argv[1:])
