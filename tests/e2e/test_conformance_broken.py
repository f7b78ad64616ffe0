# SPDX-License-Identifier: Apache-2.0
"""The suite finds what is broken: a small plugin breaks one promise after the other."""

import sys
from pathlib import Path
from typing import Any

import pytest

from cnihook.conformance import plugin_checks, profiles
from cnihook.conformance.case import Subject
from cnihook.conformance.check import FAIL, NOTE, OK, SKIP, Outcome
from cnihook.conformance.run import run_checks, run_pairs, work_of
from tests.support.skip import need, need_root

CHECKOUT = Path(__file__).resolve().parents[2]
LAUNCHER = f"""\
#!{sys.executable} -IS
import os, sys
os.environ["BROKEN"] = "{{rule}}"
sys.path.append("{CHECKOUT}/tests/support")
import small_plugin
"""

# One process computes all verdicts, so that they are tried side by side.
pytestmark = pytest.mark.xdist_group("conformance-broken")

CONFS: dict[str, dict[str, Any]] = {
    profiles.INTERFACE: {"ipam": {"type": profiles.STAND_IN}},
    profiles.IPAM: {"role": "ipam"},
    profiles.CHAINED: {"role": "chained"},
}
CHECKS = plugin_checks.checks.checks
# Only host-local is known to have a pool that can be made small.
RULES = [name for name in CHECKS if name != "ipam-released"]
# Breaking this is not yet a rule of the text, so the small plugin always does.
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


# What the specification leaves open in checks that rest on a "must": an error without JSON, with a code of
# the plugin's own, and another configuration for the delegate.
OPEN = {"error-text", "error-code", "delegate-conf"}
# With these no ADD works after the first, and nothing would be tried.
REFUSE_ADD = {"add-after-del", "prev-result-tolerated"}


def kind_for(rule: str) -> str:
    """The kind of plugin that breaks it."""
    kinds = CHECKS[rule].kinds
    if rule in IPAM_RULES or kinds == (profiles.IPAM,):
        return profiles.IPAM
    return profiles.CHAINED if kinds == (profiles.CHAINED,) else profiles.INTERFACE


def small_plugin(folder: Path, kind: str, rule: str = "") -> Subject:
    folder.mkdir(parents=True)
    executable = folder / "small"
    executable.write_text(LAUNCHER.format(rule=rule))
    executable.chmod(0o755)
    profile = profiles.given(CONFS[kind], kind)
    profile.allocates = kind == profiles.IPAM
    return Subject("small", str(executable), profile, str(folder))


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What each check says of the plugin that breaks it."""
    need_root()
    need("ip", "nft")
    folder = tmp_path_factory.mktemp("broken")
    pairs = [(small_plugin(folder / rule, kind_for(rule), rule), CHECKS[rule]) for rule in RULES]
    outcomes = run_checks([work_of(*pair) for pair in pairs], lambda *_: None)
    return {outcome.check.name: outcome for outcome in outcomes}


@pytest.mark.parametrize("error", ["error-text", "error-code"])
def test_plugin_that_follows_no_should_fails_no_check(tmp_path: Path, error: str) -> None:
    """All at once, in each of its roles; what a "must" demands it does."""
    need_root()
    need("ip", "nft")
    shoulds = {name for name, check in CHECKS.items() if not check.must}
    broken = " ".join(sorted((shoulds | OPEN) - {"error-text", "error-code", *REFUSE_ADD} | {error}))
    subjects = [small_plugin(tmp_path / kind, kind, broken) for kind in CONFS]

    outcomes = run_pairs([(one, check) for one in subjects for check in CHECKS.values()], lambda *_: None)

    failed = [one for one in outcomes if one.mark == FAIL]
    assert "\n".join(f"{one.check.name}: {one.why}\n{one.sent}\n{one.came}" for one in failed) == ""
    noted = {one.check.name for one in outcomes if one.mark == NOTE}
    assert {"del", "gc-removes", "check-link-gone", "delegate-released", "error-json"} <= noted


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    """What all checks say of the plugin that breaks nothing, in each of its roles."""
    need_root()
    need("ip", "nft")
    folder = tmp_path_factory.mktemp("sound")
    subjects = [small_plugin(folder / kind, kind) for kind in CONFS]
    return run_pairs([(one, check) for one in subjects for check in CHECKS.values()], lambda *_: None)


@pytest.mark.parametrize("rule", RULES)
def test_broken_promise_is_found(broken: dict[str, Outcome], rule: str) -> None:
    outcome = broken[rule]

    assert outcome.mark == (FAIL if outcome.check.must else NOTE), outcome.why
    assert outcome.why and not outcome.why.startswith("unexpected"), outcome.why


def test_sound_plugin_breaks_no_promise(sound: list[Outcome]) -> None:
    """Whatever its role; else the tests above would show nothing."""
    wrong = [one for one in sound if one.mark in (FAIL, NOTE) and one.check.name not in ALWAYS]

    assert [f"{one.subject}: {one.check.name}: {one.why}\n{one.sent}\n{one.came}" for one in wrong] == []


def test_every_check_is_tried_with_some_plugin(sound: list[Outcome]) -> None:
    """What is skipped for all of them shows nothing either."""
    tried = {one.check.name for one in sound if one.mark != SKIP}

    assert set(RULES) - tried == set()
    assert {one.check.name for one in sound if one.mark == OK} >= set(RULES) - ALWAYS


def test_failure_says_what_was_sent_and_what_came(broken: dict[str, Outcome]) -> None:
    outcome = broken["del-twice"]

    assert outcome.why.startswith("the second DEL: refused with exit 1: code 100: ip -n ns1 link del eth0")
    assert "CNI_COMMAND='DEL'" in outcome.sent and '"prevResult"' in outcome.sent
    assert outcome.came.startswith("exit 1\nstdout: {")
