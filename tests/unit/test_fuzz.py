# SPDX-License-Identifier: Apache-2.0
"""Readers accept any bytes: a short sample of scripts/fuzz."""

import random

import pytest

from tests.support.fuzz import engine
from tests.support.fuzz.__main__ import fuzz
from tests.support.fuzz.target import Target
from tests.support.fuzz.targets import TARGETS

SEEDS = [(target, data) for target in TARGETS.values() for data in target.seeds]


@pytest.mark.parametrize(("target", "data"), SEEDS, ids=lambda value: getattr(value, "name", ""))
def test_seed_is_read_or_rejected(target: Target, data: bytes) -> None:
    """Each seed is a form that programs write, or an input that once caused a fault."""
    target.check(data)


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_mutated_seed_is_read_or_rejected(target: Target) -> None:
    engine.mutate(target.check, target.seeds, 0.2, random.SystemRandom().randrange(1 << 31))


@pytest.mark.long
@pytest.mark.skipif(engine.available() != "atheris", reason="atheris has no wheel for this machine")
def test_sample_of_targets_withstands_atheris() -> None:
    seed = random.SystemRandom().randrange(1 << 31)
    for name in random.Random(seed).sample(list(TARGETS), 3):
        finding = fuzz(name, 2, seed, "atheris")
        assert finding is None, f"{finding}\nseed {seed}"


@pytest.mark.parametrize("kind", ["hypothesis", "atheris"])
def test_fault_is_found_and_its_input_is_kept(kind: str) -> None:
    """This checks the engines themselves, with a reader that fails on one byte."""
    if kind == "atheris" and engine.available() != "atheris":
        pytest.skip("atheris has no wheel for this machine")
    finding = fuzz("self-test", 20, 1, kind)

    assert finding is not None and b"\xff" in finding.data, finding
    assert "Broken" in finding.trace
