# SPDX-License-Identifier: Apache-2.0
"""The suite finds each fault of a runtime: a small runtime breaks one rule at a time."""

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from cnihook.conformance import runtime_checks
from cnihook.conformance.check import FAIL, NOTE, OK, Outcome
from cnihook.conformance.run import NotRun
from cnihook.conformance.runtime import run_runtime
from tests.support.host.forks import python
from tests.support.plugins.cni import CHECKOUT
from tests.support.skip import need_root

SUITE = python("tests.support.runtimes.small_conformance")
MINUTES = 600.0  # seconds, on a busy machine
CHECKS = runtime_checks.checks.checks

pytestmark = pytest.mark.xdist_group("conformance-runtime")


def outcomes_of(*runtimes: tuple[str, list[str]]) -> list[Outcome]:
    """Run checks on small runtimes, each given by the rules that it breaks and the names of the checks."""
    need_root()
    process = subprocess.run(
        SUITE, input=json.dumps(runtimes), stdout=subprocess.PIPE, text=True, timeout=MINUTES, check=True
    )
    return [
        Outcome(subject, CHECKS[name], mark, why, sent, came)
        for subject, name, mark, why, sent, came in json.loads(process.stdout)
    ]


@pytest.fixture(scope="module")
def broken() -> dict[str, Outcome]:
    """Run each check on the runtime that breaks it; return the outcomes by check."""
    return {outcome.check.name: outcome for outcome in outcomes_of(*((rule, [rule]) for rule in CHECKS))}


@pytest.fixture
def no_cni_in_environment() -> Iterator[None]:
    """Set a variable that must not reach the runtime under test."""
    os.environ["CNI_ARGS"] = "FOREIGN=1"
    yield
    del os.environ["CNI_ARGS"]


@pytest.mark.parametrize("rule", CHECKS)
def test_broken_rule_is_found(broken: dict[str, Outcome], rule: str) -> None:
    outcome = broken[rule]

    assert outcome.mark == (FAIL if outcome.check.must else NOTE), outcome
    assert outcome.why and not outcome.why.startswith("unexpected"), outcome.why


def test_runtime_that_breaks_every_should_fails_no_check() -> None:
    """The runtime breaks them all at once, and keeps every "must"."""
    shoulds = [name for name, check in CHECKS.items() if not check.must]
    broken = " ".join([*shoulds, "optional-variables", "empty-runtime-config", "message"])

    outcomes = outcomes_of((broken, list(CHECKS)))

    assert [f"{one.check.name}: {one.why}\n{one.came}" for one in outcomes if one.mark == FAIL] == []
    assert {"reserved-keys", "del-twice"} <= {one.check.name for one in outcomes if one.mark == NOTE}


def test_sound_runtime_breaks_no_rule(no_cni_in_environment: None) -> None:
    outcomes = outcomes_of(("", list(CHECKS)))

    assert [f"{one.check.name}: {one.why}\n{one.came}" for one in outcomes if one.mark != OK] == []
    assert {outcome.subject for outcome in outcomes} == {"small_runtime.py"}


def test_own_commands_break_no_rule(no_cni_in_environment: None) -> None:
    need_root()

    outcomes = run_runtime(str(CHECKOUT / "scripts" / "cnihook"), list(CHECKS.values()), lambda *_: None)

    assert [f"{one.check.name}: {one.why}\n{one.came}" for one in outcomes if one.mark != OK] == []


def test_failure_shows_command_and_what_plugins_received(broken: dict[str, Outcome]) -> None:
    outcome = broken["del-order"]

    assert outcome.why == "DEL went to first, second, third, not to third, second, first"
    assert "small_runtime.py del net /run/netns/ns1" in outcome.sent
    assert "second got DEL: {" in outcome.came


def test_missing_runtime_is_reported() -> None:
    with pytest.raises(NotRun, match="there-is-no-such-runtime"):
        run_runtime("there-is-no-such-runtime --flag", list(CHECKS.values()), lambda *_: None)
