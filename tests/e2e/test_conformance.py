# SPDX-License-Identifier: Apache-2.0
"""cnihook conformance: cnihook's plugins pass every check, the known faults of the reference are found, and
people and programs can read the output.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.support.difference import numbers
from tests.support.host.forks import python
from tests.support.host.host import Host
from tests.support.plugins import cni

CHECKOUT = Path(__file__).resolve().parents[2]
CNIHOOK = str(CHECKOUT / "scripts" / "cnihook")
MINUTES = 600.0  # seconds, on a busy machine

# Two long runs, both on the same worker.
pytestmark = pytest.mark.xdist_group("conformance")


class Run:
    """One run in a throw-away host; nothing may be left there.  `program`: `cnihook conformance`."""

    def __init__(self, folder: Path, *argv: str, program: Sequence[str] = (CNIHOOK, "conformance")) -> None:
        with Host() as host:
            files = ("--json", str(folder / "found.json"), "--junit", str(folder / "found.xml"))
            self.done = host.run(*program, *argv, *files, check=False, timeout=MINUTES)
            host.check_leaks()
        self.results: list[dict[str, Any]] = json.loads((folder / "found.json").read_text())["results"]
        self.junit = ElementTree.parse(folder / "found.xml").getroot()

    def having(self, outcome: str) -> dict[str, list[str]]:
        """Return the plugins with this outcome, by check."""
        subjects: dict[str, list[str]] = {}
        for one in self.results:
            if one["outcome"] == outcome:
                subjects.setdefault(one["check"], []).append(one["subject"])
        return subjects


@pytest.fixture(scope="module")
def launchers(tmp_path_factory: pytest.TempPathFactory) -> str:
    plugins = tmp_path_factory.mktemp("plugins")
    cni.write_launchers(plugins)
    return str(plugins)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, launchers: str) -> Run:
    """Run all checks.  The plugins are forks, which take a third of the processor time of executables."""
    program = python("tests.support.plugins.own_conformance")
    return Run(tmp_path_factory.mktemp("own"), launchers, program=program)


@pytest.fixture(scope="module")
def executables(tmp_path_factory: pytest.TempPathFactory, launchers: str) -> Run:
    """Run the checks that depend on how a plugin starts, reads, prints and ends."""
    checks = [argument for name in OF_PROCESSES for argument in ("--check", name)]
    return Run(tmp_path_factory.mktemp("executables"), launchers, *checks)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run only the checks that the reference is known to fail, and a few that it passes."""
    if not cni.REFERENCE.is_dir():
        pytest.skip(f"there is no {cni.REFERENCE}")
    names = [*REFERENCE_FAILS, *REFERENCE_NOTES, "add", "container-id", "prev-result-passed-on", "parallel"]
    checks = [argument for name in names for argument in ("--check", name)]
    return Run(tmp_path_factory.mktemp("reference"), str(cni.REFERENCE), *checks)


LOOPBACK = {  # prints the shape of 1.0.0 for every version
    "result-0.1.0": {"loopback"},
    "result-0.4.0": {"loopback"},
}
# Failures of containernetworking-plugins 1.1.1, as in Debian 12 and 13, and of 1.9.1.
FAILS: dict[str, dict[str, set[str]]] = {
    "1.1.1": {
        **LOOPBACK,
        "check": {"portmap"},  # looks for the rules of IPv4 in the IPv6 table
        "check-later-plugins": {"portmap"},
        "check-route": {"bridge", "host-device", "ipvlan", "macvlan", "ptp", "vlan"},
        "del-link-gone": {"host-device", "sbr", "vrf"},
        "del-others": {"portmap"},
        "del-twice": {"host-device"},
        "delegate-del-no-netns": {"host-device"},
    },
    "1.9.1": {
        **LOOPBACK,
        "add-existing": {"tap"},
        "del-link-gone": {"host-device", "vrf"},
        "del-twice": {"host-device"},
        "delegate-del-no-netns": {"host-device"},
        "delegate-gc": {"bridge", "host-device", "ipvlan", "macvlan", "ptp", "tap", "vlan"},
    },
}
# What they do not do although the specification says "should".
NOTES: dict[str, dict[str, set[str]]] = {
    "1.1.1": {
        "add-other-ifname": {"ptp"},  # the second attachment adds the same route to the gateway again
        "del-empty-netns": {"sbr"},
        "del-failed-add": {"host-device", "sbr"},
        "del-host-links-gone": {"host-device", "macvlan", "sbr", "vlan", "vrf"},
        "del-netns-gone": {"host-device", "sbr"},
        "del-never-added": {"dhcp", "host-device", "sbr"},
        "delegate-refuses-clean": {"bridge", "host-device", "ipvlan", "macvlan", "vlan"},
        "result-dns": {"bridge", "host-device", "ipvlan", "macvlan", "vlan"},
    },
    "1.9.1": {
        "add-other-ifname": {"ptp"},
        "del-empty-netns": {"sbr"},
        "gc-removes": {"bandwidth", "bridge", "firewall", "host-local", "portmap", "ptp", "tuning"},
        "gc-ifname": {"bandwidth", "bridge", "firewall", "host-local", "portmap", "ptp", "tuning"},
    },
}
_VERSION = "1.1.1" if numbers(cni.reference_version()) < (1, 9) else "1.9.1"
REFERENCE_FAILS, REFERENCE_NOTES = FAILS[_VERSION], NOTES[_VERSION]


