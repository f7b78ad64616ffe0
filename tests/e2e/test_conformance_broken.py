# SPDX-License-Identifier: Apache-2.0
"""The suite finds each fault: a small plugin breaks one rule at a time."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from cnihook.conformance import plugin_checks, profiles
from cnihook.conformance.check import FAIL, NOTE, OK, SKIP, Outcome
from tests.support.host.forks import python
from tests.support.plugins import small_conformance
from tests.support.skip import need, need_root

SUITE = python("tests.support.plugins.small_conformance")
KINDS = list(small_conformance.CONFS)
MINUTES = 600.0  # seconds, on a busy machine

# One process computes all outcomes, so that the checks run in parallel.
pytestmark = pytest.mark.xdist_group("conformance-broken")

CHECKS = plugin_checks.checks.checks
# The pool can be made small for host-local only.
RULES = [name for name in CHECKS if name != "ipam-released"]
ALL = [(plugin, name) for plugin in range(len(KINDS)) for name in CHECKS]
# The specification does not require this yet, so the small plugin always breaks it.
ALWAYS = {"key-case"}
IPAM_RULES = {
    "gc-keeps",
    "gc-removes",
    "gc-empty-list",
    "gc-no-list",
    "gc-ifname",
    "gc-other-network",
    "gc-old-key",
    "gc-twice",
}


# Open in the specification, although the checks rest on a "must": an error without JSON, an error with a
# code of the plugin's own, another configuration for the delegate.
OPEN = {"error-text", "error-code", "delegate-conf"}
# With these every ADD after the first fails, and nothing could be tried.
REFUSE_ADD = {"add-after-del", "prev-result-tolerated"}


def kind_for(rule: str) -> str:
    """Return the kind of plugin that breaks the rule."""
    kinds = CHECKS[rule].kinds
    if rule in IPAM_RULES or kinds == (profiles.IPAM,):
        return profiles.IPAM
    return profiles.CHAINED if kinds == (profiles.CHAINED,) else profiles.INTERFACE


def outcomes_of(
    folder: Path,
    plugins: Sequence[tuple[str, str]],
    pairs: Sequence[tuple[int, str]],
    *,
    looks: bool = True,
) -> list[Outcome]:
    """Run checks on small plugins, each given by its kind and the rules that it breaks."""
    need_root()
    need("ip", "nft")
    order = json.dumps({"plugins": plugins, "pairs": pairs, "looks": looks})
    process = subprocess.run(
        [*SUITE, str(folder)], input=order, stdout=subprocess.PIPE, text=True, timeout=MINUTES, check=True
    )
    return [
        Outcome(subject, CHECKS[name], mark, why, sent, came)
        for subject, name, mark, why, sent, came in json.loads(process.stdout)
    ]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Run each check on the plugin that breaks it; return the outcomes by check."""
    plugins = [(kind_for(rule), rule) for rule in RULES]
    outcomes = outcomes_of(tmp_path_factory.mktemp("broken"), plugins, list(enumerate(RULES)), looks=False)
    return {outcome.check.name: outcome for outcome in outcomes}


@pytest.mark.parametrize("error", ["error-text", "error-code"])
def test_plugin_that_breaks_every_should_fails_no_check(tmp_path: Path, error: str) -> None:
    """The plugin breaks them all at once, in each of its roles, and keeps every "must"."""
    shoulds = {name for name, check in CHECKS.items() if not check.must}
    broken = " ".join(sorted((shoulds | OPEN) - {"error-text", "error-code", *REFUSE_ADD} | {error}))

    outcomes = outcomes_of(tmp_path, [(kind, broken) for kind in KINDS], ALL)

    failed = [one for one in outcomes if one.mark == FAIL]
    assert "\n".join(f"{one.check.name}: {one.why}\n{one.sent}\n{one.came}" for one in failed) == ""
    noted = {one.check.name for one in outcomes if one.mark == NOTE}
    assert {"del", "gc-removes", "check-link-gone", "delegate-released", "error-json"} <= noted


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    """Run all checks on the plugin that breaks nothing, in each of its roles."""
    return outcomes_of(tmp_path_factory.mktemp("sound"), [(kind, "") for kind in KINDS], ALL)


@pytest.mark.parametrize("rule", RULES)
def test_broken_rule_is_found(broken: dict[str, Outcome], rule: str) -> None:
    outcome = broken[rule]

    assert outcome.mark == (FAIL if outcome.check.must else NOTE), outcome.why
    assert outcome.why and not outcome.why.startswith("unexpected"), outcome.why


def test_sound_plugin_breaks_no_rule(sound: list[Outcome]) -> None:
    """Otherwise the tests above would prove nothing."""
    wrong = [one for one in sound if one.mark in (FAIL, NOTE) and one.check.name not in ALWAYS]

    assert [f"{one.subject}: {one.check.name}: {one.why}\n{one.sent}\n{one.came}" for one in wrong] == []


def test_every_check_is_tried_with_some_plugin(sound: list[Outcome]) -> None:
    """A check that is skipped for every plugin proves nothing."""
    tried = {one.check.name for one in sound if one.mark != SKIP}

    assert set(RULES) - tried == set()
    assert {one.check.name for one in sound if one.mark == OK} >= set(RULES) - ALWAYS


def test_failure_shows_request_and_answer(broken: dict[str, Outcome]) -> None:
    outcome = broken["del-twice"]

    assert outcome.why.startswith("the second DEL: refused with exit 1: code 100: ip -n ns1 link del eth0")
    assert "CNI_COMMAND='DEL'" in outcome.sent and '"prevResult"' in outcome.sent
    assert outcome.came.startswith("exit 1\nstdout: {")
