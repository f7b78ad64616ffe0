# SPDX-License-Identifier: Apache-2.0
"""cnihook conformance: cnihook's plugins pass every check, the known faults of the reference are found, and
people and programs can read the output.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.support import cni
from tests.support.difference import numbers
from tests.support.host import Host
from tests.support.namespace import base_environment, end
from tests.support.seeing import INSTALLED
from tests.support.skip import need_open_checkout, need_root

CHECKOUT = Path(__file__).resolve().parents[2]
CNIHOOK = str(CHECKOUT / "scripts" / "cnihook")
SMALL = CHECKOUT / "tests" / "support" / "small_plugin.py"
MINUTES = 600.0  # seconds, on a busy machine

# Two long runs, both on the same worker.
pytestmark = pytest.mark.xdist_group("conformance")


class Run:
    """One run in a throw-away host; nothing may be left there."""

    def __init__(self, folder: Path, *argv: str) -> None:
        with Host() as host:
            files = ("--json", str(folder / "found.json"), "--junit", str(folder / "found.xml"))
            self.done = host.run(CNIHOOK, "conformance", *argv, *files, check=False, timeout=MINUTES)
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
def own(tmp_path_factory: pytest.TempPathFactory) -> Run:
    plugins = tmp_path_factory.mktemp("plugins")
    cni.write_launchers(plugins)
    return Run(tmp_path_factory.mktemp("own"), str(plugins))


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


# The command itself


def conformance(*argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [CNIHOOK, "conformance", *argv],
        capture_output=True,
        text=True,
        env=base_environment(),
        timeout=MINUTES,
        **options,
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result


def refused(*argv: str, **options: Any) -> str:
    """Return the one line on stderr of a run that could not check anything."""
    result = conformance(*argv, **options)
    assert (result.returncode, result.stdout) == (2, ""), result
    assert result.stderr.startswith("cnihook: conformance: ") and result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Create a plugin of a type that the suite does not know."""
    executable = tmp_path / "unheard-of"
    executable.write_text(f"#!/bin/sh\nexec {sys.executable} -IS {SMALL}\n")
    executable.chmod(0o755)
    return executable