# sbr does not move routes back to the main table: the chain's same DEL deletes the interface.
OUR_NOTES = {("sbr", "del-undoes")}


def test_own_plugins_pass_every_check(own: Run) -> None:
    wrong = [one for one in own.results if one["outcome"] in ("failed", "note")]

    assert [one for one in wrong if (one["subject"], one["check"]) not in OUR_NOTES] == []
    assert (own.done.returncode, own.done.stderr) == (0, "")


OF_PROCESSES = ["about", "version-lists", "stdin-absent", "stdin-late", "add-only-json", "parallel"]


def test_executables_of_own_plugins_pass_checks(executables: Run) -> None:
    wrong = [one for one in executables.results if one["outcome"] in ("failed", "note")]

    assert wrong == [] and (executables.done.returncode, executables.done.stderr) == (0, "")
    passes = executables.having("passed")
    assert set(OF_PROCESSES) <= set(passes)
    assert {"bridge", "host-local", "loopback", "ptp", "tuning"} <= set(passes["parallel"])


def test_own_plugins_are_not_skipped(own: Run) -> None:
    """A skipped check proves nothing."""
    passes = own.having("passed")

    assert {"bridge", "host-local", "loopback", "ptp", "static", "tuning"} <= set(passes["del-twice"])
    assert {"bridge", "ptp", "host-local"} <= set(passes["gc-removes"]) and "tuning" in passes["gc-removes"]
    assert {"bridge", "ptp"} <= set(passes["delegate-gc"])


@pytest.mark.parametrize("check", REFERENCE_FAILS)
def test_failure_of_reference_is_found(reference: Run, check: str) -> None:
    """Plugins that this kernel cannot run are left out.  The test fails if a newer version fixes a fault."""
    failed, skipped = set(reference.having("failed").get(check, [])), reference.having("skipped")

    assert failed == REFERENCE_FAILS[check] - set(skipped.get(check, []))
    assert failed and reference.done.returncode == 1


@pytest.mark.parametrize("check", REFERENCE_NOTES)
def test_unmet_should_of_reference_is_a_note(reference: Run, check: str) -> None:
    noted, skipped = set(reference.having("note").get(check, [])), reference.having("skipped")

    assert noted and noted == REFERENCE_NOTES[check] - set(skipped.get(check, []))


def test_reference_passes_other_checks(reference: Run) -> None:
    passes = reference.having("passed")

    assert {"bridge", "portmap", "dhcp", "vrf"} <= set(passes["container-id"])
    assert {"bandwidth", "firewall", "portmap", "sbr", "tuning"} <= set(passes["prev-result-passed-on"])
    assert {"bridge", "host-local", "ptp"} <= set(passes["parallel"])


def test_skipped_plugin_has_a_reason(reference: Run) -> None:
    reasons = {
        one["subject"]: one["why"] for one in reference.results if one["check"] == "add" and "why" in one
    }

    assert "DHCP server" in reasons["dhcp"]
    assert "dhcp: " in reference.done.stdout and "DHCP server" in reference.done.stdout


def test_table_fits_80_columns_without_colour(reference: Run) -> None:
    text = reference.done.stdout
    table, _, rest = text.partition("ok: the promise is kept")

    assert "\033" not in text
    assert max(len(line) for line in table.splitlines()) <= 80
    row = next(line for line in table.splitlines() if line.startswith("del-twice"))
    assert set(row.split()[1:]) == {"ok", "FAIL", "-"}
    assert "FAIL host-device: del-twice" in rest and "(specification: 2 DEL)" in rest
    assert "sent:" in rest and "came:    exit 1" in rest


def test_json_and_junit_report_the_same(reference: Run) -> None:
    suites = reference.junit.findall("testsuite")
    cases = reference.junit.findall("testsuite/testcase")

    assert reference.junit.tag == "testsuites"
    assert int(reference.junit.get("tests", "")) == len(cases) == len(reference.results)
    failures = {
        (suite.get("name"), case.get("name"))
        for suite in suites
        for case in suite
        if case.find("failure") is not None
    }
    assert failures == {
        (one["subject"], one["check"]) for one in reference.results if one["outcome"] == "failed"
    }
    assert int(reference.junit.get("failures", "")) == len(failures)
    skipped = [case for case in cases if case.find("skipped") is not None]
    assert len(skipped) == int(reference.junit.get("skipped", ""))