def configuration(folder: Path, **keys: Any) -> str:
    path = folder / "net.conflist"
    plugin = {"type": "unheard-of", **keys}
    path.write_text(json.dumps({"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "a"}, plugin]}))
    return str(path)


def outcomes(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return {one["check"]: one["outcome"] for one in json.loads(done.stdout)["results"]}


CHOSEN = (
    "--check",
    "add",
    "--check",
    "prev-result-passed-on",
    "--check",
    "ipam-abbreviated",
    "--check",
    "del",
)


@pytest.mark.root
@pytest.mark.parametrize(
    ("keys", "applies"),
    [
        (
            {"role": "interface", "ipam": {"type": "static", "addresses": [{"address": "10.9.0.2/24"}]}},
            "del",
        ),
        ({"role": "chained"}, "prev-result-passed-on"),
        ({"role": "ipam"}, "ipam-abbreviated"),
    ],
    ids=["interface", "chained", "ipam"],
)
def test_role_of_unknown_plugin_is_detected(
    tmp_path: Path, small: Path, keys: dict[str, Any], applies: str
) -> None:
    """The suite needs only its configuration: a first ADD shows which kind of plugin it is."""
    cni.write_launchers(tmp_path)  # for static, beside it

    result = conformance(str(small), "--config", configuration(tmp_path, **keys), *CHOSEN, "--json", "-")

    assert {name for name, outcome in outcomes(result).items() if outcome == "passed"} == {"add", applies}
    assert result.returncode == 0


@pytest.mark.root
def test_chained_option_sets_the_role(tmp_path: Path, small: Path) -> None:
    conf = configuration(tmp_path, role="chained")

    result = conformance(str(small), "--config", conf, "--chained", *CHOSEN, "--json", "-")

    assert outcomes(result)["prev-result-passed-on"] == "passed"


@pytest.mark.root
def test_unknown_plugin_without_configuration_gets_protocol_checks(small: Path) -> None:
    checks = ("--check", "container-id", "--check", "version-alone", "--check", "add")

    result = conformance(str(small), *checks, "--json", "-")

    assert outcomes(result) == {"container-id": "passed", "version-alone": "passed", "add": "skipped"}
    assert "--config" in result.stdout


@pytest.mark.root
def test_two_plugins_of_one_name_are_reported_by_path(tmp_path: Path, small: Path) -> None:
    """One can compare a plugin before and after a change."""
    other = tmp_path / "other" / small.name
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)

    result = conformance(str(small), str(other), str(small), "--check", "version-lists", "--json", "-")

    results = [(one["subject"], one["outcome"]) for one in json.loads(result.stdout)["results"]]
    assert results == [(str(small), "passed"), (str(other), "failed")]


@pytest.mark.root
def test_run_without_any_check_is_an_error(small: Path) -> None:
    result = conformance(str(small), "--check", "add")

    assert (result.returncode, result.stderr) == (2, "cnihook: conformance: nothing could be tried\n")
    assert "unheard-of: add: no configuration is known for it" in result.stdout


@pytest.mark.root
def test_configuration_that_fails_every_add_is_one_failure(tmp_path: Path, small: Path) -> None:
    """The checks that need an ADD are skipped."""
    conf = configuration(tmp_path, role="interface", ipam={"type": "there-is-none"})

    result = conformance(str(small), "--config", conf, *CHOSEN, "--json", "-")

    by_check = outcomes(result)
    assert by_check.pop("add") == "failed"
    assert set(by_check.values()) == {"skipped"}
    assert result.returncode == 1


@pytest.mark.root
def test_plugin_below_run_is_visible(host: Host) -> None:
    """/run is empty in the suite's throw-away hosts, but a plugin under test there must be visible."""
    (host.root / "run/plugins").mkdir()
    cni.write_launchers(host.root / "run/plugins")

    result = host.run(CNIHOOK, "conformance", "/run/plugins/loopback", "--check", "add", timeout=MINUTES)

    assert "add  ok" in result.stdout
    host.leaves("* /run/plugins*")


@pytest.mark.root
def test_user_without_root_can_run_it_in_a_user_namespace(tmp_path: Path) -> None:
    program = [CNIHOOK, "conformance", str(cni.REFERENCE / "loopback"), "--check", "add"]
    if not Path(program[2]).exists():
        pytest.skip("there is no reference")
    need_open_checkout()
    drop = "setpriv --reuid 65534 --regid 65534 --clear-groups".split()

    inside = subprocess.run([*drop, "unshare", "-Urmn", *program], capture_output=True, text=True)
    outside = subprocess.run([*drop, *program], capture_output=True, text=True)

    assert inside.returncode == 0 and "add  ok" in inside.stdout
    assert (outside.returncode, outside.stdout, outside.stderr.count("\n")) == (2, "", 1)
    assert "root, or a user namespace" in outside.stderr


def test_list_names_every_check_and_its_section() -> None:
    result = conformance("--list")

    assert result.returncode == 0
    assert "\ndel-twice  [2 DEL]\n    a second DEL succeeds\n" in result.stdout
    assert "\ndel-past-failure  [3 Deleting an attachment; note]\n" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 80


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "EXECUTABLE, DIR or --runtime COMMAND is missing"),
        (["/nowhere/bridge"], "/nowhere/bridge: no such file"),
        (["/etc/passwd"], "not an executable"),
        (["/etc/cron.d/.."], "--check"),
        (["--runtime", "x", "y"], "--runtime cannot be combined with plugins"),
        (["--runtime", "there-is-no-such-runtime"], "no such program"),
        (["/bin/true", "--config", "/nowhere.conf"], "/nowhere.conf: No such file"),
        (["/bin/true", "--config", "/etc/passwd"], "/etc/passwd: "),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_2(argv: list[str], words: str) -> None:
    need_root()
    if words == "--check":
        argv = ["/bin/true", "--check", "nonsense"]
        words = "no check 'nonsense'; --list prints"

    assert words in refused(*argv)


@pytest.mark.root
def test_terminal_shows_progress(small: Path) -> None:
    """Progress is one line, which is erased at the end.  The table stays, in colour."""
    controller, terminal = os.openpty()
    process = subprocess.Popen(
        [INSTALLED, "conformance", str(small), "--check", "about", "--check", "version-alone"],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        env=base_environment() | {"TERM": "xterm"},
    )
    os.close(terminal)
    text = ""
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline and select.select([controller], [], [], 60)[0]:
            try:
                text += os.read(controller, 65536).decode()
            except OSError:
                break
    finally:
        end(process)
        os.close(controller)

    progress, _, table = text.rpartition("\r\033[K")
    assert "\r1/2 unheard-of: " in progress
    assert "\033[32mok\033[0m" in table


@pytest.mark.root
def test_sigint_ends_all_plugins(host: Host, small: Path) -> None:
    process = host.popen(CNIHOOK, "conformance", str(small), str(cni.REFERENCE))
    while not Path(f"/proc/{process.inside}/task/{process.inside}/children").read_text():
        assert process.poll() is None
    os.kill(process.inside, signal.SIGINT)

    assert process.wait(30) == 130
